"""Averages over the tasks of a suite, as DataComp, OpenCLIP and MobileCLIP print them: means of main metrics.

Every task weighs the same, whatever its size. Which tasks an average has stands in the suite, as `groups` of its
entries; `average` is the mean over all. One with a task missing is not given.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from clipdr.errors import UserError
from clipdr.evaluate.records import read_records
from clipdr.schema import load_yaml
from clipdr.text import MISSING, markdown_table, number

AVERAGE = "average"


def groups_of(suite: Mapping) -> dict[str, list[str]]:
    """Average -> keys of its tasks: all, and each group of the suite."""
    groups: dict[str, list[str]] = {AVERAGE: [task["key"] for task in suite["tasks"]]}
    for task in suite["tasks"]:
        for group in task.get("groups", []):
            groups.setdefault(group, []).append(task["key"])
    return groups


def averages(records: Mapping[str, dict], suite: Mapping) -> dict[str, float | None]:
    """Average -> its value, a fraction; None where a task has no main metric. Other records do not count."""
    found = {}
    for name, keys in groups_of(suite).items():
        values = [records.get(key, {}).get("metrics", {}).get("main_metric") for key in keys]
        found[name] = None if None in values else sum(values) / len(values)
    return found


def missing(records: Mapping[str, dict], suite: Mapping) -> list[str]:
    """Keys of the suite's tasks without a main metric among the records."""
    keys = groups_of(suite)[AVERAGE]
    return [key for key in keys if records.get(key, {}).get("metrics", {}).get("main_metric") is None]


def report(files: Sequence[Path], source: Path) -> str:
    """A table of all averages, a column for each file, and what the files lack or have beside the suite's tasks.

    Raises:
        UserError: a file or the suite cannot be read.
    """
    suite = load_yaml(source)
    if "tasks" not in suite:
        raise UserError(f"{source}: tasks is missing; name a suite of config/suites")
    groups, read = groups_of(suite), {str(path): read_records(path) for path in files}
    values = {name: averages(records, suite) for name, records in read.items()}
    lines = [
        {"average": name, "tasks": str(len(keys))}
        | {file: number(None if found[name] is None else 100 * found[name], 2) for file, found in values.items()}
        for name, keys in groups.items()
    ]
    parts = [markdown_table(lines)]
    for name, records in read.items():
        if lacking := missing(records, suite):
            parts.append(f"{name} lacks {len(lacking)} of {len(groups[AVERAGE])} tasks: {', '.join(lacking)}")
        if others := sorted(set(records) - set(groups[AVERAGE])):
            parts.append(
                f"{name} has {len(others)} records beside the suite's, which do not count: {', '.join(others)}"
            )
    return "\n\n".join(parts) + (f"\n\n{MISSING}: a task is missing" if any(map(_gaps, values.values())) else "")


def _gaps(found: Mapping[str, float | None]) -> bool:
    return None in found.values()
