"""The lock, the conda environments and the imports of the code name the same packages in the same versions.

Run as a program it rewrites envs/ from requirements.lock and the imports: `python tests/workflow/test_envs.py`.
"""

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from clipdr.fingerprint import closure as modules_of

REPO = Path(__file__).parents[2]
ENVS = sorted((REPO / "envs").glob("*.yaml"))
CHANNELS = ["conda-forge", "nodefaults"]
CONDA = ["python=3.11.*", "pip=25.3"]
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.]*")
ADDRESS = re.compile(r"://|\bfile:|@ |\b[\w-]+\.(?:com|org|io|net|dev)\b")
# Packages that a library imports only when one of its functions is called.
CALLS = {"read_parquet": "pyarrow", "to_parquet": "pyarrow", "to_markdown": "tabulate", "get_tokenizer": "transformers"}


def pins(lines: Iterable[str]) -> dict[str, str]:
    """Canonical name -> version. Every line must be an exact pin, and no package may stand twice."""
    lines = list(lines)
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    found = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(found) == len(lines), "a package is pinned twice"
    return found


def lock(name: str) -> dict[str, str]:
    lines = (REPO / name).read_text().splitlines()
    return pins(line for line in lines if not line.startswith("#"))


def env_pins(path: Path) -> dict[str, str]:
    return pins(yaml.safe_load(path.read_text())["dependencies"][-1]["pip"])


def installed(name: str) -> importlib.metadata.Distribution:
    return importlib.metadata.distribution(name)


def needed_by(roots: Iterable[str]) -> set[str]:
    """Canonical names of `roots` (requirements) and of all that they need on this platform, extras included."""
    todo, seen = [Requirement(root) for root in roots], set()
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        for line in installed(name).requires or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras | {""}):
                todo.append(need)
    return {name for name, _ in seen}


def rules() -> dict[str, dict]:
    """Rule -> its environment's file, the module it runs and the one it fingerprints."""
    found = {}
    for path in sorted((REPO / "workflow/rules").glob("*.smk")):
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            conda = re.search(r'^    conda:\s+"(.+)"', block, re.MULTILINE)
            found[block.split(":")[0]] = {
                "env": (path.parent / conda[1]).resolve() if conda else None,
                "command": re.findall(r"python -m ([\w.]+)", block),
                "code": re.findall(r'\bcode\("([\w.]+)"\)', block),
            }
    return found


def trees(modules: Iterable[str]) -> dict[str, ast.Module]:
    """Name -> syntax tree of everything of clipdr that the modules may import.

    cli.set_threads is left out where nothing calls it: it imports torch, and light stages have none.
    """
    names = sorted({name for module in modules for name in modules_of(module, REPO)})
    found = {}
    for name in names:
        path = REPO / "src" / Path(*name.split("."))
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        found[name] = ast.parse(file.read_text())
    if not any("set_threads" in attributes(tree) for tree in found.values()):
        body = found["clipdr.cli"].body
        body[:] = [node for node in body if getattr(node, "name", "") != "set_threads"]
    return found


def attributes(tree: ast.Module) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def imports(tree: ast.Module) -> Iterator[str]:
    """Top-level names of the third-party packages that a module imports anywhere."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        yield from ({name.split(".")[0] for name in names} - sys.stdlib_module_names - {"clipdr"})


@cache
def distributions() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def direct(modules: Iterable[str]) -> set[str]:
    """Distributions that the modules import themselves, or make a library import."""
    found = set()
    for tree in trees(modules).values():
        found |= {CALLS[name] for name in attributes(tree) & CALLS.keys()}
        found |= {canonicalize_name(name) for package in imports(tree) for name in distributions()[package]}
    return found


def modules_in(env: Path) -> list[str]:
    return sorted({module for rule in rules().values() if rule["env"] == env for module in rule["command"]})


def render(env: Path) -> str:
    """What the environment's file should say."""
    users = ", ".join(name for name, rule in rules().items() if rule["env"] == env)
    locked = {canonicalize_name(line.split("==")[0]): line for line in lock_lines()}
    lines = [
        f"# For the rules {users}.",
        "# Pins are those of requirements.lock; `python tests/workflow/test_envs.py` rewrites them (CONTRIBUTING.md).",
        f"channels: [{', '.join(CHANNELS)}]",
        "dependencies:",
        *(f"  - {entry}" for entry in CONDA),
        "  - pip:",
        *(f"      - {locked[name]}" for name in sorted(needed_by(direct(modules_in(env))))),
    ]
    return "\n".join(lines) + "\n"


def lock_lines() -> list[str]:
    return [line for line in (REPO / "requirements.lock").read_text().splitlines() if not line.startswith("#")]


each_env = pytest.mark.parametrize("env", ENVS, ids=lambda env: env.stem)


@each_env
def test_an_environment_has_channels_python_pip_and_exact_pins(env: Path) -> None:
    content = yaml.safe_load(env.read_text())
    assert content.keys() == {"channels", "dependencies"}
    assert content["channels"] == CHANNELS
    assert content["dependencies"][:-1] == CONDA
    assert content["dependencies"][-1].keys() == {"pip"}
    assert env_pins(env)


@each_env
def test_an_environments_versions_are_the_locks(env: Path) -> None:
    locked = lock("requirements.lock")
    assert {name: version for name, version in env_pins(env).items() if locked.get(name) != version} == {}


@each_env
def test_an_environment_has_what_its_packages_need(env: Path) -> None:
    names = env_pins(env).keys()
    assert needed_by(names) - names == set()


@each_env
def test_an_environment_has_what_its_rules_import(env: Path) -> None:
    assert modules_in(env), "no rule uses this environment"
    assert direct(modules_in(env)) - env_pins(env).keys() == set()


@each_env
def test_an_environment_is_as_this_program_writes_it(env: Path) -> None:
    assert env.read_text() == render(env), "run `python tests/workflow/test_envs.py`"


def test_every_rule_names_an_environment_and_the_code_it_runs() -> None:
    assert len(rules()) >= 10
    assert {name for name, rule in rules().items() if rule["env"] not in ENVS} == set()
    for name, rule in rules().items():
        (command,), (code,) = rule["command"], rule["code"]
        assert code in modules_of(command, REPO), f"{name} fingerprints code that its command does not run"


def test_light_stages_need_no_torch_and_the_others_do() -> None:
    assert {env.stem for env in ENVS if "torch" in env_pins(env)} == {"torch"}


def test_the_lock_is_the_projects_dependencies_and_all_they_need() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    roots = project["dependencies"] + project["optional-dependencies"]["test"]
    locked = lock("requirements.lock")
    assert {canonicalize_name(Requirement(root).name) for root in roots} - locked.keys() == set()
    assert needed_by(roots) == locked.keys()


def test_these_tests_run_in_the_locked_versions() -> None:
    locked = lock("requirements.lock")
    assert {name: installed(name).version.split("+")[0] for name in locked} == locked, "run `make test`"


def test_the_slurm_lock_differs_from_the_lock_only_in_what_the_plugin_needs() -> None:
    slurm, locked = lock("requirements-slurm.lock"), lock("requirements.lock")
    assert {"snakemake", "snakemake-executor-plugin-slurm"} <= slurm.keys()
    assert {name for name in slurm if locked.get(name) != slurm[name]} == {
        "numpy",
        "snakemake-executor-plugin-slurm",
        "snakemake-executor-plugin-slurm-jobstep",
    }


def texts(value: object) -> Iterator[str]:
    """Every text in a JSON value, but for a package's own appeal for funding."""
    if isinstance(value, dict):
        yield from (key for key in value)
        yield from (text for key, inner in value.items() if key != "funding" for text in texts(inner))
    elif isinstance(value, list):
        yield from (text for inner in value for text in texts(inner))
    elif isinstance(value, str):
        yield value


def test_no_registry_is_named() -> None:
    lines = [(path, line) for path in [*ENVS, *REPO.glob("*.lock")] for line in path.read_text().splitlines()]
    for path in (REPO / "config/pools").rglob("*"):
        if path.suffix == ".json":
            lines += [(path, text) for text in texts(json.loads(path.read_text()))]
        elif path.is_file():
            lines += [(path, line) for line in path.read_text().splitlines()]
    assert [(path.name, line) for path, line in lines if ADDRESS.search(line) or line == "resolved"] == []


def main() -> None:
    for env in {rule["env"] for rule in rules().values() if rule["env"]}:
        env.write_text(render(env))
        print(env.relative_to(REPO))


if __name__ == "__main__":
    main()
