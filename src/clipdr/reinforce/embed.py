"""Write reinforced shards: stored augmentations and the teachers' embeddings of every view and every caption.

Shape suffixes: A views and T texts (real first) of a sample, N those of several samples, E width of a teacher or of all
teachers together, C channels, H image side, L context length.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from clipdr.chunks import batched
from clipdr.data.augment import draw, view_array, whole
from clipdr.data.manifest import MANIFEST, write_manifest
from clipdr.data.samples import decode_image, encode
from clipdr.data.shards import captions_of, write_shard
from clipdr.data.subset import subset_samples
from clipdr.errors import UserError
from clipdr.files import resumable_dir, sha256, sha256_file
from clipdr.fingerprint import own
from clipdr.models.folder import preprocessing, weights_file
from clipdr.models.load import load_model
from clipdr.progress import unfinished

BATCH = 256  # views that a teacher sees together


class Teacher:
    """An open_clip model that embeds views and texts; slices are L2-normalised, float32."""

    def __init__(self, name: str, folder: Path, device: str = "cpu") -> None:
        self.name = name
        self.model = load_model(folder, device)
        self.scale = self.model.logit_scale.exp().item()
        if not 0 < self.scale < math.inf:
            raise UserError(f"{folder}: teacher {name!r} has logit scale {self.scale}; take whole weights")
        self.device = device
        self.width = self.tokens(self.model.tokenizer.cut(["width"])).shape[1]

    @torch.no_grad()
    def pixels(self, img_NCHH: torch.Tensor) -> torch.Tensor:
        """Embeddings [N, E] of images, uint8; they are resized if the teacher's input is larger or smaller."""
        if not len(img_NCHH):  # an augmentation that is drawn afresh at every step stores no views
            return torch.zeros(0, self.width, device=self.device)
        return self.inputs(to_input(img_NCHH.to(self.device), self.model))

    @torch.no_grad()
    def inputs(self, img_NCHH: torch.Tensor) -> torch.Tensor:
        """Embeddings [N, E] of images as the model takes them, float32."""
        return self.model.encode_image(img_NCHH.to(self.device), normalize=True)

    @torch.no_grad()
    def tokens(self, tokens_NL: torch.Tensor) -> torch.Tensor:
        """Embeddings [N, E] of tokenised texts, int64."""
        return self.model.encode_text(tokens_NL.to(self.device), normalize=True)

    def texts(self, texts: list[str]) -> torch.Tensor:
        """Embeddings [len(texts), E]."""
        return self.tokens(self.model.tokenizer.cut(texts))


def to_input(img_NCHH: torch.Tensor, model) -> torch.Tensor:
    """uint8 square images as a model takes them, resized as its own preprocessing does: float32 [N, C, side, side]."""
    from torchvision.transforms.functional import normalize

    side, mean, std = preprocessing(model)
    img = img_NCHH.float() / 255
    if img.shape[-1] != side:
        mode = model.visual.preprocess_cfg["interpolation"]
        img = torch.nn.functional.interpolate(img, (side, side), mode=mode, antialias=True).clamp(0, 1)
    return normalize(img, mean, std)


def reinforce(
    pool: Path,
    subset: pd.DataFrame,
    captions: Path | None,
    teachers: list[Path],
    settings: dict,
    output: Path,
    device: str = "cpu",
) -> None:
    """Write `<shard>.tar` files in the DataCompDR layout and `manifest.json`; shards finished before a kill are kept.

    Args:
        pool: folder of the pool's shards.
        subset: rows of the index.
        captions: folder of `clipdr.reinforce.captions`; None for a dataset without synthetic captions.
        teachers: open_clip folders, in the order of their slices; none for a dataset without embeddings.
        settings: `augmentation` (views, image_size, crop_scale, num_ops, magnitude, seed), `teachers`, their names, and
            `embeddings`, as which they are stored if not as bfloat16.
        output: folder of the reinforced dataset.
        device: on which the teachers run.

    Raises:
        UserError: a sample is not in the pool, or has no synthetic captions.
    """
    digests = {name: sha256_file(weights_file(path)) for name, path in zip(settings["teachers"], teachers, strict=True)}
    zoo = [Teacher(name, folder, device) for name, folder in zip(settings["teachers"], teachers, strict=True)]
    augmentation, precision, code = settings["augmentation"], settings.get("embeddings", "bfloat16"), own(__name__)
    captioned = captions and sha256_file(captions / MANIFEST)
    inputs = [code, settings, list(digests.values()), captioned, subset.to_json()]
    chosen = dict(iter(subset.groupby("shard", sort=True)))
    with resumable_dir(output, sha256(json.dumps(inputs, sort_keys=True).encode())) as folder:
        for shard in unfinished(chosen, output.name, folder.joinpath):
            rows = chosen[shard]
            synthetic = _synthetic(captions, shard, rows)
            # As many in a batch whatever the chunk: how a product is split may show in its last bit.
            groups = batched(subset_samples(pool, rows), max(1, BATCH // max(1, augmentation["views"])))
            samples = (one for group in groups for one in _reinforce(group, synthetic, zoo, augmentation, precision))
            write_shard(folder / f"{shard}.partial", samples)
            (folder / f"{shard}.partial").replace(folder / shard)
        manifest = {
            "samples": len(subset),
            "shards": {shard: len(rows) for shard, rows in chosen.items()},
            "augmentation": augmentation,
            "embeddings": precision,
            "teachers": [{"name": t.name, "width": t.width, "logit_scale": t.scale} for t in zoo],
            "models": digests,
            "code": code,
        }
        write_manifest(manifest, folder / MANIFEST)


def _synthetic(captions: Path | None, shard: str, rows: pd.DataFrame) -> dict[str, list[str]]:
    """Synthetic captions by uid, of the chosen samples of a shard."""
    if captions is None:
        return {uid: [] for uid in rows["uid"]}
    path = captions / captions_of(shard)
    table = pd.read_parquet(path) if path.is_file() else pd.DataFrame({"uid": [], "syn": []})
    synthetic = dict(table[["uid", "syn"]].itertuples(index=False))
    if missing := sorted(set(rows["uid"]) - set(synthetic)):
        raise UserError(f"{path} lacks {len(missing)} samples of the subset, first {missing[0]}; caption them again")
    return synthetic


def _reinforce(
    samples: list[dict], synthetic: dict[str, list[str]], zoo: list[Teacher], settings: dict, precision: str
) -> Iterator[dict]:
    """Members of the samples, whose views and texts are embedded together."""
    images = [decode_image(sample) for sample in samples]
    entries = [_draw(sample, image, settings) for sample, image in zip(samples, images, strict=True)]
    of_images = settings.get("teachers_see") == "image"
    seen = [[whole(image)] for image in images] if of_images else entries
    views = [view_array(image, drawn, settings["image_size"]) for image, drawn in zip(images, seen, strict=True)]
    texts = [[sample["txt"].decode(), *synthetic[sample["__key__"]]] for sample in samples]
    img_NCHH, flat = torch.from_numpy(np.concatenate(views)), [text for row in texts for text in row]
    # Of width 0 for a dataset without teachers.
    img_NE = torch.cat([torch.zeros(len(img_NCHH), 0), *(teacher.pixels(img_NCHH).cpu() for teacher in zoo)], dim=1)
    txt_NE = torch.cat([torch.zeros(len(flat), 0), *(teacher.texts(flat).cpu() for teacher in zoo)], dim=1)
    if of_images:  # of all views of an image
        img_NE = img_NE.repeat_interleave(torch.tensor([len(drawn) for drawn in entries]), dim=0)
    parts = zip(img_NE.split([len(one) for one in entries]), txt_NE.split([len(row) for row in texts]), strict=True)
    for sample, row, drawn, (img_AE, txt_TE) in zip(samples, texts, entries, parts, strict=True):
        yield encode(sample, row[1:], drawn, img_AE, txt_TE, precision)


def _draw(sample: dict, image: Image.Image, settings: dict) -> list:
    """The augmentation entries of an image."""
    rng = np.random.default_rng([settings["seed"], int(sample["__key__"][:8], 16)])
    return [draw(rng, *image.size, settings) for _ in range(settings["views"])]
