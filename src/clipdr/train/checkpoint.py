"""What a killed run goes on from, and the weights that are kept on the way.

Everything random is derived from seed and step, and so is the place in the data: the step is all there is to say.
Files are written beside their place and renamed, so that each is whole or not there.
"""

from pathlib import Path

import torch
from torch import nn

from clipdr.errors import UserError
from clipdr.files import atomic_file, partial_dir, reason
from clipdr.progress import log

RESUME = "resume.pt"
MOMENTS = "optimizer.pt"
LADDER = "ladder"


def save(folder: Path, state: dict[str, object], step: int) -> None:
    """Write the state of all parts that have one, by name, as the last checkpoint."""
    states = {name: part.state_dict() for name, part in state.items()}
    _write(folder / RESUME, {**states, "step": step})


def resume(folder: Path, state: dict[str, object]) -> int:
    """Give each part the state of the last checkpoint; its step, 0 if there is none.

    Raises:
        UserError: the file is no checkpoint of these parts.
    """
    path = folder / RESUME
    partial_dir(path).unlink(missing_ok=True)  # of a process that was killed while it saved
    if not path.is_file():
        return 0
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        for name, part in state.items():
            part.load_state_dict(saved[name])
        step = saved["step"]
    except Exception as error:  # pickle's own, torch's and those of a state that does not fit
        what = f"{path} is no checkpoint of this run ({reason(error)}); delete it to train from the start"
        raise UserError(what) from None
    log.info("resumed at step %d", step)
    return step


def keep_moments(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write what the optimizer knows of the model's parameters, by their names."""
    states = {name: optimizer.state[p] for name, p in model.named_parameters() if p in optimizer.state}
    _write(folder / MOMENTS, {name: dict(state) for name, state in states.items()})


def ladder_steps(steps: int, rungs: int) -> list[int]:
    """`rungs` evenly spaced steps before the last."""
    return [round(steps * (n + 1) / (rungs + 1)) for n in range(rungs)]


def keep(folder: Path, model: nn.Module, step: int) -> None:
    """Write weights that stay."""
    path = folder / LADDER / f"{step:07d}.pt"
    path.parent.mkdir(exist_ok=True)
    _write(path, model.state_dict())


def _write(path: Path, content: object) -> None:
    with atomic_file(path) as partial:
        torch.save(content, partial)
