"""Shards of addresses from a dataset's metadata, for pools whose captions and embeddings are all made anew.

DataComp's metadata are parquet files with uid, url, text and sha256; those of other sets lack the last, and their
images are taken as they come. Lines become samples `<uid>.url.txt` and `<uid>.json`, which is what published
reinforcements have, too; images and captions are joined with both alike.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from clipdr.chunks import chunk_names, runs
from clipdr.data.shards import write_shard
from clipdr.errors import UserError
from clipdr.files import reason, resumable_dir, sha256, stamps
from clipdr.progress import unfinished

COLUMNS, HASH = ["uid", "url"], "sha256"
SHARD_SIZE = 10_000


def write_addresses(settings: dict, chunk: str, output: Path) -> None:
    """Write a run of the shards; those that were finished before a kill are kept.

    Args:
        settings: `captions`, parquet file or folder of them; `shard_size`, lines of a shard; `chunks`.
        chunk: which run, a name of `clipdr.chunks`.
        output: folder of the shards.

    Raises:
        UserError: there are fewer shards than chunks, or a file cannot be read.
    """
    source, size, chunks = Path(settings["captions"]), settings.get("shard_size", SHARD_SIZE), settings.get("chunks", 1)
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    lengths = [_length(path) for path in files]
    shards = [f"{number:08d}.tar" for number in range(-(-sum(lengths) // size))]
    if chunks > len(shards):
        raise UserError(f"pool.chunks is {chunks}, but {source} has {len(shards)} shards of {size} lines; lower it")
    mine = dict(zip(chunk_names(chunks), runs(shards, chunks), strict=True))[chunk]
    token = sha256(json.dumps([size, mine, stamps(Path(), map(str, files))]).encode())
    with resumable_dir(output, token) as folder:
        for shard in unfinished(mine, output.name, folder.joinpath):
            start = int(shard.removesuffix(".tar")) * size
            write_shard(folder / f"{shard}.partial", _samples(files, lengths, start, start + size))
            (folder / f"{shard}.partial").replace(folder / shard)


def _length(path: Path) -> int:
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(path).num_rows
    except (OSError, ValueError) as error:  # pyarrow's own are ValueErrors
        raise UserError(f"pool.captions: {path} cannot be read ({reason(error)}); fetch it again") from None


def _samples(files: list[Path], lengths: list[int], start: int, stop: int) -> Iterator[dict]:
    """The lines `start` to `stop` of all files together, as samples."""
    import pyarrow.parquet as pq

    first = 0
    for path, length in zip(files, lengths, strict=True):
        if first < stop and first + length > start:
            try:
                known = [HASH] if HASH in pq.read_schema(path).names else []
                table = pq.read_table(path, columns=COLUMNS + known)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(
                    f"pool.captions: {path} cannot be read ({reason(error)}); it needs the columns uid and url"
                ) from None
            for line in table.slice(max(start - first, 0), stop - max(start, first)).to_pylist():
                details = {key: value for key, value in line.items() if key != "url"}
                yield {"__key__": line["uid"], "url.txt": line["url"].encode(), "json": json.dumps(details).encode()}
        first += length
