"""Columns of what a row's runs have to compute, counted and not measured: see `clipdr.deploy.work`."""

import json
from collections.abc import Mapping
from pathlib import Path

from clipdr.errors import UserError
from clipdr.words import PER_PAIR, TRAINING

LEGEND = (
    f"{PER_PAIR}: 10⁹ multiply-accumulates of the row's model for one image and one text. {TRAINING}: the same of all "
    "of a run's training, of its own steps alone."
)


def with_work(report: Mapping, results: Path) -> dict:
    """The report with `TRAINING` in each of its trained runs, and `work`, column -> row -> value; as it is without any.

    Raises:
        UserError: naming the file, if it is missing, is no JSON, or lacks a row.
    """
    if "work" not in report:
        return {**report, "work": {}}
    path = results / report["work"]
    try:
        counted = json.loads(path.read_text(encoding="utf-8"))
        runs = [
            {**run, TRAINING: run["seen samples"] * counted[run["row"]]["sample_gmacs"]}
            if "seen samples" in run
            else run
            for run in report["runs"]
        ]
        per_pair = {run["row"]: counted[run["row"]]["gmacs"] for run in runs if TRAINING in run}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error!r}); delete it and count again") from None
    training = {run["row"]: run[TRAINING] for run in runs if TRAINING in run}
    return {**report, "runs": runs, "work": {PER_PAIR: per_pair, TRAINING: training}}
