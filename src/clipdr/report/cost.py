"""A table of what an epoch costs: the time of a training step here, beside the hours that the paper published.

Decided here:
* A time is the median over the rounds in which the runs took turns. How many times the first row it is, is taken within
  each round; the median stands in the table, with the lowest and the highest.
* A claim holds when it does in every round.
* Two machines share no level: what is compared with the paper is how many times the first row an epoch takes.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pandas as pd

from clipdr.errors import UserError
from clipdr.files import atomic_file
from clipdr.report.networks import ALIKE
from clipdr.report.table import row_settings
from clipdr.text import MISSING, booktabs, markdown_table, number
from clipdr.words import COST

Costs = dict[str, dict]  # row -> batch_size, and seconds and waited, of a step, per round


def build(report: Mapping, results: Path, output: Path) -> None:
    """Write `output`.csv, .md and .tex.

    `report` is the settings.json of a table: `experiment`, `scale`, `runs` with the `dataset size` of each row, and the
    path of `costs` below `results`.

    Raises:
        UserError: the file of costs is missing, is not what `clipdr.train.timing` writes, or lacks a row.
    """
    path = Path(results) / report["costs"]
    measured, costs = read_costs(path, [row["name"] for row in report["experiment"]["rows"]])
    lines = summarise(report, costs)
    texts = {
        ".csv": csv(lines),
        ".md": markdown(report, measured, costs, lines),
        ".tex": latex(report, lines),
    }
    for suffix, text in texts.items():
        with atomic_file(output.with_name(output.name + suffix)) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def read_costs(path: Path, rows: list[str]) -> tuple[dict, Costs]:
    """On what was measured, and the costs of each row. Raises UserError naming the file for what is not there."""
    again = "delete it and measure again"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        costs = {run["row"]: run for run in found["runs"]}
        measured = {key: found[key] for key in ("device", "threads", "torch", "steps")}
        rounds = {len(costs[row][key]) for row in costs for key in ("seconds", "waited")}
    except FileNotFoundError:
        raise UserError(f"{path}: missing; measure the costs first") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read as costs ({error!r}); {again}") from None
    if missing := [row for row in rows if row not in costs]:
        raise UserError(f"{path}: has no row {missing[0]!r}; {again}")
    if len(rounds) != 1 or not all(value > 0 for row in rows for value in costs[row]["seconds"]):
        raise UserError(f"{path}: its rows have no equal numbers of positive times; {again}")
    return measured, costs


def ratios(costs: Costs, row: str, of: str) -> list[float]:
    """How many times a step of `of` one of `row` takes, round by round."""
    return [mine / other for mine, other in zip(costs[row]["seconds"], costs[of]["seconds"], strict=True)]


def summarise(report: Mapping, costs: Costs) -> list[dict]:
    """One line per row: its settings, times in seconds, times the first row, and the same of the paper."""
    rows, sizes = report["experiment"]["rows"], {run["row"]: run["dataset size"] for run in report["runs"]}
    first, lines = rows[0], []
    for row in rows:
        name, cost = row["name"], costs[row["name"]]
        seconds, times = median(cost["seconds"]), ratios(costs, name, first["name"])
        line = {"row": name, **row_settings(report["experiment"], row), "seconds per step": seconds}
        line["waiting for data"] = median(cost["waited"])
        line["seconds per epoch"] = seconds * sizes[name] / cost["batch_size"]
        line |= {"times the first": median(times), "lowest": min(times), "highest": max(times)}
        line |= {"paper hours": _hours(row), "paper times": _times(row, first)}
        lines.append(line)
    return lines


def csv(lines: list[dict]) -> str:
    return pd.DataFrame(lines).to_csv(index=False, float_format="%.4f", lineterminator="\n")


def markdown(report: Mapping, measured: Mapping, costs: Costs, lines: list[dict]) -> str:
    """The table for a reader: what was timed and on what, ours beside published, the comparisons."""
    experiment, scale = report["experiment"], report["scale"]
    rounds = len(next(iter(costs.values()))["seconds"])
    parts = [
        f"# {experiment['title']}",
        " ".join(
            f"{text.rstrip('.')}." for text in (f"Source: {experiment['source']}", experiment.get("note")) if text
        ),
        f"> **NOT THE PAPER'S SETTING: times at scale `{scale['name']}` ({scale['title']}) on this machine.** Compare "
        "how many times the first row an epoch takes, never seconds with hours.",
        markdown_table(_reader_lines(experiment, lines, scale["name"])),
        f"Measured on {measured['device']}, {measured['threads']} thread(s), torch {measured['torch']}: {rounds} "
        f"rounds of {measured['steps']} steps of each row, in turns; medians, with the lowest and the highest of the "
        "rounds. A step is timed with all that it waits for. Waiting is the time until its batch is there, with the "
        "captions and embeddings that are made online.",
    ]
    if comparisons := _comparison_lines(experiment, costs, scale["name"]):
        parts += ["## Comparisons", markdown_table(comparisons)]
        parts.append(
            "A direction holds when it does in every round. Where the paper finds two rows alike, none is judged."
        )
    return "\n\n".join(parts) + "\n"


def latex(report: Mapping, lines: list[dict]) -> str:
    """A booktabs tabular, to be put into a table environment."""
    experiment = report["experiment"]
    readable = _reader_lines(experiment, lines, report["scale"]["name"])
    numbers = len(readable[0]) - len(row_settings(experiment, experiment["rows"][0])) - 1
    comments = [
        f"% {experiment['title']} ({experiment['source']}), timed at scale {report['scale']['name']}:",
        "% not the paper's setting, comparable in ratios alone. Needs \\usepackage{booktabs}.",
    ]
    return booktabs(comments, "l" * (len(readable[0]) - numbers) + "r" * numbers, readable)


def _reader_lines(experiment: Mapping, lines: list[dict], scale: str) -> list[dict[str, str]]:
    readable = []
    for row, line in zip(experiment["rows"], lines, strict=True):
        settings = row_settings(experiment, row)
        shown = {"row": row["name"]} | {"λ" if key == "lambda" else key: value for key, value in settings.items()}
        shown[f"ms per step (scale {scale})"] = number(1e3 * line["seconds per step"])
        shown["of it waiting (ms)"] = number(1e3 * line["waiting for data"])
        shown["s per epoch"] = number(line["seconds per epoch"])
        shown[f"times the first (scale {scale})"] = _interval(line["times the first"], line["lowest"], line["highest"])
        shown["hours per epoch (paper)"] = number(line["paper hours"])
        shown["times the first (paper)"] = number(line["paper times"], 2)
        readable.append(shown)
    return readable


def _comparison_lines(experiment: Mapping, costs: Costs, scale: str) -> list[dict[str, str]]:
    rows, lines = {row["name"]: row for row in experiment["rows"]}, []
    for claim in experiment.get("comparisons", []):
        better, than = claim["better"], claim["than"]
        times = ratios(costs, than, better)
        favour = sum(value > 1 for value in times)
        verdict = f"{'holds' if favour == len(times) else 'does not hold'} ({favour} of {len(times)} rounds)"
        lines.append(
            {
                "claim": claim["claim"],
                "rows": f"“{than}” / “{better}”",
                f"times (scale {scale})": _interval(median(times), min(times), max(times)),
                "times (paper)": number(_times(rows[than], rows[better]), 2),
                "direction": ALIKE if claim.get("similar", False) else verdict,
            }
        )
    return lines


def _interval(middle: float, low: float, high: float) -> str:
    return f"{number(middle, 2)} [{number(low, 2)}{MISSING}{number(high, 2)}]"


def _hours(row: Mapping) -> float | None:
    return row.get("published", {}).get(COST)


def _times(row: Mapping, first: Mapping) -> float | None:
    mine, other = _hours(row), _hours(first)
    return mine / other if mine is not None and other else None
