"""The whole pool in memory, with all human texts: what the zoo is trained on."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from clipdr.data.augment import draw, view_array
from clipdr.data.samples import decode_image
from clipdr.data.subset import subset_samples
from clipdr.data.views import Views
from clipdr.errors import UserError


def pool_views(pool: Path, augmentation: dict) -> Views:
    """Augmented views of every image of the pool, with all its human texts.

    Args:
        pool: folder of shards and index.
        augmentation: views, image_size, crop_scale, num_ops, magnitude, seed.

    Raises:
        UserError: there is no index, or the shards do not hold what it says.
    """
    if not (pool / "index.parquet").is_file():
        raise UserError(f"{pool / 'index.parquet'} is missing; build the pool first")
    uids, images, texts = [], [], []
    for sample in subset_samples(pool, pd.read_parquet(pool / "index.parquet")):
        image = decode_image(sample)
        rng = np.random.default_rng([augmentation["seed"], int(sample["__key__"][:8], 16)])
        uids.append(sample["__key__"])
        images.append(
            view_array(
                image,
                [draw(rng, *image.size, augmentation) for _ in range(augmentation["views"])],
                augmentation["image_size"],
            )
        )
        texts.append(json.loads(sample["json"])["texts"])
    return Views(uids, np.stack(images), texts, {})
