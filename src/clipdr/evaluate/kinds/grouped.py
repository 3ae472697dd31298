"""Zero-shot classification whose metric is that of the worst group: regions, incomes, hospitals.

Beside each image stands its metadata, `npy` with a vector of integers, as the sets of WILDS and of fairness have it;
the suite's entry says which of them is the group, as `group`.

acc_wg is the least acc1 of a group that has any image, acc_top5_wg the least acc5; acc_worst_region is FMoW's name of
the first. FMoW's "Other" region has four images, and WILDS' code means to leave it out but does not: published
averages contain it, and so do ours.

Shapes: N images, G groups.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.kinds import classification
from clipdr.evaluate.tasks import read_images

Outcomes = dict[str, np.ndarray]

METRICS = ["acc_wg", "acc_worst_region", "acc_top5_wg", "acc1", "acc5", "mean_per_class_recall", "F1-macro_all"]
ENTRY = {
    "required": ["group"],
    "properties": {
        "group": {"description": "Which number of the metadata is the group, from 0", "type": "integer", "minimum": 0},
        "classes": {
            "description": "Number of classes, which classnames.txt must have; any if left out",
            "type": "integer",
            "minimum": 2,
        },
    },
}
units = classification.units


@dataclass(frozen=True)
class Task:
    """A classification task, and which number of the metadata is the group."""

    task: classification.Task
    group: int


def open_task(folder: Path, entry: dict) -> Task:
    return Task(classification.open_task(folder, entry), entry["group"])


def score(task: Task, encoder) -> Outcomes:
    """Those of classification, and group_N."""
    labels: list[int] = []
    groups: list[int] = []
    images = task.task.images
    img_ND, kept = encoder.images(_annotated(task, labels, groups), images.skip)
    logits_NC = img_ND @ classification.class_vectors(task.task, encoder).T
    return classification.outcomes(logits_NC, np.array(labels)[kept]) | {"group": np.array(groups)[kept]}


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    """Those of classification, and of the groups that occur the least acc1 and acc5."""
    found = classification.metrics(outcomes, weights_N)
    worst = _worst(outcomes["rank"] == 0, outcomes["group"], weights_N)
    top5 = _worst(outcomes["rank"] < 5, outcomes["group"], weights_N) if found["acc5"] is not None else None
    return found | {"acc_wg": worst, "acc_worst_region": worst, "acc_top5_wg": top5}


def chance(outcomes: Outcomes) -> dict[str, float]:
    """That of each group; of the worst of several it is less."""
    found = classification.chance(outcomes)
    top5 = {"acc_top5_wg": found["acc5"]} if "acc5" in found else {}
    return found | {"acc_wg": found["acc1"], "acc_worst_region": found["acc1"], **top5}


def facts(outcomes: Outcomes) -> dict:
    """How many images each group has, too: a group of four decides FMoW's metric."""
    groups, images = np.unique(outcomes["group"], return_counts=True)
    sizes = {str(group): int(number) for group, number in zip(groups, images, strict=True)}
    return classification.facts(outcomes) | {"groups": sizes}


def _worst(hits_N: np.ndarray, group_N: np.ndarray, weights_N: np.ndarray) -> float:
    _, group_N = np.unique(group_N, return_inverse=True)
    images_G, hits_G = np.bincount(group_N, weights_N), np.bincount(group_N, weights_N * hits_N)
    return float((hits_G[images_G > 0] / images_G[images_G > 0]).min())


def _annotated(task: Task, labels: list[int], groups: list[int]) -> Iterator[tuple[bytes, str]]:
    for sample, image, where in read_images(task.task.images):
        labels.append(classification.read_label(sample, where, len(task.task.classes)))
        groups.append(_group(sample, where, task.group))
        yield image, where


def _group(sample: dict, where: str, column: int) -> int:
    try:
        return int(np.load(io.BytesIO(sample["npy"]), allow_pickle=False)[column])
    except (KeyError, ValueError, IndexError, EOFError, OSError) as error:
        raise UserError(
            f"{where} has no group in its .npy ({error!r:.80}), number {column} of a vector; download the task again"
        ) from None
