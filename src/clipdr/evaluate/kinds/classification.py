"""Zero-shot classification: the class whose vector is nearest to the image.

Definitions are clip_benchmark's, with one decision more: tied logits go to the lower class index. There, topk and
argmax may break a tie differently, so that acc1 and mean_per_class_recall disagree for classes with equal names. The
fixed temperature 100 of clip_benchmark is left out: it changes no rank. F1-macro_all is that of iWildCam in WILDS.

A folder has `classnames.txt` and `zeroshot_classification_templates.txt`, and `cls` beside each image.

Shapes: N images, C classes, T templates, D embedding dimensions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.tasks import Images, annotation, lines, open_images, read_images

Outcomes = dict[str, np.ndarray]

METRICS = ["acc1", "acc5", "mean_per_class_recall", "F1-macro_all"]
ENTRY = {
    "properties": {
        "classes": {
            "description": "Number of classes, which classnames.txt must have; any if left out",
            "type": "integer",
            "minimum": 2,
        }
    }
}


@dataclass(frozen=True)
class Task:
    """Images with labels, the class names, and the sentences that they are put into."""

    images: Images
    classes: tuple[str, ...]
    templates: tuple[str, ...]


def open_task(folder: Path, entry: dict, layout: str = "classification") -> Task:
    classes = class_names(folder, entry)
    path = folder / "zeroshot_classification_templates.txt"
    templates = lines(path)
    for template in templates:
        _check_template(path, template)
    return Task(open_images(folder, entry, layout), classes, templates)


def class_names(folder: Path, entry: dict) -> tuple[str, ...]:
    """The classes of a folder. Raises UserError for another number than the suite says."""
    classes = lines(folder / "classnames.txt")
    if entry.get("classes") not in (None, len(classes)):
        raise UserError(
            f"{folder}/classnames.txt has {len(classes)} lines, but the suite says that {entry['key']} has "
            f"{entry['classes']} classes; download the task again, or correct the suite"
        )
    return classes


def score(task: Task, encoder) -> Outcomes:
    """label_N, and of each image's logits the rank_N of the true class (0 is best) and the prediction_N."""
    labels: list[int] = []
    img_ND, kept = encoder.images(labelled(task.images, len(task.classes), labels), task.images.skip)
    return outcomes(img_ND @ class_vectors(task, encoder).T, np.array(labels)[kept])


def outcomes(logits_NC: np.ndarray, label_N: np.ndarray) -> Outcomes:
    """What is kept of logits."""
    return {
        "label": label_N,
        "rank": ranks(logits_NC, label_N),
        "prediction": np.asarray(logits_NC).argmax(axis=1),
        "classes": np.array(np.shape(logits_NC)[1]),
    }


def class_vectors(task: Task, encoder) -> np.ndarray:
    """Unit vectors [C, D] of the classes."""
    prompts = [template.format(c=name) for name in task.classes for template in task.templates]
    return classifier_weights(encoder.texts(prompts).reshape(len(task.classes), len(task.templates), -1))


def classifier_weights(text_CTD: np.ndarray) -> np.ndarray:
    """Class vectors [C, D] of unit length: the mean of a class's normalised prompt embeddings, normalised again.

    text_CTD: float [C, T, D], rows of any length but zero.
    """
    unit_CTD = text_CTD / np.linalg.norm(text_CTD, axis=-1, keepdims=True)
    mean_CD = unit_CTD.mean(axis=1)
    return mean_CD / np.linalg.norm(mean_CD, axis=-1, keepdims=True)


def ranks(logits_NC: np.ndarray, label_N: np.ndarray) -> np.ndarray:
    """Rank [N] int of the true class among the logits, 0 is best; a tie goes to the lower class index."""
    logits_NC, label_N = np.asarray(logits_NC), np.asarray(label_N)
    own_N1 = np.take_along_axis(logits_NC, label_N[:, None], axis=1)
    before_NC = np.arange(logits_NC.shape[1])[None, :] < label_N[:, None]
    return ((logits_NC > own_N1) | ((logits_NC == own_N1) & before_NC)).sum(axis=1)


def units(outcomes: Outcomes) -> int:
    return len(outcomes["label"])


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    """acc1, acc5 (None below five classes), and over the classes that occur mean_per_class_recall and F1-macro_all."""
    label_N, rank_N, classes = outcomes["label"], outcomes["rank"], int(outcomes["classes"])
    of_class_C = np.bincount(label_N, weights_N, classes)
    named_C = np.bincount(outcomes["prediction"], weights_N, classes)
    hits_C = np.bincount(label_N, weights_N * (outcomes["prediction"] == label_N), classes)
    present_C = of_class_C > 0
    return {
        "acc1": _mean(rank_N == 0, weights_N),
        "acc5": _mean(rank_N < 5, weights_N) if classes >= 5 else None,
        "mean_per_class_recall": float((hits_C[present_C] / of_class_C[present_C]).mean()),
        "F1-macro_all": float((2 * hits_C / np.maximum(of_class_C + named_C, 1e-9))[present_C].mean()),
    }


def chance(outcomes: Outcomes) -> dict[str, float]:
    """Of guesses that are uniform over the classes; of F1 its value for many such guesses."""
    classes = int(outcomes["classes"])
    share_C = np.bincount(outcomes["label"], minlength=classes) / units(outcomes)
    of_class_C = 2 * share_C / classes / (share_C + 1 / classes)
    found = {"acc1": 1 / classes, "mean_per_class_recall": 1 / classes}
    found["F1-macro_all"] = float(of_class_C[share_C > 0].mean())
    return found | ({"acc5": 5 / classes} if classes >= 5 else {})


def facts(outcomes: Outcomes) -> dict[str, int]:
    return {"num_images": units(outcomes), "num_classes": int(outcomes["classes"])}


def read_label(sample: dict, where: str, classes: int) -> int:
    """The label of a sample. Raises UserError for one that is missing or out of range."""
    text = annotation(sample, where, "cls").strip()
    if not text.isdecimal() or int(text) >= classes:
        raise UserError(f"{where} has label {text!r}, out of range: classnames.txt has {classes} lines")
    return int(text)


def labelled(images: Images, classes: int, labels: list[int]) -> Iterator[tuple[bytes, str]]:
    """The images with their names for errors; their labels are added to `labels`."""
    for sample, image, where in read_images(images):
        labels.append(read_label(sample, where, classes))
        yield image, where


def _check_template(path: Path, template: str) -> None:
    try:
        filled = template.format(c="clipdr")
    except (KeyError, ValueError, IndexError):
        filled = ""
    if "clipdr" not in filled:
        raise UserError(f"{path}: template {template!r} must hold {{c}} and no other braces")


def _mean(hits_N: np.ndarray, weights_N: np.ndarray) -> float:
    return float(hits_N @ weights_N / weights_N.sum())
