"""Files appear whole or not at all: written under a temporary name beside the target, then renamed."""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from clipdr.errors import UserError

TOKEN = ".token"
ROOM = "make room, or the folder writable, then give the same command again: finished work is kept"
MARKS = (TOKEN, ".snakemake_timestamp")  # a folder that holds nothing else is empty


def partial_dir(target: Path) -> Path:
    """Where a target is made before it is renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.partial")


def no_room(error: Exception) -> bool:
    """Whether a file could not be written for want of space or of the right to."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG)
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)  # how torch.save puts it


def reason(error: Exception) -> str:
    """One line of an error that is not ours."""
    return " ".join(str(error).split())[:200]


@contextlib.contextmanager
def atomic_file(target: Path | str) -> Iterator[Path]:
    """A temporary path to write; renamed to `target` when the block ends, removed when it raises.

    Raises:
        UserError: there is no room, or no right to write.
    """
    target = Path(target)
    partial = partial_dir(target)
    try:
        yield partial
        partial.replace(target)
    except (OSError, RuntimeError) as error:
        if no_room(error):
            raise UserError(f"{target} cannot be written ({reason(error)}); {ROOM}") from error
        raise
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(target: Path | str) -> Iterator[Path]:
    """A temporary directory to fill; becomes `target` when the block ends, removed when it raises.

    Raises:
        UserError: `target` holds something already: it may be somebody's work.
    """
    target = Path(target)
    _refuse_full(target)
    partial = partial_dir(target)
    shutil.rmtree(partial, ignore_errors=True)  # what a killed process left
    partial.mkdir()
    try:
        yield partial
        _move(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finished(target: Path | str, token: str) -> bool:
    """Whether `resumable_dir` has made `target` already with this token: an orphan of a killed workflow may have."""
    stamp = Path(target) / TOKEN
    return stamp.is_file() and stamp.read_text() == token


@contextlib.contextmanager
def resumable_dir(target: Path | str, token: str) -> Iterator[Path]:
    """Like `atomic_dir`, but a process that ends early, however it ends, leaves its work to the next one with `token`.

    Only one process at a time works on a target: the lock ends with its process. The token stays in the target.

    Args:
        token: stands for all that decides the content (code, settings, inputs); another one starts from nothing.

    Raises:
        UserError: `target` holds something already, or another process is making it.
    """
    target = Path(target)
    _refuse_full(target)
    partial = partial_dir(target)
    with _locked(target):
        stamp = partial / TOKEN
        if not stamp.is_file() or stamp.read_text() != token:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            stamp.write_text(token)
        yield partial
        _move(partial, target)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    path = target.with_name(f".{target.name}.lock")
    with open(path, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UserError(
                f"{target} is being made by process {lock.read().strip() or 'unknown'}; wait until it has ended, then "
                "give the same command again"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
        path.unlink()


def _refuse_full(target: Path) -> None:
    found = sorted(path.name for path in target.iterdir() if path.name not in MARKS) if target.is_dir() else []
    if found:
        raise UserError(f"{target} is not empty (it holds {found[0]!r}); remove it, or write to another folder")


def _move(partial: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)


def stamps(folder: Path, names: Iterable[str]) -> list[tuple[str, int, int]]:
    """(name, size, time of the last change) of files, where hashing them would take as long as the work itself."""
    found = [(name, (folder / name).stat()) for name in names if (folder / name).is_file()]
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


def sha256(data: bytes) -> str:
    """Hex digest of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex digest of a file's bytes, read piece by piece."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
