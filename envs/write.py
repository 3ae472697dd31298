"""Write the conda environments of the rules: `python envs/write.py`, in the locked environment.

An environment has what the code of its rules imports, and all that those packages need on this platform, in the
versions of requirements.lock. Not followed: imports that a `try` expects to fail, and `cli.set_threads`, whose torch is
that of the code that calls it.
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "src"))
from clipdr.fingerprint import closure  # noqa: E402
from clipdr.train import ONLINE, START, TEXT_TOWER, UNPAIRED, WATCHED  # noqa: E402

# Environments that have a lock of their own, and all that stands in it.
OWN = {"download": "requirements-download.lock"}
# Packages that a library imports only when one of its functions is called.
CALLS = {"read_parquet": "pyarrow", "to_parquet": "pyarrow", "to_markdown": "tabulate", "get_tokenizer": "transformers"}


def _all_of(package: str) -> list[str]:
    """Names of the modules in a package."""
    return [f"{package}.{path.stem}" for path in (REPO / "src" / Path(*package.split("."))).glob("[!_]*.py")]


# Functions by which a rule names the modules that a job imports by name, and what they may name.
KINDS = _all_of("clipdr.evaluate.kinds")
OF_RUNS = [ONLINE, START, TEXT_TOWER, UNPAIRED, WATCHED]
BY_NAME = {"modules_of": KINDS, "named_modules": [*_all_of("clipdr.losses"), *OF_RUNS, *KINDS]}


def rules() -> dict[str, dict]:
    """Rule -> its environment or None, the module that it runs, and those whose code it fingerprints, also by name."""
    common = (REPO / "workflow/rules/common.smk").read_text()
    found = {}
    for path in [REPO / "Snakefile", *sorted((REPO / "workflow/rules").glob("*.smk"))]:
        for name, block in re.findall(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL):
            if function := re.search(r"code=(\w+),", block):  # an input function of common.smk
                block += re.search(rf"^def {function[1]}\(.*?(?=^\S|\Z)", common, re.MULTILINE | re.DOTALL)[0]
            env = re.search(r'conda:\s+"(?:../../)?envs/(.+)\.yaml"', block)
            calls = re.findall(r'\bcode\(("[^)]*)\)', block)
            found[name] = {
                "env": env and env[1],
                "command": re.findall(r'(?:python -m|{resources.start}|"\$DOWNLOADER" -m) ([\w.]+)', block),
                "code": [module for call in calls for module in re.findall(r'"(clipdr[\w.]+)"', call)],
                "by_name": [module for call, named in BY_NAME.items() if f"{call}(" in block for module in named],
            }
    return found


def modules_of(rule: dict) -> set[str]:
    """All of clipdr that a rule's job may import, with what a run imports by name."""
    packages = {path.parent.name for path in (REPO / "src/clipdr").glob("*/__main__.py")}
    commands = [f"{name}.__main__" if name.split(".")[-1] in packages else name for name in rule["command"]]
    at_start = {module for command in commands for module in imported_at_once(command)}
    return set(commands).union(fingerprinted(rule), *(closure(module, REPO) for module in at_start))


def imported_at_once(command: str) -> list[str]:
    """Modules of clipdr that a command imports whatever it is asked to do: not those within its functions."""
    tree = ast.parse((REPO / "src" / f"{command.replace('.', '/')}.py").read_text())
    nodes = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "clipdr"]
    return [
        f"clipdr.{alias.name}" if node.module == "clipdr" else node.module for node in nodes for alias in node.names
    ]


def fingerprinted(rule: dict) -> set[str]:
    """All of clipdr whose change makes a rule's jobs again, with what some job imports by name."""
    return set().union(*(closure(module, REPO) for module in [*rule["code"], *rule["by_name"]]))


def direct(modules: Iterable[str]) -> set[str]:
    """Packages that the modules import themselves, or make a library import."""
    of_package, found = packages_distributions(), set()
    for module in modules:
        path = REPO / "src" / Path(*module.split("."))
        tree = ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())
        for node in _followed(tree):
            if isinstance(node, ast.Attribute) and node.attr in CALLS:
                found.add(CALLS[node.attr])
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"clipdr"}:
                found.update(map(canonicalize_name, of_package[name]))
    return found


def _followed(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Try) and "ImportError" in ast.unparse(node.handlers):
        return
    if isinstance(node, ast.FunctionDef) and node.name == "set_threads":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _followed(child)


def needed_by(roots: Iterable[str]) -> set[str]:
    """Canonical names of `roots` (requirements) and of all that they need on this platform, extras included."""
    todo, seen = [Requirement(root) for root in roots], set()
    while todo:
        requirement = todo.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) not in seen:
            seen.add((name, extras))
            needs = map(Requirement, requires(name) or [])
            todo += [n for n in needs if not n.marker or any(n.marker.evaluate({"extra": e}) for e in extras | {""})]
    return {name for name, _ in seen}


def render(env: str) -> str:
    """What the file of an environment should say."""
    users, lock = (
        {name: rule for name, rule in rules().items() if rule["env"] == env},
        OWN.get(env, "requirements.lock"),
    )
    lines = [line for line in (REPO / lock).read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(line.split("==")[0]): line for line in lines}
    names = (
        pins
        if env in OWN
        else needed_by(direct(set().union(*(modules_of(rule) for rule in users.values() if rule["command"]))))
    )
    packages = ["  - pip=25.3", "  - pip:", *(f"      - {pins[name]}" for name in sorted(names))] if names else []
    lines = [
        f"# Pins are those of {lock}; `python envs/write.py` writes them (CONTRIBUTING.md).",
        "channels: [conda-forge, nodefaults]",
        *("dependencies:", "  - python=3.11.*", *packages),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for env in sorted({rule["env"] for rule in rules().values() if rule["env"]}):
        (REPO / f"envs/{env}.yaml").write_text(render(env))
        print(f"envs/{env}.yaml")
