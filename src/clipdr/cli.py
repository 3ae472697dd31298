"""What every command shares: its parser, the file of its settings, threads, and one-line errors.

Commands log plain lines to stderr; rules copy stderr into their log file.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from clipdr.chunks import chunk_names
from clipdr.errors import UserError
from clipdr.files import ROOM, no_room
from clipdr.progress import log
from clipdr.provenance import announce


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
    announce()
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except BrokenPipeError:  # the reader of --help or of a listing went away
        os._exit(1)
    except OSError as error:
        if not no_room(error):
            raise
        sys.exit(f"error: {error.filename or 'a file'} cannot be written ({error.strerror}); {ROOM}")


def settings(text: str) -> dict:
    """The type of a `--settings` argument: the path of a settings.json, as the rule `settings` writes it."""
    try:
        found = json.loads(Path(text).read_text(encoding="utf-8"), object_hook=_Settings)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} is no readable JSON file: {error}") from None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"{text} holds no JSON object")
    return found


class _Settings(dict):
    """A mapping whose missing keys are the user's business: the file may be written by hand."""

    def __missing__(self, key: str):
        raise UserError(
            f"--settings: the key {key!r} is missing; a settings.json that the workflow wrote has all of them"
        )


def add_chunks(parser: argparse.ArgumentParser) -> None:
    """Options that name the folders of chunks by their number: thousands do not fit into one command."""
    parser.add_argument("--folder", type=Path, required=True, help="folder of the chunks' folders")
    parser.add_argument("--chunks", type=int, required=True, help="how many there are")


def chunk_folders(args: argparse.Namespace) -> list[Path]:
    """What the options of `add_chunks` name, in order."""
    return [args.folder / name for name in chunk_names(args.chunks)]


def set_threads(threads: int) -> None:
    """Bound every thread pool, before torch is imported: jobs run side by side, and sums depend on the split."""
    if threads < 1:
        raise UserError(f"--threads is {threads}; it must be 1 or more")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import torch

    torch.set_num_threads(threads)
