"""Read an evaluation task from disk: clip_benchmark's WebDataset layout, unchanged.

    wds_<key with "/" as "-">/
        classnames.txt                          one class per line; the line number, from 0, is the label
        zeroshot_classification_templates.txt   one per line, "{c}" stands for the class name
        dataset_type.txt                        "retrieval"; absent means classification
        test/nshards.txt, test/0.tar, ...       <key>.webp|png|jpg|jpeg + <key>.cls (label) or <key>.txt (captions)

Everything around the images is checked when a task is opened, so that a suite with a broken folder fails before a model
is loaded. Images are decoded as in clip_benchmark (PIL, RGB); an image that cannot be decoded stops
the evaluation, because a metric over the images that happened to be readable is not the metric.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipdr.data.shards import read_shard
from clipdr.errors import UserError

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")
ANNOTATION = {"classification": "cls", "retrieval": "txt"}


@dataclass(frozen=True)
class Task:
    """One task of a suite, with its class names and templates (empty for retrieval) and its shards in order."""

    key: str
    title: str
    kind: str
    main_metric: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    shards: tuple[Path, ...]


def open_task(tasks_dir: Path, entry: dict) -> Task:
    """Open the folder of a suite entry; no image is read. Raises UserError naming the file that is missing or wrong."""
    folder = Path(tasks_dir) / f"wds_{entry['key'].replace('/', '-')}"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such task folder for {entry['key']}; build the tasks of this pool first")
    _check_type(folder, entry)
    classes = templates = ()
    if entry["kind"] == "classification":
        classes = _lines(folder / "classnames.txt")
        templates = _lines(folder / "zeroshot_classification_templates.txt")
        _check_templates(folder / "zeroshot_classification_templates.txt", templates)
    named = {field: entry[field] for field in ("key", "title", "kind", "main_metric")}
    return Task(**named, classes=classes, templates=templates, shards=_shards(folder))


def samples(task: Task) -> Iterator[tuple[tuple[bytes, str], int | list[str]]]:
    """Yield ((encoded image, its name for errors), label in [0, C) or, for retrieval, list of captions).

    Raises UserError naming the shard and the sample: label out of range, missing member.
    """
    annotation = _label if task.kind == "classification" else _captions
    number = 0
    for shard in task.shards:
        for sample in read_shard(shard):
            where = f"{shard}: sample {sample['__key__']}"
            yield (_image(sample, where), where), annotation(sample, where, task)
            number += 1
    if number == 0:
        raise UserError(f"{task.shards[0].parent}: the shards hold no samples; build the task again")


def decode(data: bytes, where: str):
    """A PIL RGB image; alpha is dropped. Raises UserError naming `where` for bytes that are no image or a cut one."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} cannot be decoded as an image ({type(error).__name__}); replace it") from error


def _check_type(folder: Path, entry: dict) -> None:
    path = folder / "dataset_type.txt"
    found = path.read_text(encoding="utf-8").strip().lower() if path.exists() else "classification"
    if found != entry["kind"]:
        raise UserError(
            f"{path}: task {entry['key']} is of type {found} but the suite says {entry['kind']}; correct one"
        )


def _lines(path: Path) -> tuple[str, ...]:
    if not path.exists():
        raise UserError(f"{path}: missing; a classification task needs it, one entry per line")
    lines = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    if not lines or not all(lines):
        raise UserError(f"{path}: empty file or blank line; write one entry per line")
    return lines


def _check_templates(path: Path, templates: tuple[str, ...]) -> None:
    for template in templates:
        try:
            filled = template.format(c="clipdr")
        except (KeyError, ValueError, IndexError):
            filled = ""
        if "clipdr" not in filled:
            raise UserError(f"{path}: template {template!r} must hold {{c}} and no other braces")


def _shards(folder: Path) -> tuple[Path, ...]:
    path = folder / "test" / "nshards.txt"
    if not path.exists():
        raise UserError(f"{path}: missing; write the number of shards into it")
    text = path.read_text(encoding="utf-8").strip()
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"{path}: holds {text!r}; write the number of shards, at least 1")
    shards = tuple(path.parent / f"{i}.tar" for i in range(int(text)))
    for shard in shards:
        if not shard.exists():
            raise UserError(f"{shard}: missing, but {path.name} says {text} shards; build the task again")
    return shards


def _image(sample: dict, where: str) -> bytes:
    data = next((sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample), None)
    if data is None:
        raise UserError(f"{where} has no image; expected .{', .'.join(IMAGE_EXTENSIONS)}")
    return data


def _annotation(sample: dict, where: str, kind: str) -> str:
    extension = ANNOTATION[kind]
    if extension not in sample:
        raise UserError(f"{where} has no .{extension}; a {kind} task needs one per image")
    return sample[extension].decode("utf-8")


def _label(sample: dict, where: str, task: Task) -> int:
    text = _annotation(sample, where, task.kind).strip()
    if not text.isdecimal() or int(text) >= len(task.classes):
        raise UserError(f"{where} has label {text!r}, out of range: classnames.txt has {len(task.classes)} lines")
    return int(text)


def _captions(sample: dict, where: str, task: Task) -> list[str]:
    captions = _annotation(sample, where, task.kind).splitlines()
    if not captions:
        raise UserError(f"{where} has an empty .txt; write at least one caption")
    return captions
