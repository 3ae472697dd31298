"""Score a run on the way: every so many steps, on a small suite.

The weights are written as a model folder and evaluated as a finished run is, so that numbers on the way are those of
the end. A run that was killed does not repeat what it has scored.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from clipdr.evaluate.suite import evaluate_suite
from clipdr.models.folder import save_weights, write_folder

EVALUATIONS = "evaluations"  # folder below that of the model, with a folder of scores for each step


def evaluator(settings: dict, tokenizer: Path | None, tasks: Path, folder: Path) -> Callable[[nn.Module, int], None]:
    """(model, step) -> nothing; scores the model on the settings' `watched` when the step has come."""
    watched, config = settings["watched"], settings["model"]["config"]
    suite = {"tasks": watched["tasks"], "batch_size": watched["batch_size"]}

    def evaluate(model: nn.Module, step: int) -> None:
        output = folder / EVALUATIONS / f"{step:07d}"
        if step % watched["every"] or output.is_dir():
            return
        tf32 = torch.backends.cudnn.allow_tf32  # which an evaluation switches off for the whole process
        with tempfile.TemporaryDirectory() as scratch:
            write_folder(config, tokenizer, Path(scratch))
            save_weights(model, Path(scratch))
            evaluate_suite([Path(scratch)], tasks, suite, output, devices=[settings["training"]["device"]])
        torch.backends.cudnn.allow_tf32 = tf32

    return evaluate
