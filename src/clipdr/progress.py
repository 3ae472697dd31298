"""The package's log, and progress: a bar on a terminal, plain lines in a log file, at most one every ten seconds."""

import logging
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

log = logging.getLogger("clipdr")


def progress(items: Iterable, what: str, total: int | None, every_seconds: float = 10.0) -> Iterator:
    """Yield `items` and show how many of `total` are done, how fast, and how long the rest takes, if that is known."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, what, total)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= every_seconds or done == total:
            rate = done / max(now - start, 1e-9)
            if total is None:
                log.info("%s: %d, %.1f/s", what, done, rate)
            else:
                log.info("%s: %d/%d, %.1f/s, %.0f s left", what, done, total, rate, (total - done) / rate)
            last = now


def unfinished(shards: Collection[str], what: str, file_of: Callable[[str], Path]) -> Iterator[str]:
    """The shards whose file is not there yet, with progress; the others were finished before a kill, and are logged."""
    for shard in progress(shards, f"{what}: shards", len(shards)):
        if file_of(shard).is_file():
            log.info("%s: %s was finished before", what, shard)
        else:
            yield shard
