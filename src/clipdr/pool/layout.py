"""How pools and tasks lie on disk, whatever they are made of.

A pool is a folder of shards `00000.tar`, … whose samples are `<uid>.<image>`, `.txt` (the caption) and `.json` (all
texts, sha256, …), beside `index.parquet` with one row per sample. A task has clip_benchmark's layout, see
`clipdr.evaluate.tasks`.
"""

import io
import json
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import pandas as pd

from clipdr.data.shards import shard_name, write_shard

FORMATS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # PIL's names, and extensions of the layout


def write_pool(folder: Path, samples: Iterable[tuple[dict, dict[str, bytes]]], shard_size: int) -> None:
    """Write samples, in their order and one after the other, and the index.

    Args:
        samples: of each its record, `uid`, `caption`, `texts`, `sha256`, `label` (None where there is none) and
            whatever else is known; and its image as {extension: encoded bytes}.
        shard_size: samples of a shard.
    """
    records = []
    rest = iter(samples)
    for number in count():
        if not (members := list(islice(rest, shard_size))):
            break
        write_shard(folder / shard_name(number), (_sample(record, image) for record, image in members))
        records += [{**record, "shard": shard_name(number)} for record, _ in members]
    pd.DataFrame(records).to_parquet(folder / "index.parquet", index=False)


def _sample(record: dict, image: dict[str, bytes]) -> dict:
    details = {key: value for key, value in record.items() if key not in ("caption", "path")}
    return {
        "__key__": record["uid"],
        **image,
        "txt": record["caption"].encode(),
        "json": json.dumps(details, sort_keys=True).encode(),
    }


def write_classification(
    folder: Path, samples: Iterable[dict], classes: list[str], templates: list[str], layout: str = "classification"
) -> None:
    """A task of images `{extension: bytes}` with `cls`, the number of the class as text, or what the layout has."""
    files = {
        "classnames.txt": "".join(f"{name}\n" for name in classes),
        "zeroshot_classification_templates.txt": "".join(f"{line}\n" for line in templates),
    }
    write_task(folder, samples, layout, files)


def write_task(folder: Path, samples: Iterable[dict], layout: str, files: dict[str, str] | None = None) -> None:
    """A task of samples `{extension: bytes}`, which are numbered where they have no `__key__`.

    Args:
        layout: what clip_benchmark calls the type of the dataset.
        files: name -> text of what lies beside the images.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if layout != "classification":
        (folder / "dataset_type.txt").write_text(f"{layout}\n")
    for name, text in (files or {}).items():
        (folder / name).write_text(text, encoding="utf-8")
    write_split(folder / "test", samples)


def write_split(folder: Path, samples: Iterable[dict]) -> None:
    """The images of a task, or those that a kind of task trains on, as one shard."""
    written = 0

    def counted() -> Iterator[dict]:
        nonlocal written
        for written, sample in enumerate(samples, 1):
            yield {"__key__": f"s{written - 1:07d}", **sample}

    folder.mkdir()
    write_shard(folder / "0.tar", counted())
    (folder / "nshards.txt").write_text("1\n")
    (folder / "size.txt").write_text(f"{written}\n")


def as_webp(picture) -> dict[str, bytes]:
    """The member of a sample that holds a PIL picture, without loss."""
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True, method=2)  # larger ones take long, and save nothing
    return {"webp": buffer.getvalue()}
