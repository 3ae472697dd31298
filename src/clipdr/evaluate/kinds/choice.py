"""The right caption among wrong ones of the same image: ARO and its like (relations, attributes, order of words).

Beside each image stands `cases.json`, a list of objects with `options`, captions of which the first is the true one,
and `group`, the relation or the attributes that it is about (null where there is none). An image is encoded once,
however many cases it has.

accuracy counts cases alike; macro_accuracy is the mean over groups, without those that the suite's entry leaves out
(`leave_out`, by name, and groups of fewer than `min_cases`), as ARO's notebooks do for relations that are symmetric and
for rare attributes. Where the true caption scores the same as a wrong one, the entry's `ties` says which it is: ARO
counts them wrong for relations and attributes, and right for the order of words, because it looks for the first of the
largest scores and lists the true caption last or first. Captions that were drawn at random are another task each time:
`options_sha256` of an entry is the hash of those that it means.

Shapes: N images, K cases, G groups.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.tasks import Images, annotation, open_images, read_images
from clipdr.files import sha256

Outcomes = dict[str, np.ndarray]

METRICS = ["accuracy", "macro_accuracy"]
ENTRY = {
    "required": ["ties"],
    "properties": {
        "ties": {
            "description": "What a true caption counts as that scores the same as a wrong one",
            "enum": ["right", "wrong"],
        },
        "leave_out": {
            "description": "Groups that macro_accuracy leaves out, for instance symmetric relations",
            "type": "array",
            "uniqueItems": True,
            "items": {"type": "string"},
        },
        "min_cases": {
            "description": "Least number of cases of a group that counts in macro_accuracy; 1 if left out",
            "type": "integer",
            "minimum": 1,
        },
        "options_sha256": {
            "description": "Hash of all captions, as `python -m clipdr.evaluate aro` says it; any if left out",
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
        },
    },
}


@dataclass(frozen=True)
class Task:
    """Images with cases, what a tie is, and which groups count."""

    images: Images
    ties: bool
    leave_out: frozenset[str]
    min_cases: int
    options_sha256: str | None


def open_task(folder: Path, entry: dict) -> Task:
    leave_out = frozenset(entry.get("leave_out", ()))
    images = open_images(folder, entry, "choice")
    return Task(images, entry["ties"] == "right", leave_out, entry.get("min_cases", 1), entry.get("options_sha256"))


def score(task: Task, encoder) -> Outcomes:
    """correct_K, options_K (how many), image_K, group_K (a number, -1 where the case is in no group that counts)."""
    of_image: list[list[dict]] = []
    img_ND, kept = encoder.images(_with_cases(task, of_image), task.images.skip)
    cases = [
        (n, case)
        for n, own in enumerate([own for own, keep in zip(of_image, kept, strict=True) if keep])
        for case in own
    ]
    _check_options([case for own in of_image for case in own], task)
    texts = [text for _, case in cases for text in case["options"]]
    txt = iter(encoder.texts(texts))
    correct = []
    for n, case in cases:
        true, *wrong = (float(img_ND[n] @ next(txt)) for _ in case["options"])
        correct.append(true > max(wrong) or (task.ties and true == max(wrong)))
    return {
        "correct": np.array(correct),
        "options": np.array([len(case["options"]) for _, case in cases]),
        "image": np.array([n for n, _ in cases]),
        "group": _groups([case["group"] for _, case in cases], task),
    }


def units(outcomes: Outcomes) -> int:
    return int(outcomes["image"].max()) + 1


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    """accuracy of all cases, and macro_accuracy over the groups that count, None if there are none."""
    correct_K, weights_K = outcomes["correct"], weights_N[outcomes["image"]]
    grouped_K = outcomes["group"] >= 0
    cases_G = np.bincount(outcomes["group"][grouped_K], weights_K[grouped_K])
    hits_G = np.bincount(outcomes["group"][grouped_K], (weights_K * correct_K)[grouped_K])
    present_G = cases_G > 0
    macro = float((hits_G[present_G] / cases_G[present_G]).mean()) if present_G.any() else None
    return {"accuracy": float(correct_K @ weights_K / weights_K.sum()), "macro_accuracy": macro}


def chance(outcomes: Outcomes) -> dict[str, float]:
    """One of the options."""
    guessed = metrics({**outcomes, "correct": 1 / outcomes["options"]}, np.ones(units(outcomes)))
    return {name: value for name, value in guessed.items() if value is not None}


def facts(outcomes: Outcomes) -> dict[str, int]:
    groups = len(np.unique(outcomes["group"][outcomes["group"] >= 0]))
    return {"num_images": units(outcomes), "num_cases": len(outcomes["correct"]), "num_groups": groups}


def options_hash(cases: list[dict]) -> str:
    """sha256 of the captions of a task's cases, in their order."""
    return sha256(json.dumps([case["options"] for case in cases]).encode())


def _check_options(cases: list[dict], task: Task) -> None:
    if task.options_sha256 not in (None, found := options_hash(cases)):
        raise UserError(
            f"{task.images.shards[0].parent}: its captions have sha256 {found}, but the suite says "
            f"{task.options_sha256} as options_sha256; build or download the task again, or correct the suite"
        )


def _groups(names: list[str | None], task: Task) -> np.ndarray:
    every, number_K, cases_G = np.unique([name or "" for name in names], return_inverse=True, return_counts=True)
    counts_G = np.array(
        [
            bool(name) and name not in task.leave_out and n >= task.min_cases
            for name, n in zip(every, cases_G, strict=True)
        ]
    )
    return np.where(counts_G[number_K], number_K, -1)


def _with_cases(task: Task, of_image: list[list[dict]]) -> Iterator[tuple[bytes, str]]:
    for sample, image, where in read_images(task.images):
        of_image.append(_cases(annotation(sample, where, "cases.json"), where))
        yield image, where


def _cases(text: str, where: str) -> list[dict]:
    try:
        cases = [{"options": list(map(_caption, case["options"])), "group": case["group"]} for case in json.loads(text)]
        if not cases or min(len(case["options"]) for case in cases) < 2:
            raise ValueError("no case, or one with less than two options")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{where}: .cases.json cannot be read ({error!r:.80}); build or download the task again"
        ) from None
    return cases


def _caption(text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{text!r} is no caption")
    return text
