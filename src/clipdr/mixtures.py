"""What a mixture of experts may say, and a model's configuration with one; the layer itself is `clipdr.models.moe`.

Settings have the keys of workflow/schemas/mixture.schema.yaml. `KEY` of a tower's configuration holds those of its
structure, and a run keeps the weights of the losses.
"""

import copy
from collections.abc import Mapping

from clipdr.errors import UserError

KEY = "moe"
TOWERS = {"image": "vision_cfg", "text": "text_cfg"}
STRUCTURE = ("experts", "top_k", "capacity", "renormalise", "priority", "first", "every")
LOSSES = ("balance", "z", "entropy")


def with_mixture(config: Mapping, mixture: Mapping) -> dict:
    """`{"model_cfg": …, "preprocess_cfg": …}` with mixtures in the towers that `mixture` names."""
    config = copy.deepcopy(dict(config))
    for tower in mixture["towers"]:
        config["model_cfg"][TOWERS[tower]][KEY] = {key: mixture[key] for key in STRUCTURE}
    return config


def dense(model_cfg: Mapping) -> dict:
    """A model's configuration without mixtures; of a dense one, itself."""
    model_cfg = copy.deepcopy(dict(model_cfg))
    for tower in TOWERS.values():
        model_cfg[tower].pop(KEY, None)
    return model_cfg


def check_mixture(settings: Mapping, where: str) -> None:
    """Raises UserError for settings that make no sense together, calling them `where`."""
    if settings["experts"] < 2:
        raise UserError(f"{where}.experts is {settings['experts']}; one expert is the dense MLP: write at least 2")
    if not 1 <= settings["top_k"] <= settings["experts"]:
        raise UserError(
            f"{where}.top_k is {settings['top_k']}; it must be between 1 and experts ({settings['experts']})"
        )
    if settings["top_k"] == 1 and settings["renormalise"]:
        raise UserError(
            f"{where}: with top_k 1 renormalised gates are all 1, and the router learns nothing; set one of them"
        )
    if settings["first"] < 1:
        raise UserError(f"{where}.first is {settings['first']}; the first block (0) stays dense: write at least 1")
    if settings["capacity"] <= 0:
        raise UserError(f"{where}.capacity is {settings['capacity']}, which drops every token; write a number above 0")
