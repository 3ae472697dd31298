"""A few held-out images as a model sees them: what it takes for what, and at which place it finds an image by its text.

Which images: those with the smallest hash of their place in the task, so that nobody picks, hits and misses apart.
"""

import hashlib
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.outcomes import load, outcomes_file
from clipdr.evaluate.tasks import annotation, decode, folder_name, lines, open_images, read_images
from clipdr.report.picture import save

RIGHT, WRONG, INK = "#1a6b34", "#a3211b", "#333333"
WIDTH = 22  # characters of a line below an image


def draw(tasks: Path, scores: Iterable[Path], classification: str, retrieval: str, title: str, output: Path) -> None:
    """Write a picture of three lines: images that are classified rightly, wrongly, and images and their texts.

    Args:
        tasks: folder of all tasks.
        scores: folders of a model's scores, of which one has the outcomes of each task.
        classification, retrieval: keys of a task of each kind.
        title: what model it is.

    Raises:
        UserError: a task or its outcomes are missing, or belong to other images.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    number = 6
    entries = [_classified(tasks, scores, classification), _found(tasks, scores, retrieval)]
    rows = [
        ("classified rightly", _first(number, entries[0], True)),
        ("classified wrongly", _first(number, entries[0], False)),
    ]
    rows.append(("found by its text", _first(number, entries[1], None)))
    with plt.rc_context({"font.size": 9, "text.parse_math": False}):
        figure, grid = plt.subplots(len(rows), number, figsize=(2.1 * number, 2.7 * len(rows)), layout="constrained")
        figure.suptitle(title, fontsize=11)
        for line, (what, chosen) in zip(grid, rows, strict=True):
            for axis in line:
                axis.set_axis_off()
            for axis, (image, words, color) in zip(line, chosen, strict=False):
                axis.imshow(image, interpolation="nearest")
                axis.set_title(
                    "\n".join(textwrap.wrap(words, WIDTH, max_lines=3, placeholder=" …")), fontsize=8, color=color
                )
            line[0].text(-0.08, 0.5, what, transform=line[0].transAxes, rotation=90, va="center", ha="right", color=INK)
        save(figure, output)


def _first(number: int, entries: list[tuple], right: bool | None) -> list[tuple]:
    """(image, words, colour) of the first of those that were right, or wrong."""
    kept = [entry for entry in entries if right in (None, entry[1])]
    kept.sort(key=lambda entry: hashlib.sha256(str(entry[0]).encode()).hexdigest())
    return [
        (decode(data, where), words, {True: RIGHT, False: WRONG}[hit]) for _, hit, words, data, where in kept[:number]
    ]


def _classified(tasks: Path, scores: Iterable[Path], key: str) -> list[tuple]:
    """(place, whether it was right, words, encoded image, its name) of each image of a task of classification."""
    folder = tasks / folder_name(key)
    names, outcomes = lines(folder / "classnames.txt"), _outcomes(scores, key)
    images = list(_kept(folder, {"key": key, "kind": "classification"}, "classification", len(outcomes["prediction"])))
    found = []
    for place, (_, data, where) in enumerate(images):
        true, taken = (int(outcomes[name][place]) for name in ("label", "prediction"))
        words = names[true] if true == taken else f"{names[taken]}, but it is {names[true]}"
        found.append((place, true == taken, words, data, where))
    return found


def _found(tasks: Path, scores: Iterable[Path], key: str) -> list[tuple]:
    """The same of retrieval: an image's first text, and at which place of all images it finds it."""
    folder, outcomes = tasks / folder_name(key), _outcomes(scores, key)
    ranks = outcomes["first_image_rank"]
    found = []
    for place, (sample, data, where) in enumerate(
        _kept(folder, {"key": key, "kind": "retrieval"}, "retrieval", len(ranks))
    ):
        text = annotation(sample, where, "txt").splitlines()[0]
        words = f"“{text}” finds it at place {int(ranks[place]) + 1} of {len(ranks)}"
        found.append((place, bool(ranks[place] == 0), words, data, where))
    return found


def _kept(folder: Path, entry: dict, layout: str, number: int) -> Iterator[tuple[dict, bytes, str]]:
    """The images that have outcomes."""
    samples = list(read_images(open_images(folder, entry, layout)))
    if len(samples) != number:
        raise UserError(f"{folder} has {len(samples)} images, but {number} were scored; evaluate the model again")
    return iter(samples)


def _outcomes(scores: Iterable[Path], key: str) -> dict[str, np.ndarray]:
    for folder in scores:
        if (path := folder / outcomes_file(key)).is_file():
            return load(path)
    raise UserError(f"no outcomes of {key} in {', '.join(map(str, scores))}; evaluate the model again")
