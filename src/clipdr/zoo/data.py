"""The whole pool in memory, with all human texts: what the zoo is trained on."""

import json
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.reinforce.augment import draw, view_array
from clipdr.reinforce.store import decode_image
from clipdr.shards import read_shard
from clipdr.views import Views


def pool_views(pool: Path, augmentation: dict) -> Views:
    """Augmented views of every image of the pool, with all its human texts.

    Args:
        pool: folder of shards.
        augmentation: views, image_size, crop_scale, num_ops, magnitude, seed.
    """
    images, texts = [], []
    for shard in sorted(pool.glob("*.tar")):
        for sample in read_shard(shard):
            image = decode_image(sample)
            rng = np.random.default_rng([augmentation["seed"], int(sample["__key__"][:8], 16)])
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
    return Views(np.stack(images), texts, {})
