"""The locks, the conda environments and the imports of the code name the same packages in the same versions."""

import importlib.metadata
import importlib.util
import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clipdr.fingerprint import closure
from clipdr.schema import load_yaml

REPO = Path(__file__).parents[2]
ENVS = sorted((REPO / "envs").glob("*.yaml"))
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*")
ADDRESS = re.compile(r"://|\bfile:|@ |\b[\w-]+\.(?:com|org|io|net|dev)\b")
# Targets, and what prints a text.
WITHOUT_PYTHON = {
    *("all", "download_eval", "everything", "file_by_hand", "list", "plan", "rulegraph"),
    *("settings", "task_by_hand", "unknown_experiment"),
}

spec = importlib.util.spec_from_file_location("write", REPO / "envs/write.py")
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)

each_env = pytest.mark.parametrize("env", ENVS, ids=lambda env: env.stem)


def pins(lines: Iterable[str]) -> dict[str, str]:
    """Canonical name -> version. Every line must be an exact pin, and no package may stand twice."""
    lines = list(lines)
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    found = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(found) == len(lines), "a package is pinned twice"
    return found


def lock(name: str) -> dict[str, str]:
    return pins(line for line in (REPO / name).read_text().splitlines() if not line.startswith("#"))


@each_env
def test_an_environment_has_channels_python_pip_and_the_locks_exact_pins(env: Path) -> None:
    content, locked = load_yaml(env), lock(write.OWN.get(env.stem, "requirements.lock"))
    assert content.keys() == {"channels", "dependencies"} and content["channels"] == ["conda-forge", "nodefaults"]
    if env.stem == "shell":
        assert content["dependencies"] == ["python=3.11.*"]
        return
    *conda, pip = content["dependencies"]
    assert conda == ["python=3.11.*", "pip=25.3"] and pip.keys() == {"pip"}
    found = pins(pip["pip"])
    assert found and {name: version for name, version in found.items() if locked.get(name) != version} == {}
    assert ("torch" in found) == (env.stem == "torch"), "light stages need no torch"


@each_env
def test_an_environment_is_as_the_script_writes_it(env: Path) -> None:
    assert env.read_text() == write.render(env.stem), "run `python envs/write.py`"


def test_every_rule_names_an_environment_and_the_code_it_runs() -> None:
    rules = write.rules()
    assert len(rules) >= 20 and {name for name, rule in rules.items() if not rule["command"]} == WITHOUT_PYTHON
    for name in rules.keys() - WITHOUT_PYTHON:
        rule = rules[name]
        assert REPO / f"envs/{rule['env']}.yaml" in ENVS, name
        (command,) = rule["command"]
        assert rule["code"] or name == "download_task"  # whose bytes a lock decides, and not our code
        assert set(rule["code"]) <= set(closure(command, REPO)), (
            f"{name} fingerprints code that its command does not run"
        )


def test_the_lock_is_the_projects_dependencies_and_all_they_need() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    roots = project["dependencies"] + project["optional-dependencies"]["test"]
    locked = lock("requirements.lock")
    assert {canonicalize_name(Requirement(root).name) for root in roots} - locked.keys() == set()
    assert write.needed_by(roots) == locked.keys()


def test_these_tests_run_in_the_locked_versions() -> None:
    locked = lock("requirements.lock")
    assert {name: importlib.metadata.version(name).split("+")[0] for name in locked} == locked, "run `make test`"


def test_the_container_installs_as_everybody_does() -> None:
    said = (REPO / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.11", said, re.MULTILINE) and "RUN make .venv/.installed" in said
    assert "INSTALLED := .venv/.installed" in (REPO / "Makefile").read_text()
    assert 'ENTRYPOINT [".venv/bin/snakemake"]' in said and importlib.metadata.version("snakemake")


def test_the_slurm_lock_differs_from_the_lock_only_in_what_the_plugin_needs() -> None:
    slurm, locked = lock("requirements-slurm.lock"), lock("requirements.lock")
    plugin = "snakemake-executor-plugin-slurm"
    assert {"snakemake", plugin} <= slurm.keys()
    assert {name for name in slurm if locked.get(name) != slurm[name]} == {"numpy", plugin, f"{plugin}-jobstep"}


def test_the_download_lock_has_what_the_code_that_fetches_imports() -> None:
    rules = [rule for rule in write.rules().values() if rule["env"] == "download"]
    closures = set().union(*(closure(module, REPO) for rule in rules for module in rule["code"]))
    assert {"clipdr.pool.images", "clipdr.pool.reinforcements"} <= closures
    assert (write.direct(closures) | {"img2dataset", "huggingface-hub"}) - lock(
        "requirements-download.lock"
    ).keys() == set()


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, but for a package's own appeal for funding."""
    if isinstance(value, dict):
        yield from value
        yield from (text for key, inner in value.items() if key != "funding" for text in texts(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in texts(inner))
    elif isinstance(value, str):
        yield value


def test_no_registry_is_named() -> None:
    files = [*ENVS, *REPO.glob("*.lock"), *(path for path in (REPO / "config/pools").rglob("*") if path.is_file())]
    lines = [(path, line) for path in files if path.suffix != ".json" for line in path.read_text().splitlines()]
    for path in files:
        lines += [(path, text) for text in texts(json.loads(path.read_text()))] if path.suffix == ".json" else []
    assert [(path.name, line) for path, line in lines if ADDRESS.search(line) or line == "resolved"] == []
