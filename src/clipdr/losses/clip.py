"""The contrastive loss of CLIP. Shape suffixes: B pairs, D embedding width."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def clip_loss(img_BD: Tensor, txt_BD: Tensor, scale: Tensor | float) -> Tensor:
    """Symmetric cross-entropy over the batch's affinity matrix (CLIP, figure 3; L_CLIP of MobileCLIP's Eq. 2).

    Args:
        img_BD, txt_BD: L2-normalised embeddings of matching pairs.
        scale: 1 / temperature.
    """
    logits_BB = scale * img_BD @ txt_BD.T
    labels_B = torch.arange(len(img_BD), device=img_BD.device)
    return (cross_entropy(logits_BB, labels_B) + cross_entropy(logits_BB.T, labels_B)) / 2
