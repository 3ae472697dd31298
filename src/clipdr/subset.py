"""Stage `subset`: a uniform sample of the pool.

A pair is chosen by the hash of its uid and a seed, so the choice does not depend on the order of the shards, and a
smaller subset of the same seed lies inside a larger one.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from clipdr import cli
from clipdr.errors import UserError
from clipdr.files import atomic_file, sha256
from clipdr.shards import read_shard


def sample(index: pd.DataFrame, size: int, seed: int) -> pd.DataFrame:
    """The `size` rows of `index` whose (seed, uid) hash comes first, in the index's order.

    Raises:
        UserError: the pool has fewer pairs.
    """
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


def main() -> None:
    parser = cli.parser(
        "clipdr.subset",
        "Sample a subset of a pool uniformly.",
        "python -m clipdr.subset --index results/pool/emoji/index.parquet --size 400 --seed 0 "
        "--output results/subset/emoji/12M.parquet",
    )
    parser.add_argument("--index", type=Path, required=True, help="the pool's index.parquet")
    parser.add_argument("--size", type=int, required=True, help="number of image-text pairs")
    parser.add_argument("--seed", type=int, required=True, help="of the hash; subsets of one seed are nested")
    parser.add_argument("--output", type=Path, required=True, help="the subset's rows of the index, as parquet")
    args = parser.parse_args()
    subset = sample(pd.read_parquet(args.index), args.size, args.seed)
    with atomic_file(args.output) as path:
        subset.to_parquet(path, index=False)


if __name__ == "__main__":
    cli.run(main)
