"""WinoGAViL: which of some images go with a cue, a word. Jaccard index of the chosen ones and the right ones.

As in DataComp, the prompt is "A <cue>" or "An <cue>", by the first letter, and as many images are chosen as are right.
The main metric is the mean over the instances with ten or twelve candidates.

Beside the shards of images lies `instances.json`, a list of objects with `cue`, `candidates` (keys of images) and
`associations`, those of them that are right.

Shapes: N images, I instances.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.tasks import Images, open_images, read_images

Outcomes = dict[str, np.ndarray]

METRICS = [
    "jaccard_score_10-12",
    "jaccard_score_5-6",
    "jaccard_score_5",
    "jaccard_score_6",
    "jaccard_score_10",
    "jaccard_score_12",
    "avg_jaccard_score",
]
SPLITS = {"5": (5,), "6": (6,), "10": (10,), "12": (12,), "5-6": (5, 6), "10-12": (10, 12)}


@dataclass(frozen=True)
class Task:
    """Images and the instances that ask for some of them."""

    images: Images
    instances: list[dict]


def open_task(folder: Path, entry: dict) -> Task:
    path = folder / "instances.json"
    try:
        instances = json.loads(path.read_text(encoding="utf-8"))
        for instance in instances:
            if not isinstance(instance["cue"], str) or not instance["cue"]:
                raise ValueError(f"the cue {instance['cue']!r} is no word")
            if not set(instance["associations"]) < set(instance["candidates"]) or not instance["associations"]:
                raise ValueError(f"associations of {instance['cue']!r} are none, all, or not among its candidates")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error!r:.120}); download the task again") from None
    return Task(open_images(folder, entry, "winogavil"), instances)


def score(task: Task, encoder) -> Outcomes:
    """jaccard_I, candidates_I and associations_I (how many), and the number of images."""
    keys: list[str] = []
    img_ND, _ = encoder.images(_keyed(task, keys), skip=False)  # an image less is another instance
    row = {key: n for n, key in enumerate(keys)}
    for instance in task.instances:
        if missing := [key for key in instance["candidates"] if key not in row]:
            raise UserError(f"{task.images.shards[0].parent}: image {missing[0]!r} is missing; download the task again")
    txt_ID = encoder.texts([prompt(instance["cue"]) for instance in task.instances])
    jaccard = []
    for instance, txt_D in zip(task.instances, txt_ID, strict=True):
        right = set(instance["associations"])
        scores = img_ND[[row[key] for key in instance["candidates"]]] @ txt_D
        chosen = {instance["candidates"][n] for n in np.argsort(scores)[-len(right) :]}
        jaccard.append(len(chosen & right) / len(chosen | right))
    return {
        "jaccard": np.array(jaccard),
        "images": np.array(len(keys)),
        "candidates": np.array([len(instance["candidates"]) for instance in task.instances]),
        "associations": np.array([len(set(instance["associations"])) for instance in task.instances]),
    }


def prompt(cue: str) -> str:
    """The sentence that stands for a cue."""
    return f"{'An' if cue[:1].lower() in 'aeiou' else 'A'} {cue.lower()}"


def units(outcomes: Outcomes) -> int:
    return len(outcomes["jaccard"])


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    """avg_jaccard_score of all instances, and jaccard_score_<candidates>; None where no instance has so many."""
    return _by_split(outcomes, outcomes["jaccard"], weights_N)


def chance(outcomes: Outcomes) -> dict[str, float]:
    """Of as many images as are right, drawn at random."""
    sizes = zip(outcomes["candidates"].tolist(), outcomes["associations"].tolist(), strict=True)
    expected = np.array([_expected(candidates, right) for candidates, right in sizes])
    found = _by_split(outcomes, expected, np.ones(units(outcomes)))
    return {name: value for name, value in found.items() if value is not None}


def facts(outcomes: Outcomes) -> dict[str, int]:
    return {"num_images": int(outcomes["images"]), "num_instances": units(outcomes)}


def _by_split(outcomes: Outcomes, value_I: np.ndarray, weights_I: np.ndarray) -> dict[str, float | None]:
    found = {"avg_jaccard_score": float(value_I @ weights_I / weights_I.sum())}
    for name, sizes in SPLITS.items():
        own_I = weights_I * np.isin(outcomes["candidates"], sizes)
        found[f"jaccard_score_{name}"] = float(value_I @ own_I / own_I.sum()) if own_I.any() else None
    return found


def _expected(candidates: int, right: int) -> float:
    """Mean Jaccard index of `right` of the candidates drawn at random with the right ones."""
    ways = comb(candidates, right)
    return sum(
        comb(right, hits) * comb(candidates - right, right - hits) / ways * hits / (2 * right - hits)
        for hits in range(right + 1)
    )


def _keyed(task: Task, keys: list[str]) -> Iterator[tuple[bytes, str]]:
    for sample, image, where in read_images(task.images):
        keys.append(sample["__key__"])
        yield image, where
