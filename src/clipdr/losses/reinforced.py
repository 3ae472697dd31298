"""The objective `reinforced`: multi-modal reinforced training (MobileCLIP, section 3, Eq. 2 and 3).

The paper's teachers each have a temperature of their own, and the targets are the mean of their probabilities. The
published code can do otherwise, which `fidelity: released_code` repeats: without its flag
`--distill-average-after-softmax` one softmax is taken of the teachers' mean affinities, and where features are gathered
without `--local-loss` the targets from text to image are the softmaxed image-to-text matrix transposed, whose rows do
not add up to one.

Shape suffixes: G pairs of all processes, B those of this one, D student width, E width of one teacher.
"""

import torch
from torch import Tensor, nn

from clipdr.batch import Embeddings, Teacher
from clipdr.losses.affinity import affinities, distillation_loss
from clipdr.losses.clip import clip_loss


def teachers_of(settings: dict) -> list[str]:
    """Those that the settings name; at λ = 0 none."""
    return settings.get("teachers", [])


def masked_of(settings: dict) -> float:
    """None of an image is left out."""
    return 0.0


class Objective(nn.Module):
    """Eq. 3: over the kinds of captions (real, synthetic), the sum of (1 - λ) L_CLIP + λ L_Distill (Eq. 2).

    `settings` has `lambda`, in [0, 1], `teachers` and `fidelity`. At λ = 0 the teachers are not read, at λ = 1 the
    contrastive loss is not computed. L_Distill is the mean over the teachers, one part each.
    """

    def __init__(self, settings: dict, width: int, teacher_widths: dict[str, int]) -> None:
        super().__init__()
        self.lam, self.released_code = settings["lambda"], settings["fidelity"] == "released_code"

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        img_GD, scale, rows, parts = embeddings.images["image"], embeddings.scale, embeddings.rows, {}
        for kind, txt_GD in embeddings.texts.items():
            if self.lam < 1:
                parts[f"{kind}/clip"] = (1 - self.lam) * clip_loss(img_GD, txt_GD, scale, rows)
            if self.lam > 0:
                student = affinities(img_GD, txt_GD, scale, rows)
                for name, loss in self._distill(student, embeddings.teachers, kind, rows).items():
                    parts[f"{kind}/{name}"] = self.lam * loss
        return parts

    def _distill(self, student, teachers: dict[str, Teacher], kind: str, rows: slice) -> dict[str, Tensor]:
        if self.released_code:
            return {"teachers": released_distillation(student, list(teachers.values()), kind, rows)}
        targets = {name: affinities(t.images["image"], t.texts[kind], t.scale, rows) for name, t in teachers.items()}
        return {name: distillation_loss(student, target) / len(targets) for name, target in targets.items()}


def released_distillation(student: tuple[Tensor, Tensor], teachers: list[Teacher], kind: str, rows: slice) -> Tensor:
    """As the published code without its flags: mean affinities before the softmax, text-to-image targets transposed."""
    every = slice(None)
    matrices_GG = [affinities(t.images["image"], t.texts[kind], t.scale, every)[0] for t in teachers]
    target_GG = (sum(matrices_GG) / len(matrices_GG)).softmax(dim=1)
    i2t = _cross_entropy(student[0], target_GG[rows])
    return (i2t + _cross_entropy(student[1], target_GG.T[rows])) / 2


def _cross_entropy(student_BG: Tensor, target_BG: Tensor) -> Tensor:
    return -(target_BG * torch.log_softmax(student_BG, dim=1)).sum(dim=1).mean()
