"""Zero-shot classification of images with several labels: mean average precision.

A class's average precision is the mean, over its images, of the precision among all that are ranked no lower, as in
clip_benchmark: nothing is interpolated. Equal scores keep the order of the images.

Beside each image stands `npy`, a vector of zeros and ones, one per class.

Shapes: N images, C classes.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.kinds.classification import Task, class_vectors
from clipdr.evaluate.kinds.classification import open_task as open_classification
from clipdr.evaluate.tasks import read_images

Outcomes = dict[str, np.ndarray]

METRICS = ["mean_average_precision"]
ENTRY = {
    "properties": {
        "classes": {
            "description": "Number of classes, which classnames.txt must have; any if left out",
            "type": "integer",
            "minimum": 2,
        }
    }
}


def open_task(folder: Path, entry: dict) -> Task:
    return open_classification(folder, entry, "multilabel")


def score(task: Task, encoder) -> Outcomes:
    """score_NC and target_NC."""
    targets: list[np.ndarray] = []
    img_ND, kept = encoder.images(_annotated(task, targets), task.images.skip)
    return outcomes(img_ND @ class_vectors(task, encoder).T, np.stack(targets)[kept])


def outcomes(score_NC: np.ndarray, target_NC: np.ndarray) -> Outcomes:
    """Raises UserError for a class that no image has, whose precision is not defined."""
    target_NC = np.asarray(target_NC, bool)
    if not target_NC.any(axis=0).all():
        raise UserError(f"class {int(target_NC.any(axis=0).argmin())} of a multilabel task has no image; leave it out")
    return {"score": np.asarray(score_NC), "target": target_NC}


def units(outcomes: Outcomes) -> int:
    return len(outcomes["score"])


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    """mean_average_precision; of a bootstrap's classes, those that were drawn."""
    order_NC = np.argsort(-outcomes["score"], axis=0, kind="stable")
    weights_NC = weights_N[order_NC]
    found_NC = weights_NC * np.take_along_axis(outcomes["target"], order_NC, axis=0)
    seen_NC = np.maximum(weights_NC.cumsum(axis=0), 1e-9)
    positives_C = found_NC.sum(axis=0)
    precision_C = (found_NC * found_NC.cumsum(axis=0) / seen_NC).sum(axis=0) / np.maximum(positives_C, 1e-9)
    return {"mean_average_precision": float(precision_C[positives_C > 0].mean())}


def chance(outcomes: Outcomes) -> dict[str, float]:
    """The share of images that have a class."""
    return {"mean_average_precision": float(outcomes["target"].mean())}


def facts(outcomes: Outcomes) -> dict[str, int]:
    images, classes = outcomes["score"].shape
    return {"num_images": images, "num_classes": classes}


def _annotated(task: Task, targets: list[np.ndarray]) -> Iterator[tuple[bytes, str]]:
    for sample, image, where in read_images(task.images):
        targets.append(_target(sample, where, len(task.classes)))
        yield image, where


def _target(sample: dict, where: str, classes: int) -> np.ndarray:
    try:
        found = np.load(io.BytesIO(sample["npy"]), allow_pickle=False)
        if found.shape != (classes,) or not np.isin(found, (0, 1)).all():
            raise ValueError(f"shape {found.shape}, from {found.min()} to {found.max()}")
    except (KeyError, ValueError, EOFError, OSError) as error:
        raise UserError(f"{where}: .npy is no vector of {classes} zeros and ones ({error!r:.80})") from None
    return found
