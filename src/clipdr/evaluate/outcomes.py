"""Arrays beside the records: a task's outcomes, from which its metrics follow, and the draws of all main metrics."""

from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.files import atomic_file

DRAWS = "draws.npz"  # task -> its main metric for images drawn anew, see `clipdr.evaluate.intervals`


def outcomes_file(key: str) -> str:
    """The file of a task, beside the records."""
    return f"{key.replace('/', '-')}.npz"


def save(arrays: dict[str, np.ndarray], path: Path) -> None:
    """Write them, whole or not at all."""
    with atomic_file(path) as partial, open(partial, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def load(path: Path) -> dict[str, np.ndarray]:
    """Read them. Raises UserError if they are missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error!r:.80}); evaluate this run again") from None
