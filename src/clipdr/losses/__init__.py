"""Losses: functions of tensors, free of models, data and training loop; and objectives, which a run names.

An objective is a module here, called as in config (`clip-kd` is `clip_kd.py`), with a schema in
workflow/schemas/objectives. It has

* `teachers_of(settings) -> list[str]`, the teachers whose embeddings it reads; others are not loaded;
* `masked_of(settings) -> float`, the share of patches that is left out of a second look at each image, 0 for none;
* `Objective(settings, width, teacher_widths)`, a torch module whose parameters train with the student and whose
  `forward` takes `clipdr.batch.Embeddings` and gives named parts, scalars in nats. The loop adds them up and knows none
  of them. The widths are those of the student's embeddings and, by name, of the teachers'.

A key of the schema with `text_tower: true` names teachers of which the student has the first one's text tower, frozen:
texts then come as teachers embed them, and the objective sees none of the student's.

Modules are imported by name, so that a run depends on the code of its own objective alone (workflow/rules/train.smk).
"""

import importlib
from types import ModuleType


def module_name(objective: str) -> str:
    """`clip-kd` -> `clipdr.losses.clip_kd`."""
    return f"clipdr.losses.{objective.replace('-', '_')}"


def module_of(settings: dict) -> ModuleType:
    """The module of a run's `objective`."""
    return importlib.import_module(module_name(settings["name"]))
