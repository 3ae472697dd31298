"""Evaluate one model on a whole suite of zero-shot tasks, in one process.

The model is loaded once and every text is encoded once, however many tasks share it: for small suites the start-up of a
process is most of the cost, and ImageNet, -V2 and -Sketch share all their 80,000 prompts. Everything is fp32 without
autocast, because half precision moves the metrics by about 1e-3. Images keep the order of the shards and are decoded by
`threads` threads; nothing here is random.

Shapes: N images, M captions, C classes, T templates, B batch, D embedding dimensions.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from clipdr.chunks import batched
from clipdr.errors import UserError
from clipdr.evaluate.retrieval import retrieval_metrics
from clipdr.evaluate.tasks import Task, decode, open_task, samples
from clipdr.evaluate.zeroshot import classification_metrics, classifier_weights

log = logging.getLogger("clipdr")


def evaluate_suite(
    model_dirs: Sequence[Path], tasks_dir: Path, suite: dict, threads: int = 1, device: str = "cpu"
) -> list[dict]:
    """One record per task of `suite`, in its order, of one model or of several together (MobileCLIP, Appendix D).

    `suite` has `tasks`, a list of {key, title, kind, main_metric}, and `batch_size`, the images or texts of a forward
    pass, which changes no number.

    A record follows DataComp's schema: key, dataset (the title), metrics (fractions in [0, 1], None where a metric is
    not defined, main_metric repeating the marked one), num_images, and num_classes or, for retrieval, num_texts.
    Raises UserError for a broken task folder or model folder, and for embeddings that are zero or not finite.
    """
    tasks = [open_task(Path(tasks_dir), entry) for entry in suite["tasks"]]
    encoder = Encoder(model_dirs, suite["batch_size"], threads, device)
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
    """open_clip `local-dir:` models as two functions from images and texts to unit vectors; remembers texts.

    The unit vectors of several models are joined, and the joined vector is brought to unit length again.
    """

    def __init__(self, model_dirs: Sequence[Path], batch_size: int, threads: int, device: str):
        import torch

        from clipdr.models.load import load_model

        self.batch_size, self.threads, self.device = batch_size, threads, device
        torch.backends.cudnn.allow_tf32 = False  # fp32 also in convolutions; for matrix products it is the default
        self.models = {str(model_dir): load_model(Path(model_dir), device) for model_dir in model_dirs}
        self.known: dict[str, np.ndarray] = {}

    def images(self, images: Iterable[tuple[bytes, str]]) -> np.ndarray:
        """Embeddings [N, D] float32 of unit length of an iterable of (encoded image, its name for errors)."""
        import torch

        blocks = []
        with ThreadPoolExecutor(self.threads) as pool:
            for batch in batched(images, self.batch_size):
                prepared = list(pool.map(self._pixels, batch))
                pixels = [torch.stack(list(of_model)) for of_model in zip(*prepared, strict=True)]
                blocks.append(self._unit("encode_image", pixels, "image"))
        return np.concatenate(blocks)

    def texts(self, texts: list[str]) -> np.ndarray:
        """Embeddings [len(texts), D] float32 of unit length; a text seen before is not encoded again."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        for batch in batched(new, self.batch_size):
            tokens = [model.tokenizer.cut(batch) for model in self.models.values()]
            self.known.update(zip(batch, self._unit("encode_text", tokens, "text"), strict=True))
        return np.stack([self.known[text] for text in texts])

    def _pixels(self, image: tuple[bytes, str]) -> list:
        """The image as each model takes it."""
        decoded = decode(*image)
        return [model.preprocess(decoded) for model in self.models.values()]

    def _unit(self, encode: str, batches: list, what: str) -> np.ndarray:
        import torch

        found = []
        for (name, model), batch in zip(self.models.items(), batches, strict=True):
            with torch.inference_mode():
                emb = getattr(model, encode)(batch.to(self.device)).float()
                features = torch.nn.functional.normalize(emb, dim=-1).cpu().numpy()
            # NaN or zero vectors tie with everything, so that a diverged model would score well.
            if not (np.linalg.norm(features, axis=1) > 0.5).all():
                raise UserError(
                    f"{name}: the model gives {what} embeddings that are zero or not finite; train it again"
                )
            found.append(features)
        if len(found) == 1:
            return found[0]
        joined = np.concatenate(found, axis=1)
        return joined / np.linalg.norm(joined, axis=1, keepdims=True)


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
