"""Join published reinforcements with images and captions: apple/DataCompDR-12M and its like, which have neither.

What comes of it is a reinforced dataset, and a chunk of a pool of kind `datacomp` too: it has an index, and what stages
that make captions or embeddings anew read of a sample.

A shard of reinforcements (`syn.json`, `paug.json`, `npz` or `pth.gz`, `url.txt`, `json` per uid) is joined with the
images that were fetched for it: `<images>/<shard>.tar`, or any tar files in the folder `<images>/<shard>/`, as
img2dataset writes them. An image belongs to the uid in its `json`, or else to that of its name. Its caption is its
`txt`, or comes from a table.

What cannot be trained on is left out, counted and listed: images that are not there or damaged, whose bytes are not
those that the teachers saw, or that were resized, so that the stored crops no longer fit. Only the names of a shard's
members are held in memory, and the captions of a table.
"""

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clipdr.data.manifest import MANIFEST, write_manifest
from clipdr.data.samples import DAMAGE, as_json, decode_image, read_augmentations
from clipdr.data.shards import IMAGES, read_shard, write_shard
from clipdr.errors import UserError
from clipdr.files import reason, resumable_dir, sha256, sha256_file, stamps
from clipdr.fingerprint import own
from clipdr.progress import log, unfinished

SKIPPED = "skipped.csv"
INDEX, COLUMNS = "index.parquet", ["uid", "shard", "sha256", "caption", "texts", "label"]
EXTENSIONS = {extension: extension for extension in IMAGES} | {"jpeg": "jpg"}  # of a member -> in the store
REINFORCEMENTS = ("syn.json", "paug.json", "pth.gz", "npz")


class Skip(Exception):
    """Why a sample cannot be trained on, in words that repeat, so that they can be counted."""


@dataclass(frozen=True)
class Place:
    """Where a member's bytes lie in a tar file."""

    file: Path
    offset: int
    size: int

    def read(self) -> bytes:
        with open(self.file, "rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


def join(reinforcements: Path, images: Path, captions: Path | None, settings: dict, output: Path) -> None:
    """Write a reinforced dataset with an index, shard by shard; shards finished before a kill are kept.

    Args:
        reinforcements: folder of shards.
        images: folder of the images of each shard.
        captions: parquet with `uid` and `text`; None if the images bring theirs.
        settings: `bad_samples`, `skip` or `fail`; and, unless the shards have nothing but addresses, `teachers` (name,
            width and logit_scale of each, in the order of their slices) and `augmentation` of the stored views.
        output: folder of shards, manifest.json, index.parquet, and skipped.csv (shard, uid, reason).

    Raises:
        UserError: there are no shards, a file cannot be read, or a sample is bad and `bad_samples` says `fail`.
    """
    shards = sorted(path.name for path in reinforcements.glob("*.tar"))
    if not shards:
        raise UserError(f"{reinforcements} holds no shards; fetch the reinforcements first")
    texts = None if captions is None else dict(pd.read_parquet(captions)[["uid", "text"]].itertuples(index=False))
    made_of = [stamps(reinforcements, shards), None if captions is None else sha256_file(captions)]
    inputs = [own(__name__), settings, *made_of]
    with resumable_dir(output, sha256(json.dumps(inputs, sort_keys=True).encode())) as folder:
        for shard in unfinished(shards, output.name, lambda shard: folder / _listed(shard)):
            skipped: list[tuple[str, str, str]] = []
            lines: list[dict] = []
            samples = _joined(reinforcements / shard, _images_of(images, shard), texts, settings, skipped)
            write_shard(folder / f"{shard}.partial", _indexed(samples, shard, lines))
            (folder / f"{shard}.partial").replace(folder / shard)
            pd.DataFrame(lines, columns=COLUMNS).to_parquet(folder / _index(shard), index=False)
            pd.DataFrame(skipped, columns=["shard", "uid", "reason"]).to_csv(folder / _listed(shard), index=False)
        _finish(folder, shards, settings)


def _indexed(samples: Iterator[dict], shard: str, lines: list[dict]) -> Iterator[dict]:
    """The samples, each with a line in the index."""
    for sample in samples:
        details = json.loads(sample["json"])
        lines.append({**details, "caption": sample["txt"].decode(), "shard": shard})
        yield sample


def _index(shard: str) -> str:
    return f"{shard.removesuffix('.tar')}.index.parquet"


def _listed(shard: str) -> str:
    """What was left out of a shard; written after it, and so a sign that it is whole."""
    return f"{shard.removesuffix('.tar')}.skipped.csv"


def _finish(folder: Path, shards: list[str], settings: dict) -> None:
    lists = [pd.read_csv(folder / _listed(shard), dtype=str) for shard in shards]
    skipped = pd.concat(lists, ignore_index=True)
    index = pd.concat([pd.read_parquet(folder / _index(shard)) for shard in shards], ignore_index=True)
    index.to_parquet(folder / INDEX, index=False)
    numbers = index.groupby("shard").size().reindex(shards, fill_value=0).to_dict()
    manifest = {
        "in": sum(numbers.values()) + len(skipped),
        "samples": sum(numbers.values()),
        "skipped": dict(sorted(Counter(skipped["reason"]).items())),
        "shards": {shard: number for shard, number in numbers.items() if number},
        "augmentation": settings.get("augmentation"),
        "embeddings": settings.get("embeddings", "bfloat16"),
        "teachers": settings.get("teachers", []),
    }
    skipped.to_csv(folder / SKIPPED, index=False)
    for shard in shards:
        (folder / _listed(shard)).unlink()
        (folder / _index(shard)).unlink()
        if not numbers[shard]:
            (folder / shard).unlink()
    write_manifest(manifest, folder / MANIFEST)
    log.info("%d of %d samples joined, %d skipped", manifest["samples"], manifest["in"], len(skipped))
    for why, number in manifest["skipped"].items():
        log.warning("%d skipped: %s", number, why)


def _joined(
    path: Path, images: Mapping[str, dict[str, Place]], texts: Mapping[str, str] | None, settings: dict, skipped: list
) -> Iterator[dict]:
    seen: set[str] = set()
    needed = {"json"} | ({"syn.json", "paug.json"} if settings.get("teachers") else set())
    for members in read_shard(path):
        uid = members["__key__"]
        try:
            if uid in seen:
                raise Skip("the uid stands twice")
            seen.add(uid)
            yield _sample(members, images.get(uid), texts, needed)
        except Skip as why:
            if settings["bad_samples"] == "fail":
                raise UserError(f"{path}: sample {uid}: {why}; mend it, or set bad_samples to skip") from None
            skipped.append((path.name, uid, str(why)))


def _sample(members: dict, places: dict[str, Place] | None, texts: Mapping[str, str] | None, needed: set[str]) -> dict:
    """The joined sample. Raises Skip."""
    uid = members["__key__"]
    if missing := needed - members.keys():
        raise Skip(f"the reinforcements lack {min(missing)}")
    extension = next((name for name in EXTENSIONS if name in (places or {})), None)
    if extension is None:
        raise Skip("there is no image")
    image = places[extension].read()
    caption = _caption(uid, places, texts)
    sample = {"__key__": uid, EXTENSIONS[extension]: image, "txt": caption.encode()}
    try:
        decoded = decode_image(sample)
    except UserError:
        raise Skip("the image is damaged") from None
    try:
        said = dict(json.loads(members["json"]))
        digest = sha256(image)
        # Addresses alone may come without.
        expected = said["sha256"] if "sha256" in said or needed > {"json"} else digest
        entries = read_augmentations(members) if "paug.json" in members else []
        fits = all(
            top >= 0 and top + height <= decoded.height and left >= 0 and left + width <= decoded.width
            for (top, left, height, width), _ in entries
        )
    except DAMAGE:
        raise Skip("the reinforcements are damaged") from None
    if not fits:
        raise Skip("the image was resized: a stored crop does not fit")
    if digest != expected:
        raise Skip("the image was changed: it has another sha256")
    details = {"uid": uid, "sha256": digest, "texts": [caption], "label": None}
    return {**sample, **{name: members[name] for name in REINFORCEMENTS if name in members}, "json": as_json(details)}


def _caption(uid: str, places: dict[str, Place], texts: Mapping[str, str] | None) -> str:
    try:
        text = texts.get(uid, "") if texts is not None else places["txt"].read().decode()
    except (KeyError, UnicodeDecodeError):
        text = ""
    if not text.strip():
        raise Skip("there is no caption")
    return text


def _images_of(images: Path, shard: str) -> dict[str, dict[str, Place]]:
    """uid -> extension -> place, of all images that were fetched for a shard."""
    stem = shard.removesuffix(".tar")
    files = [images / shard] if (images / shard).is_file() else sorted((images / stem).glob("*.tar"))
    found: dict[str, dict[str, Place]] = {}
    for file in files:
        by_key: dict[str, dict[str, Place]] = {}
        try:
            with tarfile.open(file) as tar:
                for member in tar:
                    key, _, extension = Path(member.name).name.partition(".")
                    if member.isfile():
                        by_key.setdefault(key, {})[extension] = Place(file, member.offset_data, member.size)
        except (OSError, tarfile.TarError) as error:
            raise UserError(f"{file} cannot be read ({reason(error)}); fetch the images of {shard} again") from None
        for key, places in by_key.items():
            found.setdefault(_uid(key, places), places)
    return found


def _uid(key: str, places: dict[str, Place]) -> str:
    """The uid in the sample's `json`, where img2dataset puts it, or else the name of its members."""
    try:
        return str(json.loads(places["json"].read())["uid"])
    except (KeyError, ValueError, TypeError):
        return key
