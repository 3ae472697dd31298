"""A uniform sample of a pool.

A pair is chosen by the hash of its uid and a seed, so the choice does not depend on the order of the shards, and a
smaller subset of the same seed lies inside a larger one.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from clipdr.data.shards import IMAGES, read_shard
from clipdr.errors import UserError
from clipdr.files import sha256


def sample(index: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """The `size` rows of `index` whose (seed, uid) hash comes first, in the index's order.

    Raises:
        UserError: the pool has fewer pairs, or `size` is not positive.
    """
    if size < 1:
        raise UserError(f"a subset of {size} was asked for; `size` must be at least 1")
    if size > len(index):
        raise UserError(
            f"a subset of {size} was asked of a pool of {len(index)} pairs; lower `size` in the scale's datasets"
        )
    rank = index["uid"].map(lambda uid: sha256(f"{seed}:{uid}".encode()))
    return index.loc[rank.sort_values().index[:size].sort_values()].reset_index(drop=True)


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
