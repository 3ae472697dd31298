"""What every command shares: logging, progress lines, and one-line errors.

Commands log plain lines to stderr. A terminal and a log file get the same lines, at most one progress line every ten
seconds, so that parallel jobs stay readable; rules copy stderr into their log file.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import yaml

from clipdr.errors import UserError

log = logging.getLogger("clipdr")


def parser(prog: str, description: str, example: str) -> argparse.ArgumentParser:
    """An argument parser whose --help ends with a command that works."""
    return argparse.ArgumentParser(
        prog=f"python -m {prog}",
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def command(commands, name: str, run: Callable, what: str, example: str) -> argparse.ArgumentParser:
    """Add a command to the subparsers `commands`; its --help ends with a command that works, too."""
    added = commands.add_parser(
        name,
        help=what,
        description=what,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(run=run)
    return added


def run(main: Callable[[], None]) -> None:
    """Run a command's `main`; a `UserError` becomes one line and exit code 1, other errors keep their traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # the reader of --help or of a listing went away
        os._exit(1)


def settings(text: str) -> dict:
    """The type of a `--settings` argument: a JSON object, or the path of a YAML file that holds one."""
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(Path(text).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise argparse.ArgumentTypeError(f"neither a JSON object nor a readable YAML file: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text} holds no mapping")
    return found


def set_threads(threads: int) -> None:
    """Bound every thread pool, before torch is imported: jobs run side by side, and sums depend on the split."""
    if threads < 1:
        raise UserError(f"--threads is {threads}; it must be 1 or more")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(threads)


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
