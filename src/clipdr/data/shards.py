"""Reading and writing WebDataset shards.

Bytes depend on nothing but the samples: members carry no time and no user, and keep the order they are given in.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from clipdr.errors import UserError

IMAGES = ("webp", "jpg", "png")  # extensions that a sample's image may have
END = bytes(1024)  # two empty blocks close a tar file


def shard_name(number: int) -> str:
    """`00000.tar`, `00001.tar`, …"""
    return f"{number:05d}.tar"


def captions_of(shard: str) -> str:
    """The file of a shard's synthetic captions."""
    return f"{shard.removesuffix('.tar')}.parquet"


def write_shard(path: Path, samples: Iterable[dict]) -> None:
    """Write samples `{"__key__": str, "<extension>": bytes, …}` to a tar file."""
    import webdataset as wds

    options = {"encoder": False, "mtime": 0, "user": "clipdr", "group": "clipdr"}
    with open(path, "wb") as stream, wds.TarWriter(stream, **options) as writer:
        for sample in samples:
            writer.write(sample)


def read_shard(path: Path) -> Iterator[dict]:
    """Yield the samples of a tar file as `{"__key__": str, "<extension>": bytes, …}`, in the file's order.

    Raises:
        UserError: no such file, or a damaged one.
    """
    import webdataset as wds

    if not path.is_file():
        raise UserError(f"{path} is missing; run the stage that writes it again")
    try:
        _check_end(path)
        # No splitters: who reads which shard is decided by the caller, also in a worker and beside other processes.
        options = {"shardshuffle": False, "nodesplitter": None, "workersplitter": None, "empty_check": False}
        for sample in wds.WebDataset(str(path), handler=wds.reraise_exception, **options):
            yield {name: value for name, value in sample.items() if name == "__key__" or not name.startswith("__")}
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        what = error.args[0] if isinstance(error, tarfile.TarError) else error  # webdataset adds further arguments
        raise UserError(f"{path} cannot be read ({what}); delete it and run the stage that writes it again") from error


def _check_end(path: Path) -> None:
    """A file cut between two members reads like a shorter one, except for its end."""
    with open(path, "rb") as stream:
        stream.seek(-min(len(END), path.stat().st_size), os.SEEK_END)
        if stream.read() != END:
            raise tarfile.ReadError("cut short")
