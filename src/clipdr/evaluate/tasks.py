"""Read an evaluation task from disk: clip_benchmark's WebDataset layout.

    wds_<key with "/" as "-">/
        classnames.txt                          one class per line; the line number, from 0, is the label
        zeroshot_classification_templates.txt   one per line, "{c}" stands for the class name
        dataset_type.txt                        "retrieval", "multilabel"; absent means classification
        test/nshards.txt, test/0.tar, ...       <key>.webp|png|jpg|jpeg + what the kind of the task reads beside it
        test/size.txt                           number of samples; our own, which others do not read
        train/...                               the same, of kinds that train on some images

Everything around the images is checked when a task is opened, so that a suite with a broken folder fails before a model
is loaded. An image that cannot be decoded stops the evaluation, because a metric over the images that happened to be
readable is not the metric; or it is skipped and counted, where the suite's entry says `bad_images: skip`.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipdr.data.shards import read_shard
from clipdr.errors import UserError

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")


@dataclass(frozen=True)
class Images:
    """The shards of a task, in order, how many samples they hold if that is known, and what bad images do."""

    shards: tuple[Path, ...]
    size: int | None
    skip: bool


def folder_name(key: str) -> str:
    """What the folder of a task is called."""
    return f"wds_{key.replace('/', '-')}"


def folder_of(entry: dict) -> str:
    """What the folder of a suite's entry is called: its own, or that of the task whose images it reads."""
    return folder_name(entry.get("images_of", entry["key"]))


def task_folder(tasks_dir: Path, entry: dict) -> Path:
    """The folder of a suite's entry. Raises UserError if there is none."""
    folder = Path(tasks_dir) / folder_of(entry)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such task folder for {entry['key']}; build or download the tasks first")
    return folder


def present(suite: dict, tasks_dir: Path) -> dict:
    """The suite with the tasks that have a folder."""
    found = [entry for entry in suite["tasks"] if (Path(tasks_dir) / folder_of(entry)).is_dir()]
    return {**suite, "tasks": found}


def open_images(folder: Path, entry: dict, layout: str, split: str = "test") -> Images:
    """The images of a task folder; none is read.

    Args:
        layout: what clip_benchmark calls the type of the dataset.
        split: subfolder of the shards; a suite's `size` is that of `test`.

    Raises:
        UserError: naming the file that is missing or wrong.
    """
    _check_type(folder, entry, layout)
    shards, path = _shards(folder / split), folder / split / "size.txt"
    size = entry.get("size") if split == "test" else None
    if path.exists():
        found = _number(path, "the number of samples")
        if size not in (None, found):
            raise UserError(f"{path}: {found}, but the suite says that {entry['key']} has {size} images; correct one")
        size = found
    return Images(shards, size, entry.get("bad_images") == "skip")


def read_images(images: Images) -> Iterator[tuple[dict, bytes, str]]:
    """Yield (members of the sample, encoded image, its name for errors), in the shards' order.

    Raises UserError naming the shard and the sample for a missing member, and at the end for another number of samples.
    """
    number = 0
    for shard in images.shards:
        for sample in read_shard(shard):
            where = f"{shard}: sample {sample['__key__']}"
            yield sample, _image(sample, where), where
            number += 1
    folder = images.shards[0].parent
    if number == 0:
        raise UserError(f"{folder}: the shards hold no samples; build the task again")
    if images.size not in (None, number):
        raise UserError(
            f"{folder}: the shards hold {number} samples, not {images.size}; build or download the task again"
        )


def annotation(sample: dict, where: str, extension: str) -> str:
    """What stands beside an image. Raises UserError if nothing does, or something that is no text."""
    if extension not in sample:
        raise UserError(f"{where} has no .{extension}; this kind of task needs one per image")
    try:
        return sample[extension].decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{where}: .{extension} is not UTF-8; build or download the task again") from None


def decode(data: bytes, where: str):
    """A PIL RGB image; alpha is dropped. Raises UserError naming `where` for bytes that are no image or a cut one."""
    from PIL import Image

    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} cannot be decoded as an image ({type(error).__name__}); replace it") from error


def lines(path: Path) -> tuple[str, ...]:
    """The lines of a file. Raises UserError if it is missing or empty, or has a blank line."""
    if not path.exists():
        raise UserError(f"{path}: missing; a classification task needs it, one entry per line")
    found = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    if not found or not all(found):
        raise UserError(f"{path}: empty file or blank line; write one entry per line")
    return found


def _check_type(folder: Path, entry: dict, layout: str) -> None:
    path = folder / "dataset_type.txt"
    found = path.read_text(encoding="utf-8").strip().lower() if path.exists() else "classification"
    if found != layout:
        raise UserError(
            f"{path}: task {entry['key']} is of type {found}, but kind {entry['kind']} of the suite reads {layout}; "
            "correct one"
        )


def _shards(folder: Path) -> tuple[Path, ...]:
    path = folder / "nshards.txt"
    number = _number(path, "the number of shards, at least 1")
    shards = tuple(path.parent / f"{i}.tar" for i in range(number))
    for shard in shards:
        if not shard.exists():
            raise UserError(f"{shard}: missing, but {path.name} says {number} shards; build or download the task again")
    if (extra := path.parent / f"{number}.tar").exists():
        raise UserError(f"{extra}: one shard more than {path.name} says; correct it, or build the task again")
    return shards


def _number(path: Path, what: str) -> int:
    if not path.exists():
        raise UserError(f"{path}: missing; write {what} into it")
    text = path.read_text(encoding="utf-8").strip()
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"{path}: holds {text!r}; write {what}")
    return int(text)


def _image(sample: dict, where: str) -> bytes:
    data = next((sample[extension] for extension in IMAGE_EXTENSIONS if extension in sample), None)
    if data is None:
        raise UserError(f"{where} has no image; expected .{', .'.join(IMAGE_EXTENSIONS)}")
    return data
