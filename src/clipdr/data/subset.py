"""A uniform sample of a pool, cut into chunks that later stages work on one by one.

A pair is chosen by the hash of its uid and a seed, so the choice does not depend on the order of the shards, and a
smaller subset of the same seed lies inside a larger one. A chunk holds the chosen pairs of a run of the pool's shards.
The index is read piece by piece: nothing is held that grows with it but the names of its shards.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from clipdr.chunks import chunk_names, runs
from clipdr.data.shards import IMAGES, read_shard
from clipdr.errors import UserError
from clipdr.files import atomic_dir, sha256
from clipdr.progress import log

BATCH = 65536  # lines of the index that are held
DIGITS = 5  # of a hash, by which pairs are counted before those at the border are compared


def sample(index: Path, size: int, seed: int, chunks: int, output: Path, at_most: bool = False) -> None:
    """Write the `size` rows of the index whose (seed, uid) hash comes first, in the index's order.

    Args:
        index: the pool's `index.parquet`, in the order of its shards.
        size: number of rows.
        seed: of the choice.
        chunks: number of files.
        output: folder that receives `<chunk>.parquet`, see `clipdr.chunks`.
        at_most: whether a pool of fewer pairs is taken whole.

    Raises:
        UserError: the pool has fewer pairs than asked for, or fewer shards than chunks, or `size` is not positive.
    """
    if size < 1:
        raise UserError(f"a subset of {size} was asked for; `size` must be at least 1")
    numbers, shards = np.zeros(16**DIGITS, np.int64), {}
    for rows in _batches(index, ["uid", "shard"]):
        np.add.at(numbers, [int(digest[:DIGITS], 16) for digest in _hashes(rows, seed)], 1)
        shards |= dict.fromkeys(rows["shard"])
    if at_most and size > numbers.sum():
        log.warning("the pool has %d of the %d pairs that were asked for; all are taken", numbers.sum(), size)
        size = int(numbers.sum())
    if size > numbers.sum():
        raise UserError(
            f"a subset of {size} was asked of a pool of {numbers.sum()} pairs; lower `size` in the scale's datasets"
        )
    if chunks > len(shards):
        raise UserError(
            f"{chunks} chunks were asked of a pool of {len(shards)} shards; lower `chunks` in the scale's datasets"
        )
    last = _last(index, size, seed, numbers.cumsum())
    with atomic_dir(output) as folder:
        for name, mine in zip(chunk_names(chunks), runs(sorted(shards), chunks), strict=True):
            rows = pd.read_parquet(index, filters=[("shard", ">=", mine[0]), ("shard", "<=", mine[-1])])
            chosen = [digest <= last for digest in _hashes(rows, seed)]
            rows[chosen].to_parquet(folder / f"{name}.parquet", index=False)


def _batches(index: Path, columns: list[str]) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(index) as file:
        for batch in file.iter_batches(BATCH, columns=columns):
            yield batch.to_pandas()


def _hashes(rows: pd.DataFrame, seed: int) -> list[str]:
    return [sha256(f"{seed}:{uid}".encode()) for uid in rows["uid"]]


def _last(index: Path, size: int, seed: int, up_to: np.ndarray) -> str:
    """The hash of the last pair that is chosen; `up_to` counts the pairs up to each value of a hash's first digits."""
    border = int(np.searchsorted(up_to, size))
    digits, before = f"{border:0{DIGITS}x}", int(up_to[border - 1]) if border else 0
    found = [one for rows in _batches(index, ["uid"]) for one in _hashes(rows, seed) if one.startswith(digits)]
    return sorted(found)[size - before - 1]


def subset_samples(pool: Path, subset: pd.DataFrame) -> Iterator[dict]:
    """Yield the chosen samples in the order of the pool.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index (`uid`, `shard`, `sha256`, `caption`).

    Raises:
        UserError: a chosen sample is not in its shard, or not what the index says.
    """
    for shard, rows in subset.groupby("shard", sort=True):
        wanted = {row.uid: row for row in rows.itertuples()}
        for sample in read_shard(pool / shard):
            if row := wanted.pop(sample["__key__"], None):
                _check(sample, row, pool / shard)
                yield sample
        if wanted:
            raise UserError(
                f"{pool / shard} lacks {len(wanted)} samples of the index, first {min(wanted)}; build the pool again"
            )


def _check(sample: dict, row, shard: Path) -> None:
    """Image, caption and details are those that the pool was built with."""
    image = next((sample[name] for name in IMAGES if name in sample), b"")
    wrong = "image" if sha256(image) != row.sha256 else None
    if sample.get("txt") != row.caption.encode():
        wrong = "caption"
    try:
        json.loads(sample["json"])["texts"]
    except (KeyError, ValueError, TypeError):
        wrong = "json"
    if wrong:
        raise UserError(f"{shard}: sample {row.uid}: its {wrong} is not what the index says; build the pool again")
