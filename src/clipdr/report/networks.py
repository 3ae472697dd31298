"""Network columns of a table: parameters and latency of full-size networks, counted and measured here.

They are facts about the architecture that a row names, of the form used for inference and with random weights, whatever
the scale. Decided here:
* The latency that a table shows is that of ONNX Runtime, median and quartiles; PyTorch's stands in the .csv beside it.
* All latencies of a table come from one device under the same conditions, or there is no table.
* Of two rows the one with fewer parameters or the shorter latency is better. Differences are given in percent too,
  because latencies on two devices (ours and the paper's) share no level.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from clipdr.errors import UserError
from clipdr.text import MISSING, number
from clipdr.words import NETWORK_COLUMNS, networks, slug

CONDITIONS = ("device", "threads", "batch_size", "versions")
ALIKE = "alike in the paper"
NO_DIRECTION = "Where the paper finds two rows alike, no direction is judged."
QUARTILES = ("median_ms", "q1_ms", "q3_ms")
COLUMNS = ("row", "network", "column", "value", "q1", "q3", "torch", "torch q1", "torch q3")


def measurements(experiment: Mapping, results: Path) -> tuple[pd.DataFrame, dict]:
    """What was measured for the network columns, and on what.

    First, one line per row with a network and network column: COLUMNS, values in millions or in milliseconds, NaN
    beyond `value` for parameters. Second, the CONDITIONS of the latencies, empty if the table has none.

    Raises UserError naming the file for one that is missing or unreadable, lacks a network or a key, or holds
    latencies of other conditions than the rest.
    """
    counts = read_counts(Path(results) / "networks/counts.json", networks(experiment, "params"))
    latencies, conditions = read_latencies(Path(results) / "networks/latency", networks(experiment, "latency"))
    lines = []
    for row in experiment["rows"]:
        for column in experiment["columns"]:
            if "network" not in row or column not in NETWORK_COLUMNS:
                continue
            quantity, tower = NETWORK_COLUMNS[column]
            values = (counts if quantity == "params" else latencies)[row["network"]][tower]
            lines.append({"row": row["name"], "network": row["network"], "column": column, **values})
    return pd.DataFrame(lines, columns=COLUMNS), conditions


def read_counts(path: Path, names: Iterable[str]) -> dict[str, dict]:
    """Network -> tower -> value (millions of parameters of the inference form), from counts.json."""
    names = list(names)
    entries = _read(path) if names else []
    if not isinstance(entries, list):
        raise UserError(f"{path}: is no list of networks; delete it and count again")
    known = {entry["network"]: entry for entry in entries if isinstance(entry, dict) and "network" in entry}
    for name in names:
        if name not in known:
            raise UserError(f"{path}: has no network {name!r}; delete it and count again")
    towers = ("image", "text")
    return {n: {t: {"value": _number(known[n], path, t, "params") / 1e6} for t in towers} for n in names}


def read_latencies(folder: Path, names: Iterable[str]) -> tuple[dict[str, dict], dict]:
    """Network -> tower -> value, q1, q3 (ms, ONNX Runtime), torch, torch q1, torch q3; and the CONDITIONS of all."""
    latencies, conditions, first = {}, {}, None
    for name in names:
        path = folder / f"{slug(name)}.json"
        entry = _read(path)
        if _get(entry, path, "network") != name:
            raise UserError(f"{path}: is of network {entry['network']!r}, not {name!r}; delete it and measure again")
        here = {key: _get(entry, path, key) for key in CONDITIONS}
        conditions, first = conditions or here, first or path
        for key in CONDITIONS:
            if here[key] != conditions[key]:
                raise UserError(
                    f"{path}: {key} is {here[key]}, but {conditions[key]} in {first}; measure all networks of a table "
                    "again on one device (delete both files)"
                )
        latencies[name] = {}
        for tower in ("image", "text"):
            ours = [_number(entry, path, tower, "onnxruntime", key) for key in QUARTILES]
            torch = [_number(entry, path, tower, "torch", key) for key in QUARTILES]
            latencies[name][tower] = dict(zip(COLUMNS[3:], [*ours, *torch], strict=True))
    return latencies, conditions


def headings(experiment: Mapping, column: str) -> tuple[str, str]:
    """What stands over the measured and over the published values of a network column."""
    if NETWORK_COLUMNS[column][0] == "params":
        return "counted", "paper"
    return "this CPU", experiment.get("latency_device", "paper")


def texts(cells: pd.DataFrame, column: str) -> dict[str, str]:
    """Row -> what the table shows of `measurements` in a network column: a number, with quartiles for a latency."""
    chosen = cells[cells["column"] == column]
    return {
        cell["row"]: number(cell["value"])
        + ("" if pd.isna(cell["q1"]) else f" [{number(cell['q1'])}–{number(cell['q3'])}]")
        for _, cell in chosen.iterrows()
    }


def notes(experiment: Mapping, cells: pd.DataFrame, conditions: Mapping) -> list[str]:
    """Paragraphs in Markdown about what was measured and how, none if nothing was."""
    if cells.empty:
        return []
    parts = [
        "Parameters and latency are of full-size networks, whatever the scale, in the form used for inference and with "
        "random weights, on which neither depends."
    ]
    if networks(experiment, "params"):
        parts.append("Counted: parameters of one tower in millions, without the logit scale.")
    if conditions:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(conditions["versions"].items()))
        threads = conditions["threads"]
        parts.append(
            f"This CPU: {conditions['device']}, {threads} thread{'' if threads == 1 else 's'}, batch size "
            f"{conditions['batch_size']}, {versions}; median [first–third quartile] of ONNX Runtime in milliseconds."
        )
        device = experiment.get("latency_device")
        parts.append(f"The paper's latencies were measured on {device}." if device else "")
        parts.append("Latencies on two devices are comparable in the order of the networks, not in level.")
    return [" ".join(filter(None, parts))]


def network_lines(cells: pd.DataFrame) -> list[dict[str, str]]:
    """One line per network: its name, and the rows that it stands for."""
    rows = cells.drop_duplicates("row").groupby("network", sort=False)["row"]
    return [{"network": network, "rows": "; ".join(names)} for network, names in rows]


def comparison_lines(experiment: Mapping, cells: pd.DataFrame) -> list[dict[str, str]]:
    """One line per comparison in a network column: both differences, and whether ours is below zero.

    A difference of latencies is one of medians; the last word says whether the ranges between the quartiles meet.
    """
    published = {row["name"]: row.get("published", {}) for row in experiment["rows"]}
    by_column = {column: chosen.set_index("row") for column, chosen in cells.groupby("column")}
    lines = []
    for comparison in experiment.get("comparisons", []):
        column, names = comparison["column"], (comparison["better"], comparison["than"])
        if column not in NETWORK_COLUMNS:
            continue
        better, than = (by_column[column].loc[name] for name in names)
        line = {"claim": comparison["claim"], "rows": f"“{names[0]}” − “{names[1]}”", "column": column}
        line["difference (here)"] = _difference(better["value"], than["value"])
        line["difference (paper)"] = _difference(*(published[name].get(column) for name in names))
        lines.append({**line, "direction": _direction(better, than, comparison.get("similar", False))})
    return lines


def _difference(better: float | None, than: float | None) -> str:
    if better is None or than is None:
        return MISSING
    return f"{number(better - than, sign='+')} ({100 * (better / than - 1):+.1f}%)"


def _direction(better: pd.Series, than: pd.Series, similar: bool) -> str:
    if similar:
        return ALIKE
    verdict = "holds" if better["value"] < than["value"] else "does not hold"
    if pd.isna(better["q1"]):
        return verdict
    apart = better["q3"] < than["q1"] or than["q3"] < better["q1"]
    return f"{verdict} (quartiles {'apart' if apart else 'overlap'})"


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; measure the networks first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); delete it and measure again") from None


def _get(entry: object, path: Path, *keys: str) -> object:
    for key in keys:
        if not isinstance(entry, dict) or key not in entry:
            raise UserError(f"{path}: {'.'.join(keys)} is missing; delete it and measure again")
        entry = entry[key]
    return entry


def _number(entry: object, path: Path, *keys: str) -> float:
    value = _get(entry, path, *keys)
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UserError(f"{path}: {'.'.join(keys)} is {value}, no positive number; delete it and measure again")
    return value
