"""The package's log, and progress lines: the same on a terminal and in a log file.

At most one progress line every ten seconds, so that parallel jobs stay readable.
"""

import logging
import time
from collections.abc import Iterable, Iterator

log = logging.getLogger("clipdr")


def progress(items: Iterable, what: str, total: int, every_seconds: float = 10.0) -> Iterator:
    """Yield `items` and log `what: done/total, rate, time left` at most once every `every_seconds`."""
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= every_seconds or done == total:
            rate = done / max(now - start, 1e-9)
            log.info("%s: %d/%d, %.1f/s, %.0f s left", what, done, total, rate, (total - done) / rate)
            last = now
