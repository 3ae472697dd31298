"""Draw learning curves: accuracy over what grows (samples seen, or the size of the dataset), ours beside published."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from clipdr.report.efficiency import curves
from clipdr.report.picture import save
from clipdr.report.scores import read
from clipdr.report.table import summarise
from clipdr.report.work import with_work
from clipdr.words import evaluation_columns

COLORS = ("#2f6db3", "#b3652f", "#4d8f4d", "#8a5aa8")


def draw(report: Mapping, results: Path, output: Path) -> None:
    """Write a PNG of a report whose experiment has a `curve`: a line of panels per column, ours left, published right.

    Raises UserError as clipdr.report.scores.read.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    report = with_work(report, results)
    experiment, curve = report["experiment"], report["experiment"]["curve"]
    unit = f" ({curve['unit']})" if "unit" in curve else ""
    scores = read(experiment, report["scale"], report["runs"], results)
    measured, summary = scores.measured, summarise(experiment, scores)
    columns = evaluation_columns(experiment)
    x_of = {run["row"]: run[curve["quantity"]] for run in report["runs"]}
    with sns.axes_style("whitegrid", {"axes.edgecolor": "0.8", "grid.color": "0.92"}), plt.rc_context({"font.size": 9}):
        figure, grid = plt.subplots(
            len(columns), 2, figsize=(9, 3.2 * len(columns) + 0.8), layout="constrained", squeeze=False
        )
        title = f"{experiment['title']} ({experiment['source']})"
        figure.suptitle(textwrap.fill(title, 90), fontsize=12)
        for (ours, paper), column in zip(grid, columns, strict=True):
            for color, (name, sides) in zip(COLORS, curves(report, summary, column).items(), strict=False):
                for axis, points in ((ours, sides[0]), (paper, sides[1])):
                    axis.plot([x for x, _ in points], [y for _, y in points], "o-", color=color, label=name, ms=4)
                rows = [row["name"] for row in experiment["rows"] if row.get("point", {}).get("series") == name]
                seeds = measured[(measured["column"] == column) & measured["row"].isin(rows)]
                ours.scatter(seeds["row"].map(x_of), seeds["value"], color=color, s=9, alpha=0.5, linewidth=0)
            ours.set(title=f"{column}, reproduced at scale {report['scale']['name']}", xlabel=curve["quantity"])
            paper.set(title=f"{column}, published", xlabel=f"{curve['quantity']}{unit}")
            for axis in (ours, paper):
                axis.set_xscale("log")
                axis.set_ylabel("%")
            ours.legend()
            if not any(len(line.get_xdata()) for line in paper.get_lines()):
                paper.set_axis_off()  # the source has no values of this column
                paper.set_title("")
        save(figure, output)
