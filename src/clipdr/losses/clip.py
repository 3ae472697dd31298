"""The contrastive loss of CLIP, and the objective `clip`.

Shape suffixes: G pairs of all processes, B those of this one, D embedding width.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clipdr.batch import Embeddings
from clipdr.losses.affinity import affinities


def clip_loss(img_GD: Tensor, txt_GD: Tensor, scale: Tensor | float, rows: slice) -> Tensor:
    """Symmetric cross-entropy over the affinity matrix (CLIP, figure 3; L_CLIP of MobileCLIP's Eq. 2).

    The mean of what the processes get is the loss of the whole batch.

    Args:
        img_GD, txt_GD: L2-normalised embeddings of matching pairs.
        scale: 1 / temperature.
        rows: the pairs whose loss is computed, against all of them.
    """
    labels_B = torch.arange(len(img_GD), device=img_GD.device)[rows]
    i2t_BG, t2i_BG = affinities(img_GD, txt_GD, scale, rows)
    return (cross_entropy(i2t_BG, labels_B) + cross_entropy(t2i_BG, labels_B)) / 2


def teachers_of(settings: dict) -> list[str]:
    """None."""
    return []


def masked_of(settings: dict) -> float:
    """None of an image is left out."""
    return 0.0


class Objective(nn.Module):
    """L_CLIP between the images and each kind of texts, one part a kind."""

    def __init__(self, settings: dict, width: int, teacher_widths: dict[str, int]) -> None:
        super().__init__()

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        img_GD, scale, rows = embeddings.images["image"], embeddings.scale, embeddings.rows
        return {f"{kind}/clip": clip_loss(img_GD, txt_GD, scale, rows) for kind, txt_GD in embeddings.texts.items()}
