"""Scores of models as an evaluation leaves them, with values by hand."""

import json
from pathlib import Path

import numpy as np

from clipdr.evaluate.outcomes import DRAWS, save

SPREAD = np.linspace(-0.05, 0.05, 1001)  # of the draws around each value


def record(key: str, value: float, images: int, classes: int | None = None) -> dict:
    """What is read of a record, of a task with so many classes, or of retrieval among so many images."""
    return {
        "key": key,
        "dataset": f"Task {key[-1]}",
        "main_metric": "acc1",
        "metrics": {"main_metric": value},
        "chance": {"acc1": 1 / (classes or images)},
        "num_images": images,
    }


def write_scores(folder: Path, records: list[dict | str], spread: np.ndarray = SPREAD) -> Path:
    """Write records, texts as they are, and evenly spread draws; returns the file of the records."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "records.jsonl"
    path.write_text("".join((json.dumps(r) if isinstance(r, dict) else r) + "\n" for r in records))
    save({r["key"]: r["metrics"]["main_metric"] + spread for r in records if isinstance(r, dict)}, folder / DRAWS)
    return path
