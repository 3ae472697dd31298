"""A teacher's text tower for a student whose image tower alone trains, as DIME-FM's."""

from pathlib import Path

from torch import nn

from clipdr.errors import UserError
from clipdr.models.folder import read_config
from clipdr.models.load import load_model


def take(model: nn.Module, teacher: Path | None, folder: Path) -> None:
    """Give a student a teacher's text tower and scale.

    Args:
        model: the student's.
        teacher: model folder.
        folder: the student's, with its configuration.

    Raises:
        UserError: there is no teacher, or its text tower, width or activation is another than the student's.
    """
    if teacher is None:
        raise UserError("the objective keeps a teacher's text tower, but --text-tower names no folder; give that one's")
    ours, theirs = read_config(folder)["model_cfg"], read_config(teacher)["model_cfg"]
    for key in ("text_cfg", "embed_dim", "quick_gelu"):
        if ours.get(key) != theirs.get(key):
            raise UserError(
                f"model: {key} is {ours.get(key)}, that of {teacher} is {theirs.get(key)}; the student needs the text "
                "tower and the width of its first teacher"
            )
    found = load_model(teacher)
    model.text.load_state_dict(found.text.state_dict())
    model.logit_scale.data.copy_(found.logit_scale.data)
