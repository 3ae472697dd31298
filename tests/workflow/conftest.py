"""A finished chain at scale `ci` in a folder of its own, made once for all workflow tests."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from clones import copy_of_the_repository

REPO = Path(__file__).parents[2]
CI = ("--config", "scale=ci", "--")


def snakemake(folder: Path, *args: str) -> subprocess.CompletedProcess:
    """Run snakemake in `folder` without anything of this test process leaking into it."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHASHSEED")}
    command = [sys.executable, "-m", "snakemake", *args]
    return subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def planned_jobs(folder: Path, *args: str) -> Counter:
    """Rule -> number of jobs that a dry run would start, but for `settings`; empty if there is nothing to do."""
    done = snakemake(folder, "-n", *(args or CI))
    assert done.returncode == 0, done.stdout[-3000:]
    if "Nothing to be done" in done.stdout:
        return Counter()
    table = done.stdout.rpartition("Job stats:")[2].partition("total")[0]
    jobs = {rule: int(count) for rule, count in re.findall(r"^([\w-]+)\s+(\d+)$", table, re.MULTILINE)}
    return Counter({rule: count for rule, count in jobs.items() if rule != "settings"})


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder in which the chain has run from empty. Tests that edit it put back what they changed.

    It runs once for all processes that test, which take copies.
    """
    own = tmp_path_factory.mktemp("chain") / "copy"
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    with open(shared / "chain.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / "finished-chain").is_dir():
            folder = copy_of_the_repository(tmp_path_factory.mktemp("chain") / "first")
            done = snakemake(folder, "--cores", "2", *CI)
            assert done.returncode == 0, done.stdout[-6000:]
            folder.rename(shared / "finished-chain")
        shutil.copytree(shared / "finished-chain", own, symlinks=True)
    return own
