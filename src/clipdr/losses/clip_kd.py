"""The objective `clip-kd`: what a student learns of a teacher's embeddings (CLIP-KD, arXiv 2307.12732, section 3).

| part | | equation |
|---|---|---|
| clip | the contrastive loss of the student alone | 1 to 3 |
| crd | contrastive relations: KL from the teacher's affinities to the student's | 4 to 10 |
| fd | features: mean squared difference of the embeddings | 11 |
| mfd | the same, of images of which the student sees a part of the patches | 12 |
| gd | gradients of the contrastive loss with respect to the embeddings: mean squared difference | 13, 19 to 24 |
| icl | interactive contrast: the student's images against the teacher's texts, and the other way round | 14 to 16 |
| afd | augmented features: contrast of both models' embeddings, fused by a layer of its own | 17 |

Mean squared differences are taken over pairs and over coordinates. That of unit vectors is (2 - 2 cos) / E, and a
gradient is a G-th of one pair's: so weights mean something else for other widths and batches than the paper's 512 and
1024. `for_width` and `for_batch` say what weights were chosen for; they are then brought to the run's. Where widths
differ, `fd`, `mfd`, `gd` and `icl` see the student through a linear layer and at unit length again. Of several teachers
the mean is taken.

`fidelity: released_code` does as the published code where that is not what the paper says: `gd` divides by 1 /
temperature where it should multiply, `icl` and `afd` use the logarithm of their scale for the scale, and `mfd` masks
nothing. There projections see embeddings before they are normalised; here they see unit vectors, which is what an
objective knows.

Shape suffixes: G pairs of all processes, B those of this one, D student width, E width of one teacher.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss, normalize

from clipdr.batch import Embeddings, Teacher
from clipdr.errors import UserError
from clipdr.losses.affinity import affinities, distillation_loss
from clipdr.losses.clip import clip_loss

PARTS = ("crd", "fd", "mfd", "gd", "icl", "afd")
MASKED = "masked"  # name of the images of which the student saw a part
FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0  # of `icl` and `afd`, as CLIP's own


def teachers_of(settings: dict) -> list[str]:
    """Those that the settings name, if any part asks them."""
    return settings["teachers"] if any(settings[part] for part in PARTS) else []


def masked_of(settings: dict) -> float:
    """The share of patches that are left out of a second look at each image; 0 for no such look."""
    return settings["mask_ratio"] if settings["mfd"] and settings["fidelity"] == "paper" else 0.0


class Objective(nn.Module):
    """The weighted sum of the contrastive loss and the parts whose weights are not 0, for each kind of captions.

    Args:
        settings: `teachers`, a weight >= 0 of `clip` and of each part, what they were chosen for, `scale`, `projection`
            and `fidelity`; see workflow/schemas/objectives/clip-kd.schema.yaml.
        width: of the student's embeddings.
        teacher_widths: name -> width.

    Raises:
        UserError: widths differ, and `projection` is false.
    """

    def __init__(self, settings: dict, width: int, teacher_widths: dict[str, int]) -> None:
        super().__init__()
        self.clip, self.names = settings["clip"], teachers_of(settings)
        self.distillers = nn.ModuleList(Distiller(settings, width, teacher_widths[name], name) for name in self.names)

    def forward(self, embeddings: Embeddings) -> dict[str, Tensor]:
        parts = {}
        for kind, txt_GD in embeddings.texts.items():
            if self.clip:
                own = clip_loss(embeddings.images["image"], txt_GD, embeddings.scale, embeddings.rows)
                parts[f"{kind}/clip"] = self.clip * own
            for name, distiller in zip(self.names, self.distillers, strict=True):
                for part, loss in distiller(embeddings, txt_GD, embeddings.teachers[name], kind).items():
                    parts[f"{kind}/{part}/{name}"] = loss / len(self.names)
        return parts


class Distiller(nn.Module):
    """The parts that one teacher gives, and the layers that they train."""

    def __init__(self, settings: dict, width: int, teacher_width: int, name: str) -> None:
        super().__init__()
        self.weights = {part: settings[part] for part in PARTS if settings[part]}
        self.scale, self.released_code = settings.get("scale"), settings["fidelity"] == "released_code"
        self.chosen_for = {key: settings.get(f"for_{key}") for key in ("width", "batch")}
        projected = self.weights.keys() & {"fd", "mfd", "gd", "icl"} and width != teacher_width
        if projected and not settings["projection"]:
            raise UserError(
                f"objective: embeddings of the student have width {width}, those of teacher {name!r} {teacher_width}; "
                "set objective.projection to true, or use crd and afd alone"
            )
        self.heads = nn.ModuleDict(
            {side: nn.Linear(width, teacher_width) for side in ("image", "text")} if projected else {}
        )
        self.fusions = nn.ModuleDict(
            {side: nn.Linear(width + teacher_width, width) for side in ("image", "text")}
            if "afd" in self.weights
            else {}
        )
        learned = [part for part in ("icl", "afd") if part in self.weights]
        self.log_scales = nn.ParameterDict(
            {f"{part}_logit_scale": nn.Parameter(torch.tensor(math.log(FIRST_SCALE))) for part in learned}
        )

    def forward(self, seen: Embeddings, txt_GD: Tensor, teacher: Teacher, kind: str) -> dict[str, Tensor]:
        losses: dict[str, Callable[..., Tensor]] = {
            "crd": self._crd,
            "fd": self._fd,
            "mfd": self._mfd,
            "gd": self._gd,
            "icl": self._icl,
            "afd": self._afd,
        }
        args = (seen, txt_GD, teacher.images["image"], teacher.texts[kind], teacher.scale)
        pairs, width = teacher.images["image"].shape
        return {part: self.weight(part, pairs, width) * losses[part](*args) for part in self.weights}

    def weight(self, part: str, pairs: int, width: int) -> float:
        """Of a part, in a batch of so many pairs and at this width."""
        weight = self.weights[part]
        if part in ("fd", "mfd", "gd"):
            weight *= width / (self.chosen_for["width"] or width)
        return weight * (pairs / (self.chosen_for["batch"] or pairs)) ** 2 if part == "gd" else weight

    def _crd(self, seen, txt_GD, t_img_GE, t_txt_GE, t_scale) -> Tensor:
        student = affinities(seen.images["image"], txt_GD, self.scale or seen.scale, seen.rows)
        return distillation_loss(student, affinities(t_img_GE, t_txt_GE, self.scale or t_scale, seen.rows))

    def _fd(self, seen, txt_GD, t_img_GE, t_txt_GE, t_scale, image: str = "image") -> Tensor:
        img_GE, txt_GE = self.project("image", seen.images[image]), self.project("text", txt_GD)
        return feature_loss(img_GE, t_img_GE, seen.rows) + feature_loss(txt_GE, t_txt_GE, seen.rows)

    def _mfd(self, *args) -> Tensor:
        return self._fd(*args, image="image" if self.released_code else MASKED)

    def _gd(self, seen, txt_GD, t_img_GE, t_txt_GE, t_scale) -> Tensor:
        img_GE, txt_GE = self.project("image", seen.images["image"]), self.project("text", txt_GD)
        scales = (1 / seen.scale, 1 / t_scale) if self.released_code else (seen.scale, t_scale)
        return gradient_loss((img_GE, txt_GE, scales[0]), (t_img_GE, t_txt_GE, scales[1]), seen.rows)

    def _icl(self, seen, txt_GD, t_img_GE, t_txt_GE, t_scale) -> Tensor:
        img_GE, txt_GE = self.project("image", seen.images["image"]), self.project("text", txt_GD)
        return interactive_loss(img_GE, txt_GE, t_img_GE, t_txt_GE, self.learned_scale("icl"), seen.rows)

    def _afd(self, seen, txt_GD, t_img_GE, t_txt_GE, t_scale) -> Tensor:
        img_GD = normalize(self.fusions["image"](torch.cat([seen.images["image"], t_img_GE], dim=1)), dim=1)
        fused_GD = normalize(self.fusions["text"](torch.cat([txt_GD, t_txt_GE], dim=1)), dim=1)
        return clip_loss(img_GD, fused_GD, self.learned_scale("afd"), seen.rows)

    def project(self, side: str, emb_GD: Tensor) -> Tensor:
        """The student's embeddings at the teacher's width, L2-normalised [G, E]."""
        return normalize(self.heads[side](emb_GD), dim=1) if self.heads else emb_GD

    def learned_scale(self, part: str) -> Tensor:
        """1 / temperature of a part of its own."""
        log_scale = self.log_scales[f"{part}_logit_scale"]
        return log_scale if self.released_code else log_scale.exp().clamp(max=LARGEST_SCALE)


def feature_loss(emb_GE: Tensor, teacher_GE: Tensor, rows: slice) -> Tensor:
    """Mean squared difference of `rows`, over pairs and coordinates (Eq. 11). Both L2-normalised."""
    return mse_loss(emb_GE[rows], teacher_GE[rows])


def interactive_loss(
    img_GE: Tensor, txt_GE: Tensor, t_img_GE: Tensor, t_txt_GE: Tensor, scale: Tensor, rows: slice
) -> Tensor:
    """Cross-entropy of the student's images against the teacher's texts, and of its texts against the images."""
    labels_B = torch.arange(len(img_GE), device=img_GE.device)[rows]
    images = cross_entropy(scale * img_GE[rows] @ t_txt_GE.T, labels_B)
    return (images + cross_entropy(scale * txt_GE[rows] @ t_img_GE.T, labels_B)) / 2


def gradient_loss(student: tuple, teacher: tuple, rows: slice) -> Tensor:
    """Mean squared difference of `contrastive_gradients`, summed over directions and sides (Eq. 13).

    Args:
        student, teacher: images [G, E], texts [G, E], both L2-normalised, and 1 / temperature.
    """
    total = 0.0
    for side in (0, 1):
        ours, theirs = (contrastive_gradients(model[side], model[1 - side], model[2]) for model in (student, teacher))
        total = total + sum(mse_loss(one[rows], other[rows]) for one, other in zip(ours, theirs, strict=True))
    return total


def contrastive_gradients(query_GE: Tensor, key_GE: Tensor, scale: Tensor | float) -> tuple[Tensor, Tensor]:
    """Gradients of the mean cross-entropy from queries to keys, with respect to both (Eq. 19 to 24). [G, E] each."""
    p_GG = (scale * query_GE @ key_GE.T).softmax(dim=1)
    excess_GG = (p_GG - torch.eye(len(p_GG), dtype=p_GG.dtype, device=p_GG.device)) * scale / len(p_GG)
    return excess_GG @ key_GE, excess_GG.T @ query_GE
