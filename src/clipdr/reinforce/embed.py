"""Write reinforced shards: stored augmentations and the teachers' embeddings of every view and every caption.

Shape suffixes: A views, T texts (real first), E widths of all teachers together, C channels, H image side.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from clipdr.data.augment import draw, replay
from clipdr.data.manifest import MANIFEST
from clipdr.data.samples import decode_image, encode
from clipdr.data.shards import write_shard
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.models.folder import preprocessing, weights_file
from clipdr.models.load import load_model
from clipdr.progress import log, progress


class Teacher:
    """An open_clip model that embeds views and texts; slices are L2-normalised, float32."""

    def __init__(self, name: str, folder: Path, device: str = "cpu") -> None:
        self.name = name
        self.model = load_model(folder, device)
        self.scale = self.model.logit_scale.exp().item()
        self.width = self.tokens(self.model.tokenizer.cut(["width"]).to(device)).shape[1]

    def images(self, views: list[Image.Image]) -> torch.Tensor:
        """Embeddings [A, E] of views of one image."""
        from torchvision.transforms.functional import pil_to_tensor

        if not views:  # an augmentation that is drawn afresh at every step stores none
            return torch.zeros(0, self.width)
        return self.pixels(torch.stack([pil_to_tensor(view) for view in views]))

    def texts(self, texts: list[str]) -> torch.Tensor:
        """Embeddings [T, E] of texts."""
        return self.tokens(self.model.tokenizer.cut(texts))

    @torch.no_grad()
    def pixels(self, img_ACHH: torch.Tensor) -> torch.Tensor:
        """Embeddings [A, E] of images, uint8; they are resized if the teacher's input is larger or smaller."""
        return self.model.encode_image(to_input(img_ACHH, self.model), normalize=True)

    @torch.no_grad()
    def tokens(self, tokens_TL: torch.Tensor) -> torch.Tensor:
        """Embeddings [T, E] of tokenised texts, int64."""
        return self.model.encode_text(tokens_TL, normalize=True)


def to_input(img_ACHH: torch.Tensor, model) -> torch.Tensor:
    """uint8 square images as a model takes them, resized as its own preprocessing does: float32 [A, C, side, side]."""
    from torchvision.transforms.functional import normalize

    side, mean, std = preprocessing(model)
    img = img_ACHH.float() / 255
    if img.shape[-1] != side:
        mode = model.visual.preprocess_cfg["interpolation"]
        img = torch.nn.functional.interpolate(img, (side, side), mode=mode, antialias=True).clamp(0, 1)
    return normalize(img, mean, std)


def reinforce(
    pool: Path, subset: pd.DataFrame, captions: Path | None, teachers: list[Path], settings: dict, output: Path
) -> None:
    """Write `<shard>.tar` files in the DataCompDR layout and `manifest.json`; shards finished before a kill are kept.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index.
        captions: parquet with `uid` and `syn`; None for a dataset without synthetic captions.
        teachers: open_clip folders, in the order of their slices; none for a dataset without embeddings.
        settings: `augmentation` (views, image_size, crop_scale, num_ops, magnitude, seed), `teachers`, their names, and
            `embeddings`, as which they are stored if not as bfloat16.
        output: folder of the reinforced dataset.

    Raises:
        UserError: a sample is not in the pool, or has no synthetic captions.
    """
    synthetic = _synthetic(captions, subset)
    zoo = [Teacher(name, folder) for name, folder in zip(settings["teachers"], teachers, strict=True)]
    augmentation, precision = settings["augmentation"], settings.get("embeddings", "bfloat16")
    digests = [sha256_file(path) for path in [*map(weights_file, teachers), *([captions] if captions else [])]]
    inputs = [own(__name__), settings, digests, subset.to_json()]
    shards = list(subset.groupby("shard", sort=True))
    with resumable_dir(output, sha256(json.dumps(inputs, sort_keys=True).encode())) as folder:
        for shard, rows in progress(shards, f"{output.name}: shards", len(shards)):
            if (folder / shard).is_file():
                log.info("%s: %s was finished before", output.name, shard)
                continue
            samples = (
                _reinforce(sample, synthetic, zoo, augmentation, precision) for sample in subset_samples(pool, rows)
            )
            write_shard(folder / f"{shard}.partial", samples)
            (folder / f"{shard}.partial").replace(folder / shard)
        manifest = {
            "samples": len(subset),
            "shards": {shard: len(rows) for shard, rows in shards},
            "augmentation": augmentation,
            "embeddings": precision,
            "teachers": [{"name": t.name, "width": t.width, "logit_scale": t.scale} for t in zoo],
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _synthetic(captions: Path | None, subset: pd.DataFrame) -> dict[str, list[str]]:
    """Synthetic captions by uid."""
    if captions is None:
        return {uid: [] for uid in subset["uid"]}
    synthetic = dict(pd.read_parquet(captions)[["uid", "syn"]].itertuples(index=False))
    if missing := sorted(set(subset["uid"]) - set(synthetic)):
        raise UserError(
            f"{captions} lacks {len(missing)} samples of the subset, first {missing[0]}; caption the subset again"
        )
    return synthetic


def _reinforce(
    sample: dict, synthetic: dict[str, list[str]], zoo: list[Teacher], settings: dict, precision: str
) -> dict:
    image = decode_image(sample)
    rng = np.random.default_rng([settings["seed"], int(sample["__key__"][:8], 16)])
    entries = [draw(rng, *image.size, settings) for _ in range(settings["views"])]
    views = [replay(image, entry, settings["image_size"]) for entry in entries]
    syn = list(synthetic[sample["__key__"]])
    texts = [sample["txt"].decode(), *syn]
    img_AE = torch.cat([torch.zeros(len(views), 0), *(teacher.images(views) for teacher in zoo)], dim=1)
    txt_TE = torch.cat([torch.zeros(len(texts), 0), *(teacher.texts(texts) for teacher in zoo)], dim=1)
    return encode(sample, syn, entries, img_AE, txt_TE, precision)
