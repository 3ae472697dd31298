"""Materialise a reinforced dataset: replay every stored view once, for the runs that share it."""

import json
from pathlib import Path

import numpy as np

from clipdr.files import atomic_dir
from clipdr.reinforce.augment import view_array
from clipdr.reinforce.embed import MANIFEST
from clipdr.reinforce.store import decode
from clipdr.shards import read_shard
from clipdr.views import Views, save_views


def read_views(reinforced: Path, size: int) -> Views:
    """Replay all views of a reinforced dataset at `size` × `size` px, in the order of its shards."""
    manifest = json.loads((reinforced / MANIFEST).read_text())
    samples = [decode(sample) for shard in manifest["shards"] for sample in read_shard(reinforced / shard)]
    img_NACSS = np.stack([view_array(sample.image, sample.augmentations, size) for sample in samples])
    texts = [[sample.caption, *sample.synthetic] for sample in samples]
    img_NAE = np.stack([sample.img_AE.float().numpy() for sample in samples])
    txt_NTE = np.stack([sample.txt_SE.float().numpy() for sample in samples])
    return Views(img_NACSS, texts, dict(_slices(img_NAE, txt_NTE, manifest["teachers"])))


def materialise(reinforced: Path, size: int, output: Path) -> None:
    """Write the views of a reinforced dataset as a folder that `clipdr.views.load_views` reads.

    `size` is the side, in px, of the images that a student reads; teachers saw the same boxes and ops at a size of
    their own, as in the paper, where students of 256 px learn from teachers of 224 px.
    """
    views = read_views(reinforced, size)
    with atomic_dir(output) as folder:
        save_views(views, folder)


def _slices(img_NAE: np.ndarray, txt_NTE: np.ndarray, teachers: list[dict]):
    start = 0
    for teacher in teachers:
        columns = slice(start, start + teacher["width"])
        yield teacher["name"], (img_NAE[..., columns].copy(), txt_NTE[..., columns].copy(), teacher["logit_scale"])
        start = columns.stop
