"""One model, or several together, as two functions from images and texts to unit vectors.

Numbers are those of the model as it was trained, in float32 unless a precision is stated: half precision moves
metrics by about 1e-3. What makes it fast changes them by rounding alone: branches are folded, image towers read
channels-last, each distinct text and each distinct image is encoded once, and where a text tower reads from left to
right, tokens after the longest end of a batch are left out.

Shapes: N images or texts, D embedding dimensions, L tokens.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, cycle, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipdr.chunks import batched
from clipdr.errors import UserError
from clipdr.evaluate.tasks import decode
from clipdr.files import sha256
from clipdr.models.device import check_device
from clipdr.models.fold import fold
from clipdr.models.load import load_model


class Encoder:
    """open_clip model folders; the unit vectors of several are joined, and brought to unit length again.

    Args:
        model_dirs: folders with configuration and weights.
        batch_size: images or texts of a forward pass.
        threads: that decode images; with several, the next batch is decoded while the model reads one.
        devices: on each of which a copy of the models runs, batches taking turns.
        precision: float32, or bfloat16 or float16 by autocast.
        teachers: name -> folder of models that this one can be compared with.
    """

    def __init__(
        self,
        model_dirs: Sequence[Path],
        batch_size: int,
        threads: int = 1,
        devices: Sequence[str] = ("cpu",),
        precision: str = "float32",
        teachers: Mapping[str, Path] | None = None,
    ) -> None:
        torch.backends.cudnn.allow_tf32 = False  # for matrix products it is the default
        self.teachers, self.devices = teachers or {}, devices
        self.batch_size, self.threads, self.precision = batch_size, threads, precision
        self.names, self.skipped = list(map(str, model_dirs)), 0
        self.copies = [[_ready(Path(folder), device) for folder in model_dirs] for device in devices]
        self.texts_known: dict[str, np.ndarray] = {}
        self.images_known: dict[str, np.ndarray] = {}

    def teacher(self, name: str) -> "Encoder":
        """A model to compare with, which encodes as this one does."""
        return Encoder([self.teachers[name]], self.batch_size, self.threads, self.devices, self.precision)

    def images(self, images: Iterable[tuple[bytes, str]], skip: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings float32 of unit length of encoded images with their names for errors.

        Returns:
            Those of images that can be decoded [K, D], and which these are, bool [N]; without `skip` all must be.
            `skipped` counts the others, from task to task.

        Raises:
            UserError: an image cannot be decoded, or its embedding is zero or not finite.
        """
        rows: list[np.ndarray | None] = []
        with ThreadPoolExecutor(self.threads) as readers, ThreadPoolExecutor(len(self.copies)) as runners:
            begun = (
                self._reading(group, readers, skip) for group in batched(images, self.batch_size * len(self.copies))
            )
            for keys, reading in begun if self.threads == 1 else _one_ahead(begun):
                new = {key: pixels.result() for key, pixels in reading.items() if key not in self.images_known}
                pixels = {key: of_models for key, of_models in new.items() if of_models is not None}
                self.images_known |= self._encoded("encode_image", pixels, runners)
                rows += [self.images_known.get(key) for key in keys]
        kept_N = np.array([row is not None for row in rows])
        self.skipped += int((~kept_N).sum())
        if not kept_N.any():
            raise UserError(f"none of {len(rows)} images can be decoded; build or download the task again")
        return np.stack([row for row in rows if row is not None]), kept_N

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [len(texts), D] float32 of unit length; short texts go together, and each once."""
        new = sorted({text for text in texts if text not in self.texts_known}, key=lambda text: (len(text), text))
        with ThreadPoolExecutor(len(self.copies)) as runners:
            for group in batched(new, self.batch_size * len(self.copies)):
                tokens = zip(*(model.tokenizer.cut(group) for model in self.copies[0]), strict=True)
                self.texts_known |= self._encoded("encode_text", dict(zip(group, tokens, strict=True)), runners)
        return np.stack([self.texts_known[text] for text in texts])

    def _reading(self, group: list[tuple[bytes, str]], readers: ThreadPoolExecutor, skip: bool) -> tuple[list, dict]:
        """Hashes of the images, and of each that is new its pixels, which are being decoded."""
        keys = [sha256(data) for data, _ in group]
        new = {key: one for key, one in zip(keys, group, strict=True) if key not in self.images_known}
        return keys, {key: readers.submit(self._pixels, one, skip) for key, one in new.items()}

    def _pixels(self, image: tuple[bytes, str], skip: bool) -> list[Tensor] | None:
        """The image as each model takes it; None if it cannot be decoded and may be skipped."""
        try:
            decoded = decode(*image)
        except UserError:
            if skip:
                return None
            raise
        return [model.preprocess(decoded) for model in self.copies[0]]

    def _encoded(self, encode: str, inputs: dict, runners: ThreadPoolExecutor) -> dict:
        """Key -> embedding [D], of inputs that hold one tensor for each model."""
        batches = batched(inputs.items(), self.batch_size)
        found = runners.map(lambda work: self._unit(encode, *work), zip(batches, cycle(self.copies)))
        return {key: row for batch in found for key, row in batch}

    def _unit(self, encode: str, batch: list, models: list) -> list[tuple]:
        parts = []
        for number, model in enumerate(models):
            x = torch.stack([of_models[number] for _, of_models in batch])
            with torch.inference_mode(), self._autocast(model):
                features = torch.nn.functional.normalize(_forward(model, encode, x).float(), dim=-1).cpu().numpy()
            # NaN or zero vectors tie with everything, so that a diverged model would score well.
            if not (np.linalg.norm(features, axis=1) > 0.5).all():
                name, what = self.names[number], encode.removeprefix("encode_")
                raise UserError(
                    f"{name}: the model gives {what} embeddings that are zero or not finite; train it again"
                )
            parts.append(features)
        joined = np.concatenate(parts, axis=1)
        rows = joined / np.linalg.norm(joined, axis=1, keepdims=True) if len(parts) > 1 else joined
        return list(zip((key for key, _ in batch), rows, strict=True))

    def _autocast(self, model):
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(next(model.parameters()).device.type, getattr(torch, self.precision))


def _one_ahead(items: Iterable) -> Iterator:
    """Each item, once the next one has been begun."""
    for item, _ in pairwise(chain(items, [None])):
        yield item


def _ready(folder: Path, device: str):
    """A model to infer with, folded."""
    check_device(device)
    model = fold(load_model(folder)).to(device)
    model.visual.to(memory_format=torch.channels_last)
    model.causal_mask = _causal_mask(model.text)
    return model


def _causal_mask(text) -> Tensor | None:
    """The mask of a text tower in which tokens after a text's end cannot change its embedding; None of another."""
    if getattr(text, "pool_type", None) in ("argmax", "eos") and getattr(text, "cls_emb", None) is None:
        return getattr(text, "attn_mask", None)
    return None


def _forward(model, encode: str, x: Tensor) -> Tensor:
    x = x.to(next(model.parameters()).device)
    if encode == "encode_image" or model.causal_mask is None:
        return getattr(model, encode)(x)
    length = _longest(x, model.tokenizer.marks[1])
    model.text.attn_mask = model.causal_mask[:length, :length]  # open_clip cuts its positions, but not its mask
    return model.text.forward(x[:, :length])  # without the check that tokens fill the context


def _longest(tokens_NL: Tensor, end: int) -> int:
    """Tokens up to the last end of a text in the batch."""
    ends_NL = tokens_NL == end
    return int(ends_NL.int().argmax(dim=1).max()) + 1 if ends_NL.any(dim=1).all() else tokens_NL.shape[1]
