"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from clipdr.errors import UserError


def _partial(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.partial")


@contextlib.contextmanager
def atomic_file(target: Path | str) -> Iterator[Path]:
    """A temporary path to write; renamed to `target` when the block ends, removed when it raises."""
    target = Path(target)
    partial = _partial(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(target: Path | str) -> Iterator[Path]:
    """A temporary directory to fill; becomes `target` when the block ends, removed when it raises.

    Raises:
        UserError: `target` holds something already: it may be somebody's work.
    """
    target = Path(target)
    _refuse_full(target, ())
    partial = _partial(target)
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    partial.mkdir()
    try:
        yield partial
        _move(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def resumable_dir(target: Path | str, token: str, stale: tuple[str, ...] = ()) -> Iterator[Path]:
    """Like `atomic_dir`, but a killed process leaves its work to the next one that brings the same `token`.

    Args:
        token: stands for all that decides the content (code, settings, inputs); another one starts from nothing.
        stale: names that may lie in `target` and go when it is replaced, such as results of what stood there before.
    """
    target = Path(target)
    _refuse_full(target, stale)
    partial = _partial(target)
    stamp = partial / ".token"
    if not stamp.is_file() or stamp.read_text() != token:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        stamp.write_text(token)
    try:
        yield partial
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    stamp.unlink()
    _move(partial, target)


def _refuse_full(target: Path, stale: tuple[str, ...]) -> None:
    found = sorted(path.name for path in target.iterdir() if path.name not in stale) if target.is_dir() else []
    if found:
        raise UserError(f"{target} is not empty (it holds {found[0]!r}); remove it, or write to another folder")


def _move(partial: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes, read piece by piece."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
