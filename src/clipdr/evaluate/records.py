"""Records of evaluations: one JSON object per task and line, in DataComp's schema.

`key` names the task, `dataset` is its title, `metrics` maps names to values, of which `main_metric` stands for the
task. Ours have more, see `clipdr.evaluate.suite`; others', Apple's result files among them, do not.
"""

import json
from pathlib import Path

from clipdr.errors import UserError

RECORDS = "records.jsonl"  # in the folder of a model's scores
SIGNED = ("similarity",)  # kinds whose metrics are cosines


def read_records(path: Path) -> dict[str, dict]:
    """Records of one file by task key.

    Raises:
        UserError: a missing file, a line that is no record, a key that stands twice, or a main metric that is no number
            between 0 and 1, or of a cosine -1 and 1; None is one that is not defined.
    """
    if not path.exists():
        raise UserError(f"{path}: missing; evaluate this run first")
    records: dict[str, dict] = {}
    for count, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            record = json.loads(line, parse_constant=lambda _: None)  # NaN is no value
            key, metrics = record["key"], dict(record["metrics"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}: line {count} is no evaluation record ({error!r:.80}); evaluate again") from error
        if key in records:
            raise UserError(f"{path}: {key} is recorded twice; evaluate this run again")
        low = -1 if record.get("kind") in SIGNED else 0
        main = metrics.get("main_metric")
        if not (main is None or (_is_number(main) and low <= main <= 1)):
            raise UserError(
                f"{path}: {key} has main_metric {main!r}, no number between {low} and 1; evaluate this run again"
            )
        records[key] = record
    return records


def metric_of(records: dict[str, dict], key: str, metric: str, path: Path) -> float:
    """A metric of a task. Raises UserError if the file has no record of it, or the record no such metric."""
    if key not in records:
        raise UserError(f"{path}: no record of {key}; evaluate this run again with a suite that has it")
    value = records[key]["metrics"].get(metric)
    if not _is_number(value):
        raise UserError(f"{path}: {key} has no {metric}; evaluate this run again, or name another metric")
    return float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
