"""A task's outcomes on disk: the arrays that its kind keeps of each image, and from which its metrics follow."""

from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.files import atomic_file


def outcomes_file(key: str) -> str:
    """The file of a task, beside the records."""
    return f"{key.replace('/', '-')}.npz"


def save(outcomes: dict[str, np.ndarray], path: Path) -> None:
    """Write them, whole or not at all."""
    with atomic_file(path) as partial, open(partial, "wb") as stream:
        np.savez_compressed(stream, **outcomes)


def load(path: Path) -> dict[str, np.ndarray]:
    """Read them. Raises UserError if they are missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error!r:.80}); evaluate this run again") from None
