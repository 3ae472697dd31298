"""A uniform sample of a pool.

A pair is chosen by the hash of its uid and a seed, so the choice does not depend on the order of the shards, and a
smaller subset of the same seed lies inside a larger one.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from clipdr.data.shards import read_shard
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
        subset: rows of the index (`uid`, `shard`).

    Raises:
        UserError: a chosen sample is not in its shard.
    """
    for shard, rows in subset.groupby("shard", sort=True):
        wanted = set(rows["uid"])
        for sample in read_shard(pool / shard):
            if sample["__key__"] in wanted:
                wanted.remove(sample["__key__"])
                yield sample
        if wanted:
            raise UserError(
                f"{pool / shard} lacks {len(wanted)} samples of the index, first {min(wanted)}; build the pool again"
            )
