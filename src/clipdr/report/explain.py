"""The path from a cell of a table to all that it rests on: scores, runs, data, code, machines, and how to rebuild it.

Everything is read from the folder of results, which may have been moved: the table's settings name its scores, and each
job's log says what the job was given (`clipdr.provenance`). A value is computed as for the table.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from clipdr.errors import UserError, look_up
from clipdr.evaluate.intervals import percentiles
from clipdr.provenance import logs_of, made_from, read
from clipdr.report.scores import over_seeds
from clipdr.report.scores import read as read_scores
from clipdr.text import between
from clipdr.words import evaluation_columns


def explain(report: Mapping, row: str, column: str, results: Path) -> str:
    """A cell in words, for a terminal.

    Args:
        report: settings.json of a table.
        row, column: of the cell; the column is one of accuracy.
        results: folder of all results.

    Raises:
        UserError: no such row or column, a row that was not scored here, or logs that are not there.
    """
    experiment, scale = report["experiment"], report["scale"]
    look_up("row", row, {one["name"]: one for one in experiment["rows"]}, "this table")
    look_up("column", column, dict.fromkeys(evaluation_columns(experiment)), "this table")
    runs = [run for run in report["runs"] if run["row"] == row and "scores" in run]
    if not runs:
        raise UserError(f"row {row!r} has published values alone; name a row that was scored here")
    scores = read_scores(experiment, scale, report["runs"], results)
    cell = scores.measured[(scores.measured["row"] == row) & (scores.measured["column"] == column)]
    low, high = percentiles(over_seeds(scores.of(row, column, list(cell["seed"]))))
    lines = [
        f"{experiment['title']}, row {row!r}, column {column}, at scale {scale['name']}",
        f"  {between(cell['value'].mean(), low, high)}: the mean over seeds of {', '.join(scale['columns'][column])}",
    ]
    seen: set[Path] = set()
    for run, value in zip(runs, cell["value"], strict=True):
        lines += ["", f"seed {run['seed']}: {value:.2f}", *_path(run["scores"], results, seen)]
    folders = " ".join(f"results/{folder}" for run in runs for folder in run["scores"])
    rebuilt = f"snakemake --cores all --config scale={scale['name']} -- {folders}"
    return "\n".join(
        [*lines, "", "To make what of this is missing, or no longer as the code would make it:", f"  {rebuilt}"]
    )


def jobs_behind(told: Path, results: Path) -> dict[str, dict]:
    """Row -> `number` and `text`, all jobs behind it, of a table's settings.json; nothing of rows without scores."""
    runs = json.loads(told.read_text(encoding="utf-8"))["runs"]
    found: dict[str, dict] = {}
    for number, row in enumerate(dict.fromkeys(run["row"] for run in runs if "scores" in run)):
        seen: set[Path] = set()
        lines = []
        for run in (run for run in runs if run["row"] == row):
            lines += [f"seed {run['seed']}", *_path(run["scores"], results, seen)]
        found[row] = {"number": number, "text": "\n".join(lines)}
    return found


def _path(scores: list[str], results: Path, seen: set[Path]) -> list[str]:
    """Each job behind some scores that was not `seen` yet, from the last one back, deeper ones indented."""
    todo = [(1, log) for folder in reversed(scores) for log in reversed(_logs(folder, results))]
    lines = []
    while todo:
        depth, log = todo.pop()
        if log in seen:
            continue
        seen.add(log)
        line = read(log)
        lines += [f"{'  ' * depth}{text}" for text in _job(log.relative_to(results / "logs"), line)]
        todo += [(depth + 1, behind) for behind in reversed(made_from(line, results))]
    return lines


def _logs(folder: str, results: Path) -> list[Path]:
    found = logs_of(f"results/{folder}", results)
    if not found:
        raise UserError(f"{results}/logs has no log of {folder}; keep logs with results, or make it again")
    return found


def _job(log: Path, line: Mapping) -> list[str]:
    changed = ", with changes that are not committed" if line["changed"] else ""
    return [
        f"{log.with_suffix('')}",
        f"  {line['started']}, {line['machine']}, Python {line['python']}",
        f"  commit {line['commit']}{changed}, code {line['code']}, lock {line['lock']}",
        f"  {' '.join(line['command'])}",
    ]
