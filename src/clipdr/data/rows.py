"""Reinforced shards in a second form, in which training reads one row of the embeddings without the others.

The published form (`clipdr.data.samples`) keeps a sample's embeddings as one compressed archive: whoever wants one view
of thirty inflates and unpickles all. Here the member `rows` has them as they are, little-endian [A + T, E], views
before texts, bfloat16 or whatever `dtype` the manifest says; all other members are copied byte by byte. bfloat16 of
unit vectors hardly compresses, so the form takes little more room.

A sample is checked once, when it is brought into this form, its image by its hash; training checks the rows that it
reads.

Shape suffixes: A views, T texts (real first), E widths of all teachers together.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipdr.data.manifest import MANIFEST, read_manifest, read_whole_shard, write_manifest
from clipdr.data.samples import DAMAGE, check_image, decode, decode_image, read_texts, slices
from clipdr.data.shards import write_shard
from clipdr.errors import UserError
from clipdr.files import resumable_dir, sha256, sha256_file, stamps
from clipdr.fingerprint import own
from clipdr.progress import unfinished

FORM = "rows"


@dataclass(frozen=True)
class Row:
    """A sample of which nothing is decoded but its texts and its augmentation entries."""

    members: dict
    uid: str
    texts: list[str]
    augmentations: list
    width: int
    dtype: torch.dtype

    @property
    def image(self) -> Image.Image:
        """The RGB image, decoded anew at each call."""
        return decode_image(self.members)

    def view(self, number: int) -> Tensor:
        """All teachers' embedding of a view [E]."""
        return self._row(number)

    def text(self, number: int) -> Tensor:
        """All teachers' embedding of a text [E]."""
        return self._row(len(self.augmentations) + number)

    def _row(self, number: int) -> Tensor:
        size = self.width * self.dtype.itemsize
        # A copy: the row alone stays, and the bytes that torch would hold may not be written.
        data = bytearray(self.members["rows"][size * number : size * (number + 1)])
        return torch.frombuffer(data, dtype=self.dtype) if data else torch.zeros(0, dtype=self.dtype)


def read_row(sample: dict, width: int, dtype: torch.dtype) -> Row:
    """A sample of `read_shard` in this form.

    Args:
        width: of all teachers together, as the manifest has it.
        dtype: of the embeddings, as the manifest has it.

    Raises:
        UserError: a member is missing, or has not as many rows as there are views and texts; names the sample.
    """
    try:
        texts, augmentations = read_texts(sample)
        if len(sample["rows"]) != width * dtype.itemsize * (len(augmentations) + len(texts)):
            raise ValueError(f"{len(sample['rows'])} bytes of embeddings for {len(augmentations)} views")
    except DAMAGE as error:
        raise UserError(
            f"sample {sample['__key__']} is damaged ({repr(error)[:100]}); delete its dataset and make its rows again"
        ) from error
    return Row(sample, sample["__key__"], texts, augmentations, width, dtype)


def convert(reinforced: Path, output: Path) -> None:
    """Write a reinforced dataset in this form, shard by shard; shards finished before a kill are kept.

    Raises:
        UserError: what the manifest says is not what the shards hold, or a sample is damaged.
    """
    manifest = read_manifest(reinforced)
    inputs = [sha256_file(reinforced / MANIFEST), stamps(reinforced, manifest["shards"])]
    token = sha256(json.dumps([own(__name__), *inputs]).encode())
    with resumable_dir(output, token) as folder:
        for shard in unfinished(manifest["shards"], output.name, folder.joinpath):
            write_shard(folder / f"{shard}.partial", _converted(reinforced, shard, manifest))
            (folder / f"{shard}.partial").replace(folder / shard)
        dtype = str(_dtype(manifest)).removeprefix("torch.")
        write_manifest({**manifest, "form": FORM, "dtype": dtype}, folder / MANIFEST)


def _converted(reinforced: Path, shard: str, manifest: dict) -> Iterator[dict]:
    for members in read_whole_shard(reinforced, shard, manifest):
        sample = decode(members)
        slices(sample, manifest["teachers"], [teacher["name"] for teacher in manifest["teachers"]])  # checks them
        check_image(members)
        rows = torch.cat([sample.img_AE, sample.txt_TE]).to(_dtype(manifest))
        yield {
            **{name: value for name, value in members.items() if name not in ("pth.gz", "npz")},
            "rows": rows.view(torch.uint8).numpy().tobytes(),
        }


def _dtype(manifest: dict) -> torch.dtype:
    """As which embeddings are read: as they were stored, but int8 as float32."""
    return torch.bfloat16 if manifest.get("embeddings", "bfloat16") == "bfloat16" else torch.float32
