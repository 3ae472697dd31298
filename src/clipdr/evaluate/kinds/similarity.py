"""Cosine similarity of a model's embeddings to those of a teacher, of the same images and captions.

It is no score: CLIP-KD (arXiv 2307.12732, section 4.4) explains by it what distillation gains. image_cosine is the mean
over images, text_cosine over captions, and cosine the mean of the two, in [-1, 1]. Embeddings must have one width.

A folder is that of a retrieval task, and usually another task's.

Shapes: N images, M captions, D embedding dimensions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.kinds import retrieval
from clipdr.evaluate.tasks import Images

Outcomes = dict[str, np.ndarray]

METRICS = ["cosine", "image_cosine", "text_cosine"]
ENTRY = {
    "required": ["teacher"],
    "properties": {"teacher": {"description": "A teacher of the scale's zoo", "type": "string"}},
}


@dataclass(frozen=True)
class Task:
    """Captioned images, and the name of the teacher."""

    images: Images
    teacher: str


def open_task(folder: Path, entry: dict) -> Task:
    return Task(retrieval.open_task(folder, entry), entry["teacher"])


def score(task: Task, encoder) -> Outcomes:
    img_ND, txt_MD, owner_M = retrieval.embeddings(task.images, encoder)
    t_img_ND, t_txt_MD, _ = retrieval.embeddings(task.images, encoder.teacher(task.teacher))
    if img_ND.shape[1] != t_img_ND.shape[1]:
        raise UserError(
            f"embeddings of the model have width {img_ND.shape[1]}, those of teacher {task.teacher!r} "
            f"{t_img_ND.shape[1]}, so that they have no cosine; take the task of kind similarity out of the suite"
        )
    image_N, text_M = ((ours * theirs).sum(axis=1) for ours, theirs in ((img_ND, t_img_ND), (txt_MD, t_txt_MD)))
    return {"image": image_N.clip(-1, 1), "text": text_M.clip(-1, 1), "owner": owner_M}  # rounding may pass 1


def units(outcomes: Outcomes) -> int:
    return len(outcomes["image"])


def metrics(outcomes: Outcomes, weights_N: np.ndarray) -> dict[str, float | None]:
    weights_M = weights_N[outcomes["owner"]]
    image = float(outcomes["image"] @ weights_N / weights_N.sum())
    text = float(outcomes["text"] @ weights_M / weights_M.sum())
    return {"cosine": (image + text) / 2, "image_cosine": image, "text_cosine": text}


def chance(outcomes: Outcomes) -> dict[str, float]:
    """Of directions at random."""
    return dict.fromkeys(METRICS, 0.0)


def facts(outcomes: Outcomes) -> dict[str, int]:
    return {"num_images": units(outcomes), "num_texts": len(outcomes["owner"])}
