"""How pools and tasks lie on disk, whatever they are made of.

A pool is a folder of shards `00000.tar`, … whose samples are `<uid>.<image>`, `.txt` (the caption) and `.json` (all
texts, sha256, …), beside `index.parquet` with one row per sample. A task has clip_benchmark's layout, see
`clipdr.evaluate.tasks`.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path

import pandas as pd

from clipdr.data.shards import shard_name, write_shard


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


def write_classification(folder: Path, samples: Iterable[dict], classes: list[str], templates: list[str]) -> None:
    """A task of images `{extension: bytes}` with `cls`, the number of the class as text."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    (folder / "zeroshot_classification_templates.txt").write_text(
        "".join(f"{line}\n" for line in templates), encoding="utf-8"
    )
    _write_test(folder, samples)


def write_retrieval(folder: Path, samples: Iterable[dict]) -> None:
    """A task of images `{extension: bytes}` with `txt`, one caption per line."""
    (folder / "test").mkdir(parents=True)
    (folder / "dataset_type.txt").write_text("retrieval\n")
    _write_test(folder, samples)


def _write_test(folder: Path, samples: Iterable[dict]) -> None:
    written = 0

    def counted() -> Iterator[dict]:
        nonlocal written
        for written, sample in enumerate(samples, 1):
            yield {"__key__": f"s{written - 1:07d}", **sample}

    write_shard(folder / "test" / "0.tar", counted())
    (folder / "test" / "nshards.txt").write_text("1\n")
    (folder / "test" / "size.txt").write_text(f"{written}\n")
