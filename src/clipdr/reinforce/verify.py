"""Read a reinforced dataset again and say what is wrong with it.

What is proven: every shard holds as many samples as the manifest says, each of them once; every sample can be decoded,
its image is the one whose hash was stored, there are as many embeddings as views and texts, as wide as the teachers,
and each teacher's slice is finite and of norm 1 up to bfloat16's rounding. With the teachers at hand, a random share of
the samples is embedded again and compared.

Nothing is kept of a sample but eight bytes that stand for its uid.

Shape suffixes: A views, C channels, H image side.
"""

from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from clipdr.data.augment import view_array
from clipdr.data.manifest import MANIFEST, read_manifest
from clipdr.data.samples import Sample, check_image, decode, decode_image, slices
from clipdr.data.shards import read_shard
from clipdr.errors import UserError, listed
from clipdr.files import sha256
from clipdr.progress import progress
from clipdr.reinforce.embed import Teacher

SHOWN = 20  # faults of a shard that are listed
LEAST_COSINE = 0.999  # of a stored embedding with the same made anew; bfloat16 leaves 0.99999


def verify(reinforced: Path, teachers: list[Path], share: float, seed: int = 0) -> list[str]:
    """All that is wrong with a dataset, a line for each fault; none if it is sound.

    Args:
        reinforced: folder of shards and manifest.
        teachers: model folders, in the manifest's order; none to embed nothing again.
        share: of the samples that are embedded again, chosen by `seed`.

    Raises:
        UserError: there is no manifest that can be read, or other teachers than its own were given.
    """
    manifest = read_manifest(reinforced)
    names = [teacher["name"] for teacher in manifest["teachers"]]
    if teachers and len(teachers) != len(names):
        raise UserError(f"{reinforced / MANIFEST} names {len(names)} teachers ({listed(names)}); give their folders")
    zoo = [Teacher(name, folder) for name, folder in zip(names, teachers, strict=False)]
    random, uids, faults = np.random.default_rng(seed), array("Q"), []
    found = {path.relative_to(reinforced).as_posix() for path in reinforced.rglob("*.tar")}
    if extra := sorted(found - set(manifest["shards"])):
        faults.append(f"shards that the manifest does not name: {listed(extra[:SHOWN])}")
    for shard in progress(manifest["shards"], f"{reinforced}: shards", len(manifest["shards"])):
        found = list(_verify_shard(reinforced, shard, manifest, zoo, share, random, uids))
        faults += found[:SHOWN] + ([f"{shard}: {len(found) - SHOWN} faults more"] if len(found) > SHOWN else [])
    skipped = sum(manifest.get("skipped", {}).values())
    if manifest.get("in", manifest["samples"]) != manifest["samples"] + skipped:
        faults.append(
            f"the manifest has {manifest['in']} samples in, but {manifest['samples']} out and {skipped} skipped"
        )
    if len(uids) != manifest["samples"]:
        faults.append(f"the manifest has {manifest['samples']} samples, the shards {len(uids)}")
    if twice := len(uids) - len(np.unique(np.frombuffer(uids, np.uint64))):
        faults.append(f"{twice} samples stand twice")
    return faults


def _verify_shard(
    reinforced: Path,
    shard: str,
    manifest: dict,
    zoo: list[Teacher],
    share: float,
    random: np.random.Generator,
    uids: array,
) -> Iterator[str]:
    number, names = 0, [teacher["name"] for teacher in manifest["teachers"]]
    try:
        for members in read_shard(reinforced / shard):
            number += 1
            uids.append(int(sha256(members["__key__"].encode())[:16], 16))
            try:
                sample = decode(members)
                stored, image = slices(sample, manifest["teachers"], names), decode_image(members)
                check_image(members)
                if zoo and random.random() < share:
                    img_ACHH = view_array(image, sample.augmentations, manifest["augmentation"]["image_size"])
                    yield from _compare(sample, torch.from_numpy(img_ACHH), stored, zoo)
            except UserError as error:
                yield f"{shard}: {error}"
    except UserError as error:  # the file itself, after whose damage nothing can be read
        yield str(error)
    if number != manifest["shards"][shard]:
        yield f"{shard}: holds {number} samples, the manifest says {manifest['shards'][shard]}"


def _compare(sample: Sample, img_ACHH: torch.Tensor, stored: dict, zoo: list[Teacher]) -> Iterator[str]:
    """Faults of a sample's embeddings against those that its teachers give now, of its views among others."""
    for teacher in zoo:
        again = teacher.pixels(img_ACHH), teacher.texts([sample.caption, *sample.synthetic])
        for what, old, new in zip(("views", "texts"), stored[teacher.name], again, strict=True):
            cosine = torch.nn.functional.cosine_similarity(old, new)
            if (cosine < LEAST_COSINE).any():
                yield (
                    f"sample {sample.uid}: teacher {teacher.name!r} gives other embeddings of its {what} (cosine "
                    f"{cosine.min():.4f}); these are other weights, or the sample was changed"
                )
