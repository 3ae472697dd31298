"""Evaluate one model on a whole suite of zero-shot tasks, in one process.

The model is loaded once and every text is encoded once, however many tasks share it: for small suites the start-up of a
process is most of the cost, and ImageNet, -V2 and -Sketch share all their 80,000 prompts. Everything is fp32 without
autocast, because half precision moves the metrics by about 1e-3. Images keep the order of the shards and are decoded by
`threads` threads; nothing here is random.

Shapes: N images, M captions, C classes, T templates, B batch, D embedding dimensions.
"""

import logging
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clipdr.chunks import batched
from clipdr.errors import UserError
from clipdr.evaluate.retrieval import retrieval_metrics
from clipdr.evaluate.tasks import Task, decode, open_task, samples
from clipdr.evaluate.zeroshot import classification_metrics, classifier_weights

log = logging.getLogger("clipdr")


def evaluate_suite(model_dir: Path, tasks_dir: Path, suite: dict, threads: int = 1, device: str = "cpu") -> list[dict]:
    """One record per task of `suite`, in its order.

    `suite` has `tasks`, a list of {key, title, kind, main_metric}, and `batch_size`, the images or texts of a forward
    pass, which changes no number.

    A record follows DataComp's schema: key, dataset (the title), metrics (fractions in [0, 1], None where a metric is
    not defined, main_metric repeating the marked one), num_images, and num_classes or, for retrieval, num_texts.
    Raises UserError for a broken task folder or model folder, and for embeddings that are zero or not finite.
    """
    tasks = [open_task(Path(tasks_dir), entry) for entry in suite["tasks"]]
    encoder = Encoder(Path(model_dir), suite["batch_size"], threads, device)
    records = []
    for task in tasks:
        start = time.monotonic()
        record = _classify(task, encoder) if task.kind == "classification" else _retrieve(task, encoder)
        record["metrics"]["main_metric"] = record["metrics"][task.main_metric]
        records.append({"key": task.key, "dataset": task.title, **record})
        log.info(
            "%s: %d images, %s %.4f, %.1f s",
            *(task.key, record["num_images"], task.main_metric),
            *(record["metrics"]["main_metric"], time.monotonic() - start),
        )
    return records


class Encoder:
    """An open_clip `local-dir:` model as two functions from images and texts to unit vectors; remembers texts."""

    def __init__(self, model_dir: Path, batch_size: int, threads: int, device: str):
        import torch

        from clipdr.models.load import load_model

        self.name, self.batch_size, self.threads, self.device = str(model_dir), batch_size, threads, device
        torch.backends.cudnn.allow_tf32 = False  # fp32 also in convolutions; for matrix products it is the default
        self.model = load_model(model_dir, device)
        self.known: dict[str, np.ndarray] = {}

    def images(self, images: Iterable[tuple[bytes, str]]) -> np.ndarray:
        """Embeddings [N, D] float32 of unit length of an iterable of (encoded image, its name for errors)."""
        import torch

        blocks = []
        with ThreadPoolExecutor(self.threads) as pool:
            for batch in batched(images, self.batch_size):
                pixels = torch.stack(list(pool.map(self._pixels, batch)))
                blocks.append(self._unit(self.model.encode_image, pixels, "image"))
        return np.concatenate(blocks)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Embeddings [len(texts), D] float32 of unit length; a text seen before is not encoded again."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for batch in batched(new, self.batch_size):
            unit_BD = self._unit(self.model.encode_text, self.model.tokenizer.cut(batch), "text")
            self.known.update(zip(batch, unit_BD, strict=True))
        return np.stack([self.known[text] for text in texts])

    def _pixels(self, image: tuple[bytes, str]):
        return self.model.preprocess(decode(*image))

    def _unit(self, encode, batch, what: str) -> np.ndarray:
        import torch

        with torch.inference_mode():
            features = torch.nn.functional.normalize(encode(batch.to(self.device)).float(), dim=-1).cpu().numpy()
        # NaN or zero vectors tie with everything, so that a diverged model would score well.
        if not (np.linalg.norm(features, axis=1) > 0.5).all():
            raise UserError(
                f"{self.name}: the model gives {what} embeddings that are zero or not finite; train it again"
            )
        return features


def _classify(task: Task, encoder: Encoder) -> dict:
    prompts = [template.format(c=name) for name in task.classes for template in task.templates]
    txt_CTD = encoder.texts(prompts).reshape(len(task.classes), len(task.templates), -1)
    labels: list[int] = []
    img_ND = encoder.images(_keep_second(samples(task), labels))
    metrics = classification_metrics(img_ND @ classifier_weights(txt_CTD).T, np.array(labels))
    return {"metrics": metrics, "num_images": len(labels), "num_classes": len(task.classes)}


def _retrieve(task: Task, encoder: Encoder) -> dict:
    captions: list[list[str]] = []
    img_ND = encoder.images(_keep_second(samples(task), captions))
    txt_MD = encoder.texts([caption for own in captions for caption in own])
    owner_M = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    metrics = retrieval_metrics(img_ND, txt_MD, owner_M)
    return {"metrics": metrics, "num_images": len(captions), "num_texts": len(txt_MD)}


def _keep_second(pairs: Iterable[tuple], kept: list) -> Iterator:
    for first, second in pairs:
        kept.append(second)
        yield first
