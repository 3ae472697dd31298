"""The objective `dime-fm`: distillation from images and texts that do not belong together (DIME-FM, arXiv 2303.18232).

The image tower alone is trained; the text tower is the teacher's, frozen, and so texts come as the teacher embeds them.

| part | what the student's images are asked | temperature | weight |
|---|---|---|---|
| vl | to score texts as the teacher's do, and to be scored by texts as they are (score distillation) | 1 | 0.7 |
| pvl | to score the teacher's images, which stand for texts, as those do (pseudo-VL) | 3 | 0.3 |
| udist | to lie among each other as the teacher's do (unimodal distances) | 7 | 0 |

Each is KL from the teacher's softmax to the student's, in both directions, of cosines times `scale` / temperature; as
in the published code the one direction of pvl and udist counts twice. Temperatures and weights are that code's; a third
party's implementation has weights of 0.68, 0.22 and 0.10.

Of several teachers the text tower is the first one's. The student's images are held against the others through a linear
layer each, which is trained with them and is no part of the model. Of several teachers the mean is taken.

Shape suffixes: G images, and as many texts, of all processes, B those of this one, D student width, E width of one
teacher.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from clipdr.batch import Embeddings, Teacher
from clipdr.losses.affinity import divergence

PARTS = ("vl", "pvl", "udist")


def teachers_of(settings: dict) -> list[str]:
    """Those that the settings name."""
    return settings["teachers"]


def masked_of(settings: dict) -> float:
    """None of an image is left out."""
    return 0.0


class Objective(nn.Module):
    """The weighted sum of the parts whose weights are not 0, the mean over teachers.

    Args:
        settings: `teachers`; of each part a weight >= 0 and `<part>_temperature`; `scale`, and `mask_diagonal`. See
            workflow/schemas/objectives/dime-fm.schema.yaml.
        width: of the student's embeddings, which is the first teacher's.
        teacher_widths: name -> width.
    """

    def __init__(self, settings: dict, width: int, teacher_widths: dict[str, int]) -> None:
        super().__init__()
        self.weights = {part: settings[part] for part in PARTS if settings[part]}
        self.scales = {part: settings["scale"] / settings[f"{part}_temperature"] for part in PARTS}
        self.mask_diagonal, self.names = settings["mask_diagonal"], settings["teachers"]
        others = self.names[1:]
        self.heads = nn.ModuleDict({name: nn.Linear(width, teacher_widths[name]) for name in others})

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        parts, img_GD = {}, embeddings.images["image"]
        for name in self.names:
            img_GE = normalize(self.heads[name](img_GD), dim=1) if name in self.heads else img_GD
            for part, loss in self._parts(img_GE, embeddings.teachers[name], embeddings.rows).items():
                parts[f"{part}/{name}"] = self.weights[part.partition("/")[0]] * loss / len(self.names)
        return parts

    def _parts(self, img_GE: Tensor, teacher: Teacher, rows: slice) -> dict[str, Tensor]:
        t_img_GE, found = teacher.images["image"], {}
        if "vl" in self.weights:
            for kind, t_txt_GE in teacher.texts.items():
                found[f"vl/{kind}"] = score_distillation(img_GE, t_img_GE, t_txt_GE, self.scales["vl"], rows)
        if "pvl" in self.weights:
            scores = img_GE[rows] @ t_img_GE.T, t_img_GE[rows] @ t_img_GE.T
            found["pvl"] = 2 * self._among_images(*scores, self.scales["pvl"], rows)
        if "udist" in self.weights:
            scores = img_GE[rows] @ img_GE.T, t_img_GE[rows] @ t_img_GE.T
            found["udist"] = 2 * self._among_images(*scores, self.scales["udist"], rows)
        return found

    def _among_images(self, student_BG: Tensor, teacher_BG: Tensor, scale: float, rows: slice) -> Tensor:
        """The divergence of images' scores of images, with their own or without."""
        if self.mask_diagonal:
            student_BG, teacher_BG = without_own(student_BG, rows), without_own(teacher_BG, rows)
        return divergence(scale * student_BG, scale * teacher_BG)


def score_distillation(img_GE: Tensor, t_img_GE: Tensor, t_txt_GE: Tensor, scale: float, rows: slice) -> Tensor:
    """L_vl: KL of the scores that images give texts, and of those that texts give images. All L2-normalised."""
    to_texts = divergence(scale * img_GE[rows] @ t_txt_GE.T, scale * t_img_GE[rows] @ t_txt_GE.T)
    return to_texts + divergence(scale * t_txt_GE[rows] @ img_GE.T, scale * t_txt_GE[rows] @ t_img_GE.T)


def without_own(scores_BG: Tensor, rows: slice) -> Tensor:
    """Scores of `rows` without each one's of itself: [B, G - 1]."""
    b, g = scores_BG.shape
    others_BG = (
        torch.arange(g, device=scores_BG.device)[None, :] != torch.arange(g, device=scores_BG.device)[rows, None]
    )
    return scores_BG[others_BG].reshape(b, g - 1)
