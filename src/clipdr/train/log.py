"""The records of a training run, lines of JSON; see `clipdr.train.watch` for what is in them."""

import json
from pathlib import Path

LOG = "log.jsonl"


def read_log(path: Path) -> list[dict]:
    """The records of a log; a last line that a killed process did not finish is left out."""
    records = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records
