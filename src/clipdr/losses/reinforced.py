"""The loss of multi-modal reinforced training (MobileCLIP, section 3, Eq. 2 and 3).

Shape suffixes: B pairs, D student width, E width of one teacher.
"""

from torch import Tensor
from torch.nn.functional import log_softmax

from clipdr.losses.clip import clip_loss

Teacher = tuple[Tensor, Tensor, float]  # image embeddings [B, E], text embeddings [B, E], 1 / temperature


def distillation_loss(img_BD: Tensor, txt_BD: Tensor, scale: Tensor | float, teachers: list[Teacher]) -> Tensor:
    """L_Distill: KL from each teacher's affinity matrix to the student's, averaged over pairs, teachers and directions.

    Each teacher has its own temperature. The mean of KL(P_k || Q) over teachers has the gradient of one cross-entropy
    against the mean of the teachers' probabilities: averaged after the softmax, not before.

    Args:
        img_BD, txt_BD: L2-normalised student embeddings.
        scale: the student's 1 / temperature.
        teachers: per teacher, L2-normalised embeddings of the same pairs and 1 / temperature; at least one.

    Raises:
        ValueError: no teachers.
    """
    if not teachers:
        raise ValueError("distillation needs at least one teacher")
    image_to_text = _mean_kl(scale * img_BD @ txt_BD.T, [s * img_BE @ txt_BE.T for img_BE, txt_BE, s in teachers])
    text_to_image = _mean_kl(scale * txt_BD @ img_BD.T, [s * txt_BE @ img_BE.T for img_BE, txt_BE, s in teachers])
    return (image_to_text + text_to_image) / 2


def _mean_kl(student_BB: Tensor, teachers_BB: list[Tensor]) -> Tensor:
    student_BB = log_softmax(student_BB, dim=1)
    kl = 0.0
    for teacher_BB in teachers_BB:
        teacher_BB = log_softmax(teacher_BB, dim=1)
        kl = kl + (teacher_BB.exp() * (teacher_BB - student_BB)).sum(dim=1).mean()
    return kl / len(teachers_BB)


def reinforced_loss(
    img_BD: Tensor, texts_BD: list[Tensor], scale: Tensor | float, lam: float, teachers: list[list[Teacher]]
) -> Tensor:
    """Eq. 3: the sum over caption batches (real, synthetic) of (1 - λ) L_CLIP + λ L_Distill (Eq. 2).

    Args:
        img_BD: student image embeddings, shared by all batches.
        texts_BD: student text embeddings, one tensor per caption batch.
        scale: the student's 1 / temperature.
        lam: λ in [0, 1]; at 0 the teachers are not read, at 1 the contrastive loss is not computed.
        teachers: per caption batch, the teachers of these pairs.
    """
    total = 0.0
    for txt_BD, batch_teachers in zip(texts_BD, teachers, strict=True):
        if lam < 1:
            total = total + (1 - lam) * clip_loss(img_BD, txt_BD, scale)
        if lam > 0:
            total = total + lam * distillation_loss(img_BD, txt_BD, scale, batch_teachers)
    return total
