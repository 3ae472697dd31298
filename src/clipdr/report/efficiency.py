"""Learning efficiency: how much sooner one series of a learning curve gets where the other ends.

How many times less one series needs than the other for the same accuracy is read off the curves: between two points a
curve is straight over the logarithm of x. Where the better series starts above an accuracy, it needs at most its first
x, and the factor is a lower bound. There is none for an accuracy that it never reaches, nor where its first x is not
the smaller one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from clipdr.text import MISSING, number
from clipdr.words import evaluation_columns

Points = list[tuple[float, float]]  # (x, accuracy in percent), by rising x


@dataclass(frozen=True)
class Factor:
    """How many times less x one series needs for the accuracy that the other has at `x`."""

    accuracy: float
    x: float
    times: float | None
    at_least: bool

    def __str__(self) -> str:
        return MISSING if self.times is None else f"{'≥ ' if self.at_least else ''}{self.times:.1f}×"


def efficiency(better: Points, other: Points) -> Factor:
    """The factor at the best accuracy of `other`."""
    x, accuracy = max(other, key=lambda point: point[1])
    if better[0][1] >= accuracy:
        bound = x / better[0][0]
        return Factor(accuracy, x, bound if bound > 1 else None, True)
    for (x0, y0), (x1, y1) in zip(better, better[1:], strict=False):
        if y0 < accuracy <= y1:
            share = (accuracy - y0) / (y1 - y0)
            reached = math.exp(math.log(x0) + share * (math.log(x1) - math.log(x0)))
            return Factor(accuracy, x, x / reached, False)
    return Factor(accuracy, x, None, False)


def curves(report: Mapping, summary: pd.DataFrame, column: str) -> dict[str, tuple[Points, Points]]:
    """Series -> (our points, published points) of a column; empty where there are none."""
    experiment, quantity = report["experiment"], report["experiment"]["curve"]["quantity"]
    ours = {run["row"]: run[quantity] for run in report["runs"]}
    cells = summary[summary["column"] == column].set_index("row")
    found: dict[str, tuple[Points, Points]] = {name: ([], []) for name in experiment["curve"]["series"]}
    for row in experiment["rows"]:
        if "point" not in row:
            continue
        mine, paper = found[row["point"]["series"]]
        if row["name"] in ours:
            mine.append((ours[row["name"]], cells.loc[row["name"], "mean"]))
        if "x" in row["point"] and not pd.isna(cells.loc[row["name"], "paper"]):
            paper.append((row["point"]["x"], cells.loc[row["name"], "paper"]))
    return {name: (sorted(mine), sorted(paper)) for name, (mine, paper) in found.items()}


def efficiency_lines(report: Mapping, summary: pd.DataFrame) -> list[dict[str, str]]:
    """One line per column of accuracy: the factor here and the paper's, at the best accuracy of the other series."""
    better, other, *_ = report["experiment"]["curve"]["series"]
    lines = []
    for column in evaluation_columns(report["experiment"]):
        of = curves(report, summary, column)
        line = {"column": column}
        for which, heading in enumerate((f"scale {report['scale']['name']}", "paper")):
            sides = of[better][which], of[other][which]
            factor = efficiency(*sides) if all(sides) else None
            line[f"best of {other} ({heading})"] = number(factor.accuracy) if factor else MISSING
            line[f"{better} needs less by ({heading})"] = str(factor) if factor else MISSING
        lines.append(line)
    return lines
