"""Whether claims of a paper hold here: differences of two rows, with the interval that decides.

A difference is taken within each seed and for the same draws of the test images, and the mean over seeds is drawn anew
with them (`clipdr.report.scores`).
"""

from collections.abc import Mapping

import pandas as pd

from clipdr.evaluate.intervals import percentiles
from clipdr.report.networks import ALIKE
from clipdr.report.scores import Scores, over_seeds
from clipdr.text import between, number
from clipdr.words import NETWORK_COLUMNS, published_of

REPRODUCED, CONTRADICTED, UNDECIDED = "reproduced", "contradicted", "undecided"
RULE = (
    "A difference is taken within each seed and on the same test images, then averaged; in brackets the middle 95 % of "
    "a bootstrap over test images and seeds. A claim is reproduced when the whole interval is above zero, contradicted "
    "when it is below, and else undecided; so is one of runs of a single seed. Where the paper finds two rows alike, "
    "nothing is judged. Intervals are of one comparison each: of many, one in twenty lies aside by chance."
)


ONE_SEED = f"{UNDECIDED} (one seed)"


def verdict(low: float, high: float) -> str:
    """What an interval says of the claim that the difference is above zero."""
    return REPRODUCED if low > 0 else CONTRADICTED if high < 0 else UNDECIDED


def compare(experiment: Mapping, scores: Scores) -> pd.DataFrame:
    """One line per comparison in an evaluation column.

    Its fields are claim, column, better, than, mean, low, high, seeds, paper and verdict.
    `mean` is that of the per-seed differences; `paper` is the published difference, of the two cells or where there are
    none by itself, NaN if not published.
    """
    published, lines = published_of(experiment), []
    trained = {row["name"] for row in experiment["rows"] if "settings" in row}
    for comparison in experiment.get("comparisons") or []:
        better, than, column = comparison["better"], comparison["than"], comparison["column"]
        if column in NETWORK_COLUMNS:
            continue
        measured = scores.measured[scores.measured["column"] == column]
        if not {better, than} <= set(measured["row"]):
            continue  # a task of the column was not there
        values = measured.pivot(index="seed", columns="row", values="value")[[better, than]].dropna()
        seeds = list(values.index)
        low, high = percentiles(over_seeds(scores.of(better, column, seeds) - scores.of(than, column, seeds)))
        paper = [published[row].get(column) for row in (better, than)]
        line = {"claim": comparison["claim"], "column": column, "better": better, "than": than}
        line |= {"mean": (values[better] - values[than]).mean(), "low": low, "high": high, "seeds": len(seeds)}
        line |= {"paper": comparison.get("difference") if None in paper else paper[0] - paper[1]}
        judged = ONE_SEED if len(seeds) == 1 and {better, than} & trained else verdict(low, high)
        lines.append({**line, "verdict": ALIKE if comparison.get("similar") else judged})
    return pd.DataFrame(lines).astype({"paper": float} if lines else {})


def verdict_lines(compared: pd.DataFrame, scale_name: str) -> list[dict[str, str]]:
    """The comparisons for a reader."""
    return [
        {
            "claim": line["claim"],
            "rows": f"“{line['better']}” − “{line['than']}”",
            "column": line["column"],
            f"difference (scale {scale_name})": between(line["mean"], line["low"], line["high"], "+"),
            "difference (paper)": number(line["paper"], sign="+"),
            "verdict": line["verdict"],
        }
        for _, line in compared.iterrows()
    ]
