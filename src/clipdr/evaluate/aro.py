"""ARO (arXiv 2210.01936) as task folders of kind `choice`: `python -m clipdr.evaluate aro`.

Two forms are read. The authors' own: a JSON list beside a folder of images; for the order of words it lists images with
their captions, and the wrong orders are made here (`clipdr.evaluate.order`). And copies in parquet that bring images
and frozen captions. Images of relations and attributes are cut to the box around both things before anything else, as
the authors do, and stored without loss.

What a folder asks is told by the hash of its captions, which a suite can demand as `options_sha256`.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipdr.errors import UserError
from clipdr.evaluate.kinds.choice import options_hash
from clipdr.evaluate.order import negatives, written
from clipdr.evaluate.tasks import decode
from clipdr.files import atomic_dir, reason, sha256
from clipdr.pool.layout import FORMATS, as_webp, write_task
from clipdr.progress import log

HARD = ("hard_text_1", "hard_text_2", "hard_text_3", "hard_text_4")
BATCH = 64  # rows of a parquet file that are in memory at a time


@dataclass(frozen=True)
class Case:
    """A picture, the box that it is cut to (left, top, right, bottom in px), its captions, the true one first, a group.

    An image may have several.
    """

    image: bytes
    box: tuple[int, int, int, int] | None
    options: list[str]
    group: str | None


def build(source: Path, images: Path | None, seed: int, output: Path) -> None:
    """Write a task folder.

    Args:
        source: `visual_genome_relation.json`, `visual_genome_attribution.json` or a list of images with captions; or a
            .parquet file, or a folder of them.
        images: folder of the images that a JSON file names; None for parquet.
        seed: of wrong orders that are made here.
        output: the task folder.

    Raises:
        UserError: a file is missing, or is not of a form that is known.
    """
    cases: dict[str, list[dict]] = {}
    for case in _cases(source, images, seed):  # read twice: captions of an image need not stand together
        cases.setdefault(_key(case), []).append({"options": case.options, "group": case.group})
    if not cases:
        raise UserError(f"{source} holds no cases; get the file again")

    def samples() -> Iterator[dict]:
        left = dict(cases)
        for case in _cases(source, images, seed):
            if own := left.pop(_key(case), None):
                yield {**_picture(case, str(source)), "cases.json": json.dumps(own).encode()}

    with atomic_dir(output) as folder:
        write_task(folder, samples(), "choice")
    asked = [case for own in cases.values() for case in own]
    log.info("%s: %d images, %d cases, options_sha256 %s", output, len(cases), len(asked), options_hash(asked))


def _key(case: Case) -> str:
    return f"{sha256(case.image)}:{case.box}"


def _picture(case: Case, where: str) -> dict[str, bytes]:
    if case.box:
        return as_webp(decode(case.image, where).crop(case.box))
    from PIL import Image

    return {FORMATS[Image.open(io.BytesIO(case.image)).format]: case.image}


def _cases(source: Path, images: Path | None, seed: int) -> Iterator[Case]:
    try:
        if source.suffix == ".json":
            yield from _of_json(source, images or source.parent, seed)
        else:
            yield from _of_parquet(source)
    except (OSError, KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(
            f"{source} cannot be read ({reason(error)!r}); name a file of ARO, or a folder of its parquet files"
        ) from None


def _of_json(source: Path, images: Path, seed: int) -> Iterator[Case]:
    for entry in json.loads(source.read_text(encoding="utf-8")):
        if "true_caption" in entry:
            left, top, width, height = (int(entry[f"bbox_{side}"]) for side in "xywh")
            options = [entry["true_caption"], entry["false_caption"]]
            yield Case(
                (images / entry["image_path"]).read_bytes(),
                (left, top, left + width, top + height),
                options,
                _group(entry),
            )
        else:
            captions = entry["caption"]
            image = (images / entry["image"]).read_bytes()
            for caption, wrong in zip(captions, negatives(captions, seed), strict=True):
                yield Case(image, None, [written(caption), *wrong], None)


def _of_parquet(source: Path) -> Iterator[Case]:
    import pyarrow.parquet as pq

    for path in sorted(source.rglob("*.parquet")) if source.is_dir() else [source]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                yield from map(_of_row, batch.to_pylist())


def _of_row(row: dict) -> Case:
    if "true_caption" in row:
        left, top, width, height = (int(row["bbox"][side]) for side in ("x", "y", "w", "h"))
        options = [row["true_caption"], row["false_caption"]]
        return Case(_bytes(row["image"]), (left, top, left + width, top + height), options, _group(row))
    return Case(_bytes(row["images"]), None, [row["correct_caption"], *(row[name] for name in HARD)], None)


def _bytes(cell: dict | list) -> bytes:
    """The encoded image of a cell, which may be a list of one."""
    return (cell[0] if isinstance(cell, list) else cell)["bytes"]


def _group(entry: dict) -> str:
    return entry["relation_name"] if "relation_name" in entry else "_".join(entry["attributes"][:2])
