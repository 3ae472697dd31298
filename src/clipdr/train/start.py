"""Where a run's weights start, if not at random: at another model's, of which a mixture copies the MLPs."""

from pathlib import Path

import torch
from torch import nn

from clipdr.errors import UserError
from clipdr.mixtures import dense
from clipdr.models.folder import random_model, read_config, weights_file
from clipdr.models.moe import COPY_OF, for_each, mixtures_of, upcycle
from clipdr.train.checkpoint import MOMENTS

LOOKS_ALIKE = {"custom_text": True, "quick_gelu": False}  # of a configuration, what may be left out


def start_from(model: nn.Module, init: Path, folder: Path, asked: dict, seed: int) -> None:
    """Give a model the weights of another one.

    Args:
        model: of `folder`; with mixtures, `init` may have the same ones or be dense.
        init: model folder.
        folder: the model's own, with its configuration.
        asked: a run's `init`, which may have `noise` and `renewed`, see `clipdr.models.moe.MixtureOfExperts.copy`.
        seed: of those.

    Raises:
        UserError: another model, or a mixture of other experts.
    """
    ours, theirs = (LOOKS_ALIKE | read_config(path)["model_cfg"] for path in (folder, init))
    same = ours == theirs
    if not same and (dense(ours) == ours or theirs != dense(ours)):
        what = "a mixture of other experts" if dense(ours) == dense(theirs) else "another model"
        raise UserError(f"{init} is {what} than the one to train; start from the same model, or from the dense one")
    weights = torch.load(weights_file(init), weights_only=True, map_location="cpu")
    if same:
        model.load_state_dict(weights)
        return
    with torch.random.fork_rng(devices=[]):
        source = random_model(read_config(init), seed, str(init))
    source.load_state_dict(weights)
    upcycle(model, source, asked.get("noise", 0.0), asked.get("renewed", 0.0), seed)


def take_moments(optimizer: torch.optim.Optimizer, model: nn.Module, init: Path) -> None:
    """Give an optimizer the moments of the run that its model starts from; each expert has those of the MLP it copies.

    What that run did not have, as routers and layers of the objective, begins without.

    Raises:
        UserError: the run did not keep them.
    """
    path = init / MOMENTS
    if not path.is_file():
        raise UserError(f"{path} is missing; the run to start from needs training.keep_optimizer")
    saved = torch.load(path, weights_only=True, map_location="cpu")
    experts = {mixture: name for name, mixture in model.named_modules() if mixture in set(mixtures_of(model))}
    sources = {
        f"{name}.{parameter}": (f"{name}.{copied}", mixture.experts)
        for mixture, name in experts.items()
        for parameter, copied in COPY_OF.items()
    }
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        source, number = (name, None) if name in saved else sources.get(name, (name, None))
        if source in saved and id(parameter) in trained:
            optimizer.state[parameter] = {
                key: _placed(value, number, parameter) for key, value in saved[source].items()
            }


def _placed(value: torch.Tensor, number: int | None, parameter: torch.Tensor) -> torch.Tensor:
    """A moment as the parameter needs it; a step is a scalar on the parameter's device."""
    if number is not None and value.ndim:
        value = for_each(value, number)
    return value.to(parameter.device, copy=True).contiguous()
