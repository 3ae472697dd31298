"""Names of models: those of config/models, and open_clip's own.

Where both know a name, it means the paper's network as config/models has it; `open_clip:<name>` is always open_clip's.
"""

import copy
from functools import cache

from clipdr.errors import UserError, nearest
from clipdr.model_files import load_models
from clipdr.schema import REPOSITORY

OPEN_CLIP = "open_clip:"


def configuration(name: str, preprocess_cfg: dict | None = None) -> dict:
    """`{"model_cfg": …, "preprocess_cfg": …}` of a model; the latter is missing if nobody says it.

    Args:
        name: a name in config/models, or of open_clip.
        preprocess_cfg: `{"mean": …, "std": …, "interpolation": …}` to use instead.

    Raises:
        UserError: an unknown name, with the nearest ones.
    """
    config = copy.deepcopy(_known().get(name) or _of_open_clip(name))
    if preprocess_cfg is not None:
        config["preprocess_cfg"] = preprocess_cfg
    return config


def open_clip_name(name: str) -> str | None:
    """The name that open_clip has for the model, or None if it is one of config/models."""
    return None if name in _known() else name.removeprefix(OPEN_CLIP)


def tags_with_quick_gelu(plain: str) -> list[str]:
    """Published weights of open_clip's model that were trained with QuickGELU, if the model of that name has GELU."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    if open_clip.get_model_config(plain).get("quick_gelu"):
        return []
    return [tag for tag in list_pretrained_tags_by_model(plain) if get_pretrained_cfg(plain, tag).get("quick_gelu")]


@cache
def _known() -> dict[str, dict]:
    models = load_models(REPOSITORY)
    if not models:  # else open_clip's networks would be taken for the paper's
        raise UserError(
            f"{REPOSITORY / 'config/models'} has no models; clipdr runs from its repository: "
            "pip install --editable <repository>"
        )
    return models


def _of_open_clip(name: str) -> dict:
    import open_clip

    plain = name.removeprefix(OPEN_CLIP)
    if plain not in open_clip.list_models():  # `hf-hub:` and `local-dir:`, which open_clip would fetch, are not
        raise UserError(
            f"model {name!r} is not known{nearest(name, [*_known(), *open_clip.list_models()], n=3)}; "
            "config/models and `python -c 'import open_clip; print(open_clip.list_models())'` have the names"
        )
    model_cfg = open_clip.get_model_config(plain)
    preprocess_cfg = _published_preprocessing(plain)
    return {"model_cfg": model_cfg, **({"preprocess_cfg": preprocess_cfg} if preprocess_cfg else {})}


def _published_preprocessing(name: str) -> dict | None:
    """What all of a model's published weights were trained with, or None if there are none or they differ."""
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    keys = ("mean", "std", "interpolation", "resize_mode")
    found = []
    for tag in list_pretrained_tags_by_model(name):
        published = get_pretrained_cfg(name, tag)
        found.append({key: published[key] for key in keys if key in published})
    return found[0] if found and all(entry == found[0] for entry in found) else None
