"""Zero-shot classification: class vectors from prompts, and three metrics from logits.

Same definitions as clip_benchmark.metrics.zeroshot_classification, with one decision more: tied logits go to the lower
class index. There, topk and argmax may break a tie differently, so that acc1 and mean_per_class_recall disagree for
classes with equal names. The fixed temperature 100 of clip_benchmark is left out: it changes no rank.

Shapes: N images, C classes, T templates, D embedding dimensions.
"""

import numpy as np


def classifier_weights(text_CTD: np.ndarray) -> np.ndarray:
    """Class vectors [C, D] of unit length: the mean of a class's normalised prompt embeddings, normalised again.

    text_CTD: float [C, T, D], rows of any length but zero.
    """
    unit_CTD = text_CTD / np.linalg.norm(text_CTD, axis=-1, keepdims=True)
    mean_CD = unit_CTD.mean(axis=1)
    return mean_CD / np.linalg.norm(mean_CD, axis=-1, keepdims=True)


def ranks(logits_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Rank [N] int of the true class among the logits, 0 is best; a tie goes to the lower class index."""
    logits_NC, labels_N = np.asarray(logits_NC), np.asarray(labels_N)
    own_N1 = np.take_along_axis(logits_NC, labels_N[:, None], axis=1)
    before_NC = np.arange(logits_NC.shape[1])[None, :] < labels_N[:, None]
    return ((logits_NC > own_N1) | ((logits_NC == own_N1) & before_NC)).sum(axis=1)


def classification_metrics(logits_NC: np.ndarray, labels_N: np.ndarray) -> dict[str, float | None]:
    """acc1, acc5 and mean_per_class_recall as fractions in [0, 1]; acc5 is None when C < 5.

    logits_NC: float [N, C], finite, on any scale. labels_N: int [N] in [0, C), N >= 1.
    mean_per_class_recall is the mean of acc1 over the classes that occur in labels_N (= balanced accuracy).
    """
    logits_NC, labels_N = np.asarray(logits_NC), np.asarray(labels_N)
    rank_N = ranks(logits_NC, labels_N)
    images_C = np.bincount(labels_N, minlength=logits_NC.shape[1])
    hits_C = np.bincount(labels_N, weights=rank_N == 0, minlength=logits_NC.shape[1])
    present_C = images_C > 0
    return {
        "acc1": float((rank_N == 0).mean()),
        "acc5": float((rank_N < 5).mean()) if logits_NC.shape[1] >= 5 else None,
        "mean_per_class_recall": float((hits_C[present_C] / images_C[present_C]).mean()),
    }
