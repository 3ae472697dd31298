"""Whether rows that have more of one column have more of another: Spearman's rank correlation, and its picture.

Its interval is a bootstrap over rows, seeds and test images together: the claim is of the methods that rows stand for,
of which others could have been taken. All columns of a draw are of the same images and seeds.

Shapes: K rows, R draws.
"""

import textwrap
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr

from clipdr.evaluate.intervals import SEED, percentiles
from clipdr.report.picture import save
from clipdr.report.scores import Scores, over_seeds, read
from clipdr.report.verdicts import verdict

RULE = (
    "Spearman's rank correlation of the rows' means; in brackets the middle 95 % of a bootstrap over rows, seeds and "
    "test images. The claim is reproduced when the whole interval is above zero, contradicted when it is below, and "
    "else undecided."
)


@dataclass(frozen=True)
class Correlation:
    """Of two columns, in [-1, 1], with its interval and the number of rows."""

    x: str
    y: str
    value: float
    low: float
    high: float
    rows: int


def correlations(experiment: Mapping, scores: Scores) -> list[Correlation]:
    """One for each column that the experiment's `correlation` names."""
    asked = experiment["correlation"]
    return [_correlation(x, asked["with"], scores) for x in asked["columns"]]


def lines(found: list[Correlation]) -> list[dict[str, str]]:
    """The correlations for a reader."""
    return [
        {
            "columns": f"{one.x}, {one.y}",
            "rank correlation": f"{one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]",
            "rows": str(one.rows),
            "verdict": verdict(one.low, one.high),
        }
        for one in found
    ]


def draw(report: Mapping, results: Path, output: Path) -> None:
    """Write a PNG of a report whose experiment has a `correlation`: a panel per column, a dot per row.

    Raises UserError as clipdr.report.scores.read.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    experiment = report["experiment"]
    scores = read(experiment, report["scale"], report["runs"], results)
    found, means = correlations(experiment, scores), _means(scores)
    with sns.axes_style("whitegrid", {"axes.edgecolor": "0.8", "grid.color": "0.92"}), plt.rc_context({"font.size": 9}):
        figure, axes = plt.subplots(1, len(found), figsize=(5 * len(found), 4.4), layout="constrained", squeeze=False)
        title = f"{experiment['title']}, reproduced at scale {report['scale']['name']}"
        figure.suptitle(textwrap.fill(title, 50 * len(found)), fontsize=12)
        for axis, one in zip(axes[0], found, strict=True):
            points = means[[one.x, one.y]].dropna()
            axis.scatter(points[one.x], points[one.y], color="#2f6db3", s=28, zorder=3)
            for row, (x, y) in points.iterrows():
                axis.annotate(row, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
            axis.set_title(f"rank correlation {one.value:+.2f} [{one.low:+.2f}, {one.high:+.2f}]", fontsize=9)
            axis.set(xlabel=one.x, ylabel=f"{one.y} (%)")
            axis.margins(x=0.18)
        save(figure, output)


def _means(scores: Scores):
    """Row x column -> mean over seeds."""
    return scores.measured.pivot_table(index="row", columns="column", values="value", sort=False)


def _correlation(x: str, y: str, scores: Scores) -> Correlation:
    points = _means(scores)[[x, y]].dropna()
    rows = list(points.index)
    seeds = {row: list(scores.measured[scores.measured["row"] == row]["seed"].unique()) for row in rows}
    drawn = [np.stack([over_seeds(scores.of(row, column, seeds[row])) for row in rows], axis=1) for column in (x, y)]
    chosen_RK = np.random.default_rng([SEED, len(rows)]).integers(len(rows), size=drawn[0].shape)
    pairs = zip(*(np.take_along_axis(column_RK, chosen_RK, axis=1) for column_RK in drawn), strict=True)
    with warnings.catch_warnings(category=ConstantInputWarning, action="ignore"):  # one row alone was drawn: NaN
        draws_R = np.array([spearmanr(*pair).statistic for pair in pairs])
    value = spearmanr(points[x], points[y]).statistic
    return Correlation(x, y, float(value), *percentiles(draws_R), len(rows))
