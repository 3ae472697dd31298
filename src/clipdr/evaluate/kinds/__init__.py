"""Kinds of tasks, one module each, with the same small face.

| function | gives |
|---|---|
| `open_task(folder, entry)` | what a task needs beside its images, checked before a model is loaded |
| `score(task, encoder)` | outcomes: named arrays, from which every metric follows without the model |
| `units(outcomes)` | N, how many images (or cases) are drawn anew by a bootstrap |
| `metrics(outcomes, weights_N)` | metric -> value, an image counts as often as its weight says; None: not defined |
| `chance(outcomes)` | metric -> its value for guesses |
| `facts(outcomes)` | numbers that a record has beside its metrics |

A suite names a kind by its module; what its entries may say stands in workflow/schemas/tasks/<kind>.schema.yaml. To
add a kind is to add these two files, and its name below. Metrics are fractions in [0, 1] under the names of
clip_benchmark and DataComp.
"""

from types import ModuleType

# Imported here, so that a change of any of them is one of the evaluation's code.
from clipdr.evaluate.kinds import choice, classification, grouped, linear_probe, multilabel, retrieval, winogavil

KINDS = (choice, classification, grouped, linear_probe, multilabel, retrieval, winogavil)


def kind_of(name: str) -> ModuleType:
    """The module of a kind."""
    return next(kind for kind in KINDS if kind.__name__.rpartition(".")[2] == name)
