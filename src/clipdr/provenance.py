"""Where a job ran, on what, with which code: one line of JSON at the top of its log, and reading it back.

The workflow asks for it with the variable CLIPDR_JOB; a command that is called by hand prints none. What a job was made
from is its own command line, so the path behind a result leads from log to log.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from clipdr.errors import UserError
from clipdr.fingerprint import own
from clipdr.progress import log

MARK = "provenance: "
# Stage, the folder below results -> what logs and benchmarks of its jobs are called.
JOBS = {
    **{"pool": "pool", "tokenizer": "tokenizer", "zoo": "zoo", "subset": "subset", "captions": "caption"},
    **{"reinforced": "reinforce", "views": "views", "rows": "rows", "runs": "train", "eval": "evaluate"},
    **{"costs": "costs", "storage": "storage", "work": "work"},
    **{"sentences": "sentences", "embedded": "embed", "corpora": "corpus"},
}


def job(root: Path) -> str:
    """What the workflow tells all of its jobs, as JSON: the commit, whether it is changed, and the lock's hash."""
    code = ["src", "workflow", "config", "Snakefile"]
    commit, changed = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--", *code)
    lock = hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest()[:12]
    return json.dumps({"commit": commit or "unknown", "changed": bool(changed), "lock": lock})


def announce() -> None:
    """Log the line, if the workflow asks for it."""
    if "CLIPDR_JOB" not in os.environ or os.environ.get("RANK", "0") != "0":  # of several processes, the first
        return
    module = sys.modules["__main__"].__spec__.name.removesuffix(".__main__")
    line = {
        **json.loads(os.environ["CLIPDR_JOB"]),  # commit, changed, lock
        "command": ["python", "-m", module, *sys.argv[1:]],
        "code": own(module),
        "machine": f"{platform.node()}, {_processor()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    log.info("%s%s", MARK, json.dumps(line, sort_keys=True, ensure_ascii=False))


def read(log_file: Path) -> dict:
    """The line of the last job that wrote a log. Raises UserError if there is none."""
    try:
        lines = [line for line in log_file.read_text(encoding="utf-8").splitlines() if MARK in line]
        return json.loads(lines[-1].partition(MARK)[2])
    except (OSError, IndexError, ValueError):
        raise UserError(
            f"{log_file} does not say how its job ran; it was made by an older version: make it again, or keep logs "
            "with results"
        ) from None


def logs_of(path: str, results: Path) -> list[Path]:
    """The logs of what lies at `path`, which begins with results/: of its one job, or those of its chunks."""
    stage, *rest = Path(path).parts[1:]
    if stage not in JOBS:
        return []
    folder, name = results / "logs" / JOBS[stage], "/".join(rest[: 2 if stage == "eval" else 1])
    one = folder / f"{name}.log"
    return [one] if one.is_file() else sorted((folder / name).glob("*.log"))


def made_from(line: Mapping, results: Path) -> list[Path]:
    """The logs of what a job was given: every path of results on its command line but the one that it made."""
    words = line["command"]
    made = words[words.index("--output") + 1] if "--output" in words else None
    found: dict[Path, None] = {}
    for word in words:
        if word.startswith("results/") and word != made and not word.endswith("settings.json"):
            found |= dict.fromkeys(logs_of(word, results))
    return list(found)


def _git(root: Path, *args: str) -> str:
    """What git says, or nothing where there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", root, *args], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _processor() -> str:
    """What the kernel calls the processor, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
