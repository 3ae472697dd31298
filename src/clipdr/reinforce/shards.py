"""The shards of a subset: the pool's shards, less the samples that were not chosen."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.shards import read_shard


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
