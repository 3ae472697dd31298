"""The contrastive loss of CLIP, and the objective `clip`. Shape suffixes: B pairs, D embedding width."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from clipdr.batch import Embeddings


def clip_loss(img_BD: Tensor, txt_BD: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric cross-entropy over the batch's affinity matrix (CLIP, figure 3; L_CLIP of MobileCLIP's Eq. 2).

    Args:
        img_BD, txt_BD: L2-normalised embeddings of matching pairs.
        scale: 1 / temperature.
    """
    logits_BB = scale * img_BD @ txt_BD.T
    labels_B = torch.arange(len(img_BD), device=img_BD.device)
    return (cross_entropy(logits_BB, labels_B) + cross_entropy(logits_BB.T, labels_B)) / 2


def teachers_of(settings: dict) -> list[str]:
    """None."""
    return []


class Objective(nn.Module):
    """L_CLIP between the images and each kind of texts, one part a kind."""

    def __init__(self, settings: dict) -> None:
        super().__init__()

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        img_BD = embeddings.images["image"]
        return {
            f"{kind}/clip": clip_loss(img_BD, txt_BD, embeddings.scale) for kind, txt_BD in embeddings.texts.items()
        }
