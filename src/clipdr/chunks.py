"""A dataset is worked on in chunks, runs of shards, each by a job of its own. Pure functions, no files."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice


def chunk_names(number: int) -> list[str]:
    """`00-of-16`, `01-of-16`, …"""
    return [f"{chunk:0{len(str(number - 1))}d}-of-{number}" for chunk in range(number)]


def runs(shards: Sequence[str], number: int) -> list[list[str]]:
    """The shards in `number` runs, as equal as possible."""
    return [list(shards[len(shards) * run // number : len(shards) * (run + 1) // number]) for run in range(number)]


def batched(items: Iterable, size: int) -> Iterator[list]:
    """Lists of `size` consecutive items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
