"""The samples of a task folder as the evaluation reads them."""

from pathlib import Path

from clipdr.evaluate.kinds import kind_of
from clipdr.evaluate.tasks import read_images, task_folder


def opened(tasks: Path, key: str, kind: str):
    """A task as its kind opens it."""
    entry = {"key": key, "kind": kind, "ties": "wrong"}
    return kind_of(kind).open_task(task_folder(tasks, entry), entry)


def held_out(tasks: Path, key: str, kind: str) -> list[tuple[bytes, int | list[str]]]:
    """(encoded image, its label or captions) of each sample."""
    task = opened(tasks, key, kind)
    samples = [(image, sample) for sample, image, _ in read_images(getattr(task, "images", task))]
    if kind == "retrieval":
        return [(image, sample["txt"].decode().splitlines()) for image, sample in samples]
    return [(image, int(sample["cls"])) for image, sample in samples]
