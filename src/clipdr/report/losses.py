"""Loss curves of a table's runs: a line per row, the mean over its seeds, over the samples that a run has seen."""

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.report.picture import save
from clipdr.train.log import read_log

PER_LEGEND = 12  # rows of one column of the legend


def draw(report: Mapping, results: Path, output: Path) -> None:
    """Write a picture of a report whose `runs` say where their `log` is, below `results`.

    Losses of other objectives and temperatures share no level: what is seen is whether a run came to rest.

    Raises:
        UserError: a log that is missing or has no record.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import seaborn as sns

    losses = read(report["runs"], results)
    rows = list(dict.fromkeys(losses["row"]))
    with sns.axes_style("whitegrid", {"axes.edgecolor": "0.8", "grid.color": "0.92"}), plt.rc_context({"font.size": 9}):
        figure, axis = plt.subplots(figsize=(9, 4), layout="constrained")
        means = losses.groupby(["row", "samples"], sort=False)["loss"].mean()
        for row, color in zip(rows, sns.color_palette("husl", len(rows)), strict=True):
            line = means[row]
            axis.plot(line.index, line.values, color=color, label=textwrap.shorten(row, 40), lw=1.3)
        axis.set(xlabel="samples seen", ylabel="loss (nats)", yscale="log")
        axis.legend(bbox_to_anchor=(1.01, 1), loc="upper left", fontsize=7, ncols=-(-len(rows) // PER_LEGEND))
        title = f"{report['experiment']['title']}: loss, at scale {report['scale']['name']}, means over seeds"
        figure.suptitle(textwrap.fill(title, 90), fontsize=11)
        save(figure, output)


def read(runs: Iterable[Mapping], results: Path) -> pd.DataFrame:
    """`row`, `samples` and `loss` of every record of the runs that were trained."""
    lines = []
    for run in runs:
        if "log" not in run:
            continue
        path = Path(results) / run["log"]
        records = read_log(path)
        if not records:
            raise UserError(f"{path} is missing or has no record; train the run again")
        lines += [{"row": run["row"], "samples": record["samples"], "loss": record["loss"]} for record in records]
    return pd.DataFrame(lines)
