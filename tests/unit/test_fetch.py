"""Fetching locked packages: what is kept, and one line for each way in which npm can fail."""

import json
import re
from pathlib import Path

import pytest

from clipdr.errors import UserError
from clipdr.pool.fetch import explain, fetch

HASH = "sha512-" + "A" * 86 + "=="


def _write(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture()
def lock(tmp_path):
    """A lock of the smallest package of the emoji pool, with a hash that it does not have."""
    name, folder = "@iconify/types", tmp_path / "packages"
    packages = {"": {"dependencies": {name: "2.0.0"}}}
    packages[f"node_modules/{name}"] = {"version": "2.0.0", "integrity": HASH, "license": "MIT"}
    _write(folder / "package-lock.json", {"lockfileVersion": 3, "requires": True, "packages": packages})
    _write(folder / "package.json", {"private": True, "dependencies": {name: "2.0.0"}})
    return folder / "package-lock.json"


LOG = "npm error A complete log of this run can be found in: /tmp/x/cache/_logs/debug-0.log\n"
OUTPUTS = {  # as npm 11 prints them
    "integrity": (
        f"npm error code EINTEGRITY\nnpm error Integrity checksum failed when using sha512: wanted {HASH} but got "
        f"sha512-+wluvCrRhXr==.\n{LOG}",
        "^@iconify/types: .* the hash in .*package-lock.json; .*restore the lock from git",
    ),
    "integrity of an unknown package": (
        f"npm error code EINTEGRITY\nnpm error sha512-x integrity checksum failed: wanted sha512-x but got y.\n{LOG}",
        "^a package: .* the hash in .*package-lock.json",
    ),
    "no name server": (
        "npm error code ENOTFOUND\nnpm error syscall getaddrinfo\nnpm error errno ENOTFOUND\nnpm error network request "
        "to https://registry.example/npm/@iconify%2ftypes failed, reason: getaddrinfo ENOTFOUND registry.example\n"
        f"npm error network This is a problem related to network connectivity.\n{LOG}",
        r"^@iconify/types could not be fetched \(ENOTFOUND\): no network; connect",
    ),
    "refused": (
        "npm error code ECONNREFUSED\nnpm error syscall connect\nnpm error FetchError: request to "
        "http://127.0.0.1:9/emojibase-data failed, reason: connect ECONNREFUSED 127.0.0.1:9\n"
        f"npm error     at ClientRequest.<anonymous> (/x/node_modules/@npmcli/agent/index.js:130:14)\n{LOG}",
        r"^emojibase-data could not be fetched \(ECONNREFUSED\): no network",
    ),
    "time out of a tarball": (
        "npm ERR! code ETIMEDOUT\nnpm ERR! network request to https://registry.example/@iconify-json/noto/-/"
        f"noto-1.2.9.tgz failed, reason: connect ETIMEDOUT\n{LOG}",
        r"^@iconify-json/noto could not be fetched \(ETIMEDOUT\): no network",
    ),
    "no such version": (
        "npm error code ETARGET\nnpm error notarget No matching version found for @iconify/types@9.9.9.\n"
        f"npm error notarget In most cases you or one of your dependencies are requesting\n{LOG}",
        r"^npm ci failed on .*package-lock.json \(ETARGET\): .*No matching version found for @iconify/types@9.9.9",
    ),
    "lock out of step": (
        "npm error code EUSAGE\nnpm error\nnpm error `npm ci` can only install packages when your package.json and "
        f"package-lock.json are in sync.\nnpm error\nnpm error Usage:\nnpm error npm ci\n{LOG}",
        r"\(EUSAGE\): `npm ci` can only install packages when .* in sync",
    ),
    "nothing": ("", r"npm ci failed on .*package-lock.json \(unknown\)"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_what_npm_said_is_explained_in_one_line(case, lock):
    output, expected = OUTPUTS[case]
    explained = explain(output, lock)
    assert re.search(expected, explained) and "\n" not in explained and "_logs" not in explained


@pytest.mark.parametrize("name", ["package.json", "package-lock.json"])
def test_fetch_without_a_lock(lock, tmp_path, name):
    (lock.parent / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing; point `pool.packages`"):
        fetch(lock.parent, tmp_path / "sources")
    assert not (tmp_path / "sources").exists()


def test_fetch_keeps_only_what_the_pool_reads(lock, tmp_path, monkeypatch):
    def install(folder: Path, _lock: Path) -> None:
        for name in ("package.json", "icons.json", "info.json", "index.js", "metadata.json"):
            _write(folder / "node_modules/@iconify/types" / name, {})

    monkeypatch.setattr("clipdr.pool.fetch._npm_ci", install)
    fetch(lock.parent, tmp_path / "sources")
    kept = {str(path.relative_to(tmp_path / "sources")) for path in (tmp_path / "sources").rglob("*.*")}
    assert kept == {f"@iconify/types/{name}" for name in ("package.json", "icons.json", "info.json")}


@pytest.mark.slow
def test_fetch_without_a_network(lock, tmp_path, monkeypatch):
    """Port 9 of this machine stands for a registry that cannot be reached."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setenv("npm_config_fetch_retry_mintimeout", "10")
    monkeypatch.setenv("npm_config_fetch_retry_maxtimeout", "20")
    with pytest.raises(UserError, match="^@iconify/types could not be fetched .*no network"):
        fetch(lock.parent, tmp_path / "sources")
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]


@pytest.mark.slow
def test_fetch_of_a_package_whose_hash_is_not_the_locks(lock, tmp_path):
    """Needs the network."""
    with pytest.raises(UserError, match="^@iconify/types: .* does not have the hash in .*package-lock.json"):
        fetch(lock.parent, tmp_path / "sources")
    assert [path.name for path in tmp_path.iterdir()] == ["packages"]
    assert {path.name for path in lock.parent.iterdir()} == {"package.json", "package-lock.json"}
