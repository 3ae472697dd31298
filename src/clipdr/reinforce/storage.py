"""What reinforcements cost in bytes: samples of a store, written with fewer views and captions and in other precisions.

Two things are measured of each row of the table: what the store's own reinforcements take, with the first of its views
and captions; and what they would take with the paper's teachers. Those embeddings are random unit vectors as wide as
the paper's: bytes depend on their shape and on how unit vectors compress, not on what they mean. A member takes what
it takes in a tar file, header and padding included.

Shape suffixes: A views, T texts (real first), E widths of all teachers together.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from clipdr.data.manifest import read_manifest
from clipdr.data.samples import PRECISIONS, Sample, as_json, decode
from clipdr.data.shards import IMAGES, read_shard
from clipdr.errors import UserError
from clipdr.files import atomic_file

SAMPLES = 64  # of the store, the first ones
BLOCK = 512  # of a tar file


def measure(reinforced: Path, settings: Mapping, output: Path) -> None:
    """Write a JSON file with the mean bytes of a sample, row by row.

    Args:
        reinforced: folder of a store with embeddings.
        settings: `widths` of the paper's teachers, and `rows`, each with its name as `row` and what it `stores`.
        output: receives `samples`, how many were measured; `plain`, bytes of image, caption and details; `rows` with
            `here` (None where the store has fewer views or captions) and `paper`, bytes of the reinforcements.

    Raises:
        UserError: the store is damaged, or has no embeddings.
    """
    manifest = read_manifest(reinforced)
    if not manifest["teachers"]:
        raise UserError(f"{reinforced} stores no embeddings; reinforce it with teachers")
    members = list(
        islice((sample for shard in manifest["shards"] for sample in read_shard(reinforced / shard)), SAMPLES)
    )
    samples = [decode(sample) for sample in members]
    found = {
        "samples": len(samples),
        "plain": mean(map(_plain, members)),
        "rows": [_row(row, samples, settings["widths"]) for row in settings["rows"]],
    }
    with atomic_file(output) as path:
        path.write_text(json.dumps(found, indent=2) + "\n")


def _row(row: Mapping, samples: Sequence[Sample], widths: Sequence[int]) -> dict:
    here = [_here(sample, row["stores"]) for sample in samples]
    paper = [_paper(sample, row["stores"], widths, number) for number, sample in enumerate(samples)]
    return {"row": row["row"], "here": None if None in here else mean(here), "paper": mean(paper)}


def _plain(members: Mapping[str, bytes]) -> int:
    return sum(in_tar(members[name]) for name in ("json", "txt", *IMAGES) if name in members)


def in_tar(data: bytes) -> int:
    """Bytes that a member takes: a header, and its content up to a whole block."""
    return BLOCK + -(-len(data) // BLOCK) * BLOCK


def _here(sample: Sample, stores: Mapping) -> int | None:
    """Bytes of the first views and captions of a sample; None if it has fewer."""
    views, captions = stores.get("views", 0), stores.get("captions", 0)
    if views > len(sample.augmentations) or captions > len(sample.synthetic):
        return None
    img_AE, txt_TE = sample.img_AE[:views].float(), sample.txt_TE[: captions + 1].float()
    return _bytes(sample.synthetic[:captions], sample.augmentations[:views], img_AE, txt_TE, stores)


def _paper(sample: Sample, stores: Mapping, widths: Sequence[int], seed: int) -> int:
    """Bytes with embeddings as the paper's teachers give them; captions and boxes are ours, over and over."""
    views, captions = stores.get("views", 0), stores.get("captions", 0)
    generator = torch.Generator().manual_seed(seed)
    img_AE, txt_TE = (
        torch.cat([_unit(number, width, generator) for width in widths], dim=1) for number in (views, captions + 1)
    )
    synthetic = list(islice(cycle(sample.synthetic), captions))
    augmentations = list(islice(cycle(sample.augmentations), views))
    return _bytes(synthetic, augmentations, img_AE, txt_TE, stores)


def _unit(number: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(number, width, generator=generator), dim=1)


def _bytes(synthetic: list[str], augmentations: list, img_AE: Tensor, txt_TE: Tensor, stores: Mapping) -> int:
    members = [as_json({"syn_text": synthetic})] if synthetic else []
    members += [as_json({"param_aug": augmentations})] if augmentations else []
    if "embeddings" in stores:
        ((name, data),) = PRECISIONS[stores["embeddings"]](img_AE, txt_TE).items()
        plain = gzip.decompress(data) if name.endswith(".gz") else data
        members.append(gzip.compress(plain, mtime=0) if stores["gzip"] else plain)
    return sum(map(in_tar, members))
