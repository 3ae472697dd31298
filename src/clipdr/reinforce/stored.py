"""Captions and reinforcements that the pool's samples bring with them, as `clipdr.reinforce.join` put them there.

They are taken over for the chosen samples, in the form in which other stages would have made them.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from clipdr.data.manifest import MANIFEST, write_manifest
from clipdr.data.samples import check_image, decode, read_texts, slices
from clipdr.data.shards import captions_of, write_shard
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import atomic_file, resumable_dir, sha256
from clipdr.fingerprint import own
from clipdr.progress import unfinished


def take_captions(pool: Path, subset: pd.DataFrame, settings: dict, output: Path) -> None:
    """Write the stored captions as `clipdr.reinforce.captions` writes those that it draws.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index.
        settings: `number` of captions that each image has.
        output: folder of `<shard>.parquet` with `uid` and `syn` (list of str), and of manifest.json.

    Raises:
        UserError: a sample is not in the pool, or has another number of captions.
    """

    def write(path: Path, samples: Iterator[dict]) -> None:
        rows = [(sample["__key__"], _captions(sample, settings["number"])) for sample in samples]
        pd.DataFrame(rows, columns=["uid", "syn"]).to_parquet(path, index=False)

    shards = subset.groupby("shard", sort=True).size()
    manifest = {
        "samples": len(subset),
        "shards": {captions_of(shard): int(number) for shard, number in shards.items()},
        "captions": len(subset) * settings["number"],
        "settings": settings,
        "code": own(__name__),
    }
    _take(pool, subset, manifest, captions_of, write, output)


def take_reinforcements(pool: Path, subset: pd.DataFrame, settings: dict, output: Path) -> None:
    """Write reinforced shards of the stored views, captions and embeddings, whose members are copied byte by byte.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index.
        settings: `teachers` (name, width, logit_scale, in the order of their slices) and `augmentation` of the views.
        output: folder of the reinforced dataset.

    Raises:
        UserError: a sample is not in the pool, or its embeddings are not those of the teachers.
    """
    names = [teacher["name"] for teacher in settings["teachers"]]

    def checked(samples: Iterator[dict]) -> Iterator[dict]:
        for sample in samples:
            slices(decode(sample), settings["teachers"], names)
            check_image(sample)
            yield sample

    shards = subset.groupby("shard", sort=True).size()
    manifest = {
        "samples": len(subset),
        "shards": {shard: int(number) for shard, number in shards.items()},
        "augmentation": settings["augmentation"],
        "teachers": settings["teachers"],
        "code": own(__name__),
    }
    _take(pool, subset, manifest, str, lambda path, samples: write_shard(path, checked(samples)), output)


def _take(
    pool: Path, subset: pd.DataFrame, manifest: dict, file_of: Callable[[str], str], write: Callable, output: Path
) -> None:
    token = sha256(json.dumps([manifest, subset.to_json()], sort_keys=True).encode())
    chosen = dict(iter(subset.groupby("shard", sort=True)))
    with resumable_dir(output, token) as folder:
        for shard in unfinished(chosen, output.name, lambda shard: folder / file_of(shard)):
            with atomic_file(folder / file_of(shard)) as path:
                write(path, subset_samples(pool, chosen[shard]))
        write_manifest(manifest, folder / MANIFEST)


def _captions(sample: dict, number: int) -> list[str]:
    texts, _ = read_texts(sample)
    if len(texts) != number + 1:
        raise UserError(
            f"sample {sample['__key__']} has {len(texts) - 1} synthetic captions, not {number}; set captions.number to "
            "what the published set has"
        )
    return texts[1:]
