"""A linear classifier on the image embeddings: logistic regression, as scikit-learn fits it.

Its regularisation is chosen on a part of the training images (`validation`, drawn by `seed`, the same share of every
class): that of the largest acc1, of equal ones that of the least cross-entropy. The classifier is then fitted on all of
them. Embeddings are of unit length, and the strengths swept are the thirteen powers of ten from 1e-6 to 1e6, the range
of CLIP's probes (arXiv 2103.00020, Appendix A.3).

A folder has `classnames.txt`, and shards in `train` beside those in `test`, with `cls` beside each image.

Shapes: N test images, M training images, C classes, D embedding dimensions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipdr.errors import UserError
from clipdr.evaluate.kinds import classification
from clipdr.evaluate.tasks import Images, open_images
from clipdr.progress import log

Outcomes = dict[str, np.ndarray]

METRICS = ["acc1", "acc5", "mean_per_class_recall", "F1-macro_all"]
ENTRY = {
    "properties": {
        "validation": {
            "description": "Share of the training images that regularisation is chosen on; 0.2 if left out",
            "type": "number",
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 1,
        },
        "seed": {"description": "Seed of which images these are; 0 if left out", "type": "integer", "minimum": 0},
        "classes": {
            "description": "Number of classes, which classnames.txt must have; any if left out",
            "type": "integer",
            "minimum": 2,
        },
    }
}
STRENGTHS = tuple(10.0**power for power in range(-6, 7))  # scikit-learn's C: the larger, the weaker
ITERATIONS = 1000
units, metrics, chance, facts = (getattr(classification, n) for n in ("units", "metrics", "chance", "facts"))


@dataclass(frozen=True)
class Task:
    """Test images, training images, the class names, and how a part of the latter is set apart."""

    images: Images
    train: Images
    classes: tuple[str, ...]
    validation: float
    seed: int


def open_task(folder: Path, entry: dict) -> Task:
    images, train = (open_images(folder, entry, "classification", split) for split in ("test", "train"))
    classes = classification.class_names(folder, entry)
    return Task(images, train, classes, entry.get("validation", 0.2), entry.get("seed", 0))


def score(task: Task, encoder) -> Outcomes:
    """Those of classification, of the probabilities of the classifier."""
    train_MD, label_M = _embedded(task.train, task, encoder)
    test_ND, label_N = _embedded(task.images, task, encoder)
    log_NC = probe(train_MD, label_M, test_ND, len(task.classes), task.validation, task.seed)
    return classification.outcomes(log_NC, label_N)


def probe(
    train_MD: np.ndarray, label_M: np.ndarray, test_ND: np.ndarray, classes: int, validation: float, seed: int
) -> np.ndarray:
    """Logarithms of probabilities [N, C] float64; -inf for classes that no training image has.

    Raises UserError where a class has one training image, or all have the same.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest_KD, held_HD, rest_K, held_H = train_test_split(
            train_MD, label_M, test_size=validation, random_state=seed, stratify=label_M
        )
        scores = {c: _quality(_fitted(rest_KD, rest_K, c), held_HD, held_H) for c in STRENGTHS}
    except ValueError as error:  # too few images of a class to set some apart, or one class only
        raise UserError(f"a linear probe cannot be fitted: {error}; give more training images per class") from None
    best = max(STRENGTHS, key=scores.__getitem__)
    log.info("linear probe: C = %g, %.4f of the validation images", best, scores[best][0])
    model = _fitted(train_MD, label_M, best)
    log_NC = np.full((len(test_ND), classes), -np.inf)
    log_NC[:, model.classes_] = _log_probabilities(model, test_ND)
    return log_NC


def _fitted(train_MD: np.ndarray, label_M: np.ndarray, strength: float):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=ITERATIONS).fit(train_MD, label_M)


def _log_probabilities(model, img_ND: np.ndarray) -> np.ndarray:
    """[N, C], finite also where scikit-learn's own take the logarithm of a probability that is zero."""
    from scipy.special import log_softmax

    found = model.decision_function(img_ND)
    if found.ndim == 1:  # two classes: the score of the second
        return np.stack([-np.logaddexp(0, found), -np.logaddexp(0, -found)], axis=1)
    return log_softmax(found, axis=1)


def _quality(model, held_HD: np.ndarray, held_H: np.ndarray) -> tuple[float, float]:
    """acc1, and the mean logarithm of the true class's probability."""
    log_HC = _log_probabilities(model, held_HD)
    column_H = np.searchsorted(model.classes_, held_H)
    true_H = log_HC[np.arange(len(held_H)), column_H]
    return float((log_HC.argmax(axis=1) == column_H).mean()), float(true_H.mean())


def _embedded(images: Images, task: Task, encoder) -> tuple[np.ndarray, np.ndarray]:
    labels: list[int] = []
    img_ND, kept = encoder.images(classification.labelled(images, len(task.classes), labels), images.skip)
    return img_ND, np.array(labels)[kept]
