"""A pool of kind `folder`: your own images with captions, from a table or from WebDataset shards.

A table (.csv, .tsv, .jsonl or .parquet) has a line per pair: the path of an image, from the table's folder on, and a
caption; lines of the same image are its several captions. Images are told apart by their bytes, so that a copy under
another name counts once, and nothing that is held out is trained on. What they are made of is copied as it is.

Images are read twice, to be checked and to be written, and only texts stay in memory.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clipdr.data.shards import read_shard
from clipdr.errors import UserError, listed
from clipdr.files import atomic_dir, reason, sha256
from clipdr.pool.layout import FORMATS, write_classification, write_pool, write_task
from clipdr.progress import log, progress

COLUMNS = {"image": "image", "caption": "caption", "label": "label"}
TEMPLATES = ["a photo of a {c}."]
EXTENSIONS = ("jpg", "jpeg", "png", "webp")
READERS = {
    ".csv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False),
    ".tsv": lambda path: pd.read_csv(path, dtype=str, keep_default_na=False, sep="\t"),
    ".jsonl": lambda path: pd.read_json(path, lines=True, dtype=False).fillna(""),
    ".parquet": lambda path: pd.read_parquet(path).fillna(""),
}


@dataclass(frozen=True)
class Found:
    """An image of the source: where it stands, its bytes (None if the file is missing), its captions and label.

    A caption is None if its bytes are no text.
    """

    where: str
    image: bytes | None
    texts: list[str | None]
    label: str | None


def build(source: Path, pool: dict, pool_dir: Path, tasks_dir: Path) -> None:
    """Write the training pool and the held-out tasks.

    Args:
        source: the table, or the folder of shards.
        pool: the scale's `pool` section, see workflow/schemas/pools/folder.schema.yaml.
        pool_dir: receives shards and index, see `clipdr.pool.layout`; and `skipped.csv` (image, reason), if any were.
        tasks_dir: receives `wds_own-retrieval`, and `wds_own-val` if images have labels.

    Raises:
        UserError: the source cannot be read, an image or caption is bad and `bad_samples` says `fail`, or no more
            images are left than are to be held out.
    """
    records, skipped = _check(_scan(source, pool), pool["bad_samples"])
    if len(records) <= pool["held_out"]:
        raise UserError(
            f"{source} has {len(records)} different images that can be used, of which pool.held_out is to take "
            f"{pool['held_out']}; lower it, or give more images"
        )
    ranked = sorted(records, key=lambda where: sha256(f"{pool['seed']}:{records[where]['uid']}".encode()))
    held = set(ranked[: pool["held_out"]])
    kept: dict[str, tuple[dict, dict]] = {}  # what is held out

    def trained() -> Iterator[tuple[dict, dict[str, bytes]]]:
        for found in _scan(source, pool):
            if record := records.get(found.where):
                if found.image is None or sha256(found.image) != record["sha256"]:
                    raise UserError(f"{found.where} changed while the pool was made; give the same command again")
                sample = record, {_extension(found.image): found.image}
                if found.where in held:
                    kept[found.where] = sample
                else:
                    yield sample

    with atomic_dir(pool_dir) as partial:
        write_pool(partial, progress(trained(), "images", len(records) - len(held)), pool["shard_size"])
        if skipped:
            pd.DataFrame(skipped, columns=["image", "reason"]).to_csv(partial / "skipped.csv", index=False)
        with atomic_dir(tasks_dir) as tasks:
            _write_tasks(tasks, [kept[where] for where in ranked[: pool["held_out"]]], records, pool)
    log.info("%d images in the pool, %d held out, %d skipped", len(records) - len(held), len(held), len(skipped))
    for why, number in Counter(why for _, why in skipped).items():
        log.warning("%d skipped: %s", number, why)


def _scan(source: Path, pool: Mapping) -> Iterator[Found]:
    """All images of the source, the same in the same order each time."""
    if source.is_dir():
        yield from _scan_shards(source)
    else:
        yield from _scan_table(source, {**COLUMNS, **pool.get("columns", {})}, "label" in pool.get("columns", {}))


def _scan_shards(folder: Path) -> Iterator[Found]:
    shards = sorted(folder.glob("*.tar"))
    if not shards:
        raise UserError(f"{folder} holds no *.tar; name a folder of WebDataset shards, or a table, as pool.source")
    for shard in shards:
        for sample in read_shard(shard):
            image = next((sample[name] for name in EXTENSIONS if name in sample), None)
            yield Found(f"{shard}: {sample['__key__']}", image, [_text(sample.get("txt", b""))], None)


def _text(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _scan_table(path: Path, columns: Mapping[str, str], labelled: bool) -> Iterator[Found]:
    if path.suffix not in READERS:
        raise UserError(f"{path} is no {listed(READERS)} and no folder of shards; name one of them as pool.source")
    try:
        table = READERS[path.suffix](path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a table ({reason(error)}); correct it") from None
    if missing := [columns[key] for key in ("image", "caption", *(["label"] * labelled)) if columns[key] not in table]:
        raise UserError(
            f"{path} has no column {missing[0]!r}; it has {listed(table.columns)}: say in pool.columns which is meant"
        )
    labels = table[columns["label"]].astype(str) if columns["label"] in table else [None] * len(table)
    lines = zip(table[columns["image"]].astype(str), table[columns["caption"]].astype(str), labels, strict=True)
    texts: dict[tuple[str, str | None], list[str]] = {}
    for image, caption, label in lines:
        texts.setdefault((image, label), []).append(caption)
    # By a hash: tables are often sorted, and shards should be mixtures.
    for image, label in sorted(texts, key=lambda key: sha256(key[0].encode())):
        file = path.parent / image
        yield Found(str(file), file.read_bytes() if file.is_file() else None, texts[image, label], label)


def _check(found: Iterator[Found], bad_samples: str) -> tuple[dict[str, dict], list[tuple[str, str]]]:
    """(where -> record) of the images that can be used, and (where, reason) of the others."""
    records: dict[str, dict] = {}
    by_hash: dict[str, dict] = {}
    skipped = []
    for one in progress(found, "images checked", None):
        texts = [text and " ".join(text.split()) for text in one.texts]
        if why := _fault(one, texts):
            if bad_samples == "fail":
                raise UserError(f"{one.where}: {why}; mend it, or set pool.bad_samples to skip")
            skipped.append((one.where, why))
            continue
        digest = sha256(one.image)
        if twin := by_hash.get(digest):
            if twin["label"] != one.label:
                raise UserError(
                    f"{one.where} is the same picture as {twin['path']}, but has label {one.label!r} instead of "
                    f"{twin['label']!r}; take one out"
                )
            twin["texts"] += [text for text in texts if text not in twin["texts"]]
            continue
        texts = list(dict.fromkeys(texts))
        record = {"uid": digest[:32], "caption": texts[0], "texts": texts, "sha256": digest, "label": one.label}
        records[one.where] = by_hash[digest] = {**record, "path": one.where}
    return records, skipped


def _fault(found: Found, texts: list[str | None]) -> str | None:
    """What is wrong with an image or its captions, in words that repeat, so that they can be counted."""
    if found.image is None:
        return "the image is missing"
    if not found.image:
        return "the image is empty"
    if _extension(found.image) is None:
        return f"the image is none of {listed(FORMATS)}"
    if not _decodes(found.image):
        return "the image is damaged"
    if None in texts:
        return "a caption is not UTF-8"
    if not all(texts):
        return "a caption is empty"
    if found.label == "":
        return "the label is empty"
    return None


def _extension(image: bytes) -> str | None:
    """The extension that fits the bytes; None if the layout has none for them."""
    from PIL import Image

    try:
        return FORMATS.get(Image.open(io.BytesIO(image)).format)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


def _decodes(image: bytes) -> bool:
    from PIL import Image

    try:
        Image.open(io.BytesIO(image)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _write_tasks(folder: Path, samples: list[tuple[dict, dict]], records: Mapping[str, dict], pool: Mapping) -> None:
    captioned = ({**image, "txt": "\n".join(r["texts"]).encode()} for r, image in samples)
    write_task(folder / "wds_own-retrieval", captioned, "retrieval")
    classes = sorted({record["label"] for record in records.values()} - {None})
    if classes:
        labelled = ({**image, "cls": str(classes.index(r["label"])).encode()} for r, image in samples)
        write_classification(folder / "wds_own-val", labelled, classes, pool.get("templates", TEMPLATES))
