"""python -m clipdr.unlock: take away the lock that a killed Snakemake left on this folder, if nobody works in it.

Snakemake's lock does not say whose it is. Somebody works in a folder if a process of this machine that runs Snakemake
or a job of ours has it as its working directory; processes of other machines are not seen, and so a folder that several
machines share is unlocked by hand.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from clipdr import cli
from clipdr.progress import log
from clipdr.schema import REPOSITORY

OURS = ("snakemake", "clipdr.")


def unlock(folder: Path) -> None:
    """Remove the lock on a folder, if there is one and no process is at work in it."""
    if not any((folder / ".snakemake/locks").glob("*")):
        return
    if workers := list(at_work(folder)):
        log.info("%s is locked, and process %d is at work in it", folder, workers[0])
        return
    log.info("%s was locked by a process that is gone; the lock is removed", folder)
    command = [sys.executable, "-m", "snakemake", "--unlock", "--quiet", "all"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def at_work(folder: Path) -> Iterator[int]:
    """Processes that run Snakemake or a job in a folder; not this one, nor those that have started it."""
    starters = {process.pid for process in [psutil.Process(), *psutil.Process().parents()]}
    for process in psutil.process_iter(["cmdline", "cwd"]):  # None where it is gone, or another user's
        words, place = " ".join(process.info["cmdline"] or []), process.info["cwd"]
        here = place and Path(place) == folder.resolve()
        if here and any(word in words for word in OURS) and process.pid not in starters:
            yield process.pid


def main() -> None:
    parser = cli.parser("clipdr.unlock", "Remove the lock of a Snakemake that was killed.", "python -m clipdr.unlock")
    parser.parse_args()
    unlock(REPOSITORY)


if __name__ == "__main__":
    cli.run(main)
