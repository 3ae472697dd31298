"""The loss of multi-modal reinforced training (MobileCLIP, section 3, Eq. 2 and 3).

Shape suffixes: B pairs, D student width, E width of one teacher.
"""

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from clipdr.batch import Embeddings
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


def teachers_of(settings: dict) -> list[str]:
    """Those that the settings name; at λ = 0 none."""
    return settings.get("teachers", [])


class Objective(nn.Module):
    """Eq. 3: over the kinds of captions (real, synthetic), the sum of (1 - λ) L_CLIP + λ L_Distill (Eq. 2).

    `settings` has `lambda`, in [0, 1], and `teachers`. At λ = 0 the teachers are not read, at λ = 1 the contrastive
    loss is not computed.
    """

    def __init__(self, settings: dict) -> None:
        super().__init__()
        self.lam = settings["lambda"]

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        img_BD, scale, parts = embeddings.images["image"], embeddings.scale, {}
        for kind, txt_BD in embeddings.texts.items():
            if self.lam < 1:
                parts[f"{kind}/clip"] = (1 - self.lam) * clip_loss(img_BD, txt_BD, scale)
            if self.lam > 0:
                teachers = [(t.images["image"], t.texts[kind], t.scale) for t in embeddings.teachers.values()]
                parts[f"{kind}/distill"] = self.lam * distillation_loss(img_BD, txt_BD, scale, teachers)
        return parts
