"""Draw the accuracies of a table: rows on the y-axis, and for each column a panel with the reproduced and one with the
published values.

The two panels have their own x-axes, titles and colours, because a miniature and the paper's setting share the order of
the rows, not the level. Columns without any published value are left to the table, unless no column has one. The bytes
of the PNG depend on the records alone (and on the versions of matplotlib and its fonts).
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from clipdr.errors import UserError
from clipdr.report.picture import save
from clipdr.report.scores import read
from clipdr.report.table import is_published, summarise
from clipdr.text import number
from clipdr.words import columns_of, evaluation_columns, has_scores

OURS, PAPER = "#2f6db3", "#b3652f"
COLUMNS_PER_LINE = 2


def draw(report: Mapping, results: Path, output: Path) -> None:
    """Write a PNG of a report, of the form that clipdr.report.table.build takes.

    Raises UserError as clipdr.report.scores.read, and if no row of the experiment is trained.
    """
    experiment, scale_name = report["experiment"], report["scale"]["name"]
    if not has_scores(experiment):
        raise UserError(f"{experiment['title']}: no row has settings, so there is no accuracy of ours to draw")
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    scores = read(experiment, report["scale"], report["runs"], results)
    measured, summary = scores.measured, summarise(experiment, scores)
    published = [column for column in evaluation_columns(experiment) if is_published(experiment, column)]
    columns = [column for column in published or evaluation_columns(experiment) if column in set(measured["column"])]
    titles = [f"reproduced at scale {scale_name}", paper_setting(experiment)][: 2 if published else 1]
    per_line = min(len(columns), COLUMNS_PER_LINE) * len(titles)
    lines = -(-len(columns) * len(titles) // per_line)
    size = (2.2 + 2.6 * per_line, lines * (0.34 * len(experiment["rows"]) + 1.1) + 0.7)
    with sns.axes_style("whitegrid", {"axes.edgecolor": "0.8", "grid.color": "0.92"}), plt.rc_context({"font.size": 9}):
        figure, grid = plt.subplots(lines, per_line, figsize=size, layout="constrained", squeeze=False)
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        title = f"{experiment['title']} ({experiment['source']})"
        figure.suptitle(textwrap.fill(title, int(10 * size[0])), fontsize=12)  # about ten characters to the inch
        figure.supxlabel(
            "dots: seeds; bars: 95 % intervals; the panels have x-axes of their own", fontsize=8, color="0.4"
        )
        panels = [(column, title) for column in columns for title in titles]
        for axis in grid.flat[len(panels) :]:
            axis.set_axis_off()
        for i, (axis, (column, title)) in enumerate(zip(grid.flat, panels, strict=False)):
            cells = summary[summary["column"] == column]
            if title == titles[0]:
                _reproduced(axis, measured[measured["column"] == column], cells)
            else:
                _published(axis, cells)
            _finish(
                axis, list(cells["row"]), f"{column}\n{title}", OURS if title == titles[0] else PAPER, i % per_line == 0
            )
        save(figure, output)


def paper_setting(experiment: Mapping) -> str:
    """`paper (<model>, <dataset>)`, with what all rows of the experiment share."""
    common = columns_of(experiment.get("settings", {}))
    words = [common[name] for name in ("model", "dataset") if name in common]
    return f"paper ({', '.join(words)})" if words else "paper"


def _reproduced(axis, measured, cells) -> None:
    y = {row: i for i, row in enumerate(cells["row"])}
    bars = [cells["mean"] - cells["low"], cells["high"] - cells["mean"]]
    bars = [bar.clip(lower=0) for bar in bars]  # a mean may lie outside the middle of its draws
    axis.errorbar(cells["mean"], range(len(cells)), xerr=bars, fmt="o", color=OURS, ms=6, capsize=3, lw=1.3, zorder=3)
    axis.scatter(measured["value"], measured["row"].map(y) + 0.27, color=OURS, s=9, alpha=0.55, linewidth=0, zorder=3)
    first = cells.dropna(subset="mean").iloc[0]
    axis.set_xlabel(f"%  ({int(first['images'])} images, chance {first['chance']:.1f})", color=OURS)
    _values(axis, cells["mean"], OURS)


def _published(axis, cells) -> None:
    axis.scatter(cells["paper"], range(len(cells)), color=PAPER, marker="D", s=28, zorder=3)
    axis.set_xlabel("%", color=PAPER)
    _values(axis, cells["paper"], PAPER)


def _values(axis, values, color: str) -> None:
    """The numbers themselves, in a column at the right edge of the panel."""
    for y, value in enumerate(values):
        axis.text(1.02, y, number(value), transform=axis.get_yaxis_transform(), va="center", color=color, fontsize=8)


def _finish(axis, rows: list[str], title: str, color: str, with_names: bool) -> None:
    axis.set_title(title, color=color, fontsize=9)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), rows if with_names else [""] * len(rows))
    axis.margins(x=0.12)
    axis.locator_params(axis="x", nbins=5)
