"""Where a model runs."""

from clipdr.errors import UserError


def check_device(name: str) -> None:
    """Raise UserError if this machine has no such device."""
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.partition(":")[0]):
        raise UserError(f"device {name} was asked for, which this machine does not have; choose cpu")
