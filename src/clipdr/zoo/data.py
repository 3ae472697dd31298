"""The whole pool in memory, with all human texts: what the zoo is trained on."""

import json
from pathlib import Path

import numpy as np

from clipdr.data.augment import draw, view_array
from clipdr.data.samples import decode_image
from clipdr.data.shards import read_shard
from clipdr.data.views import Views
from clipdr.errors import UserError


def pool_views(pool: Path, augmentation: dict) -> Views:
    """Augmented views of every image of the pool, with all its human texts.

    Args:
        pool: folder of shards.
        augmentation: views, image_size, crop_scale, num_ops, magnitude, seed.
    """
    uids, images, texts = [], [], []
    for shard in sorted(pool.glob("*.tar")):
        for sample in read_shard(shard):
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
    if not images:
        raise UserError(f"{pool} holds no shards; build the pool first")
    return Views(uids, np.stack(images), texts, {})
