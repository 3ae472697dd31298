"""Affinities of images and texts, and distillation of a teacher's.

Shape suffixes: G pairs of all processes, B those of this one, E embedding width.
"""

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


def affinities(img_GE: Tensor, txt_GE: Tensor, scale: Tensor | float, rows: slice) -> tuple[Tensor, Tensor]:
    """Scaled similarities [B, G] of `rows`: images to texts, and texts to images."""
    if len(range(*rows.indices(len(img_GE)))) == len(img_GE):  # one process: the second is the transpose of the first
        i2t_GG = scale * img_GE @ txt_GE.T
        return i2t_GG, i2t_GG.T
    return scale * img_GE[rows] @ txt_GE.T, scale * txt_GE[rows] @ img_GE.T


def distillation_loss(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """KL from a teacher's affinities to the student's, averaged over pairs and directions.

    This is L_Distill of MobileCLIP's Eq. 2, CRD of CLIP-KD (its Eq. 4 to 10) and TinyCLIP's affinity mimicking, but for
    the temperatures; open_clip's DistillClipLoss adds the teacher's entropy, which has no gradient. The mean of
    KL(P_k || Q) over teachers has the gradient of one cross-entropy against the mean of the teachers' probabilities:
    averaged after the softmax, not before.

    Args:
        student, teacher: what `affinities` gives, [B, G].
    """
    return (divergence(student[0], teacher[0]) + divergence(student[1], teacher[1])) / 2


def divergence(student_BG: Tensor, teacher_BG: Tensor) -> Tensor:
    """KL(teacher || student) of the softmaxes over each row, the mean over rows."""
    target_BG = log_softmax(teacher_BG, dim=1)
    return kl_div(log_softmax(student_BG, dim=1), target_BG, reduction="batchmean", log_target=True)
