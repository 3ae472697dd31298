"""Kinds of tasks: each is one module here, which a suite names.

| name | is |
|---|---|
| `METRICS` | what it can measure, any of which may be a task's `main_metric` |
| `ENTRY` | JSON schema of the keys that an entry of a suite has of this kind; no such keys if left out |
| `open_task(folder, entry)` | what a task needs beside its images, checked before a model is loaded |
| `score(task, encoder)` | outcomes: named arrays, from which every metric follows without the model |
| `units(outcomes)` | N, how many images (or cases) are drawn anew by a bootstrap |
| `metrics(outcomes, weights_N)` | metric -> value, an image counts as often as its weight says; None: not defined |
| `chance(outcomes)` | metric -> its value for guesses |
| `facts(outcomes)` | numbers that a record has beside its metrics |

Metrics are fractions in [0, 1] under the names of clip_benchmark and DataComp; of `similarity`, cosines in [-1, 1].
METRICS and ENTRY are literals: a workflow reads them without importing numpy. Modules are imported by name, so that an
evaluation depends on the code of its own kinds alone (workflow/rules/evaluate.smk).
"""

import ast
import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

_MAIN = "The metric that stands for the task in averages"


def kind_of(name: str) -> ModuleType:
    """The module of a kind."""
    return importlib.import_module(f"{__name__}.{name}")


def modules_of(tasks: Iterable[Mapping]) -> list[str]:
    """Names of the modules that score tasks, sorted."""
    return sorted({f"{__name__}.{task['kind']}" for task in tasks})


@cache
def schemas() -> dict[str, dict]:
    """Kind -> JSON schema of what an entry of a suite may say beside what all kinds may."""
    return {path.stem: _schema(path) for path in sorted(Path(__file__).parent.glob("[!_]*.py"))}


def _schema(module: Path) -> dict:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    said = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    metrics, entry = (ast.literal_eval(said[name]) if name in said else {} for name in ("METRICS", "ENTRY"))
    return {
        "description": ast.get_docstring(tree).partition("\n")[0].rstrip("."),
        "type": "object",
        "additionalProperties": False,
        "required": ["main_metric", *entry.get("required", [])],
        "properties": {"main_metric": {"description": _MAIN, "enum": metrics}, **entry.get("properties", {})},
    }
