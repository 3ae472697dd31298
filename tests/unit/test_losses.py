"""The losses against open_clip, the paper's sums written as loops, and what a KL divergence must satisfy."""

import math

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from clipdr.batch import Embeddings, Teacher
from clipdr.losses import module_of, reinforced
from clipdr.losses.affinity import affinities, distillation_loss
from clipdr.losses.clip import clip_loss
from clipdr.losses.reinforced import released_distillation

B, D = 7, 5
SCALE = 12.0
ALL = slice(0, B)


def _embeddings(seed: int, width: int = D, batch: int = B) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(batch, width, generator=random, dtype=torch.float64), dim=1)


def _teachers(seed: int = 100) -> dict[str, Teacher]:
    """Two teachers that differ in width and temperature."""
    return {
        name: Teacher(
            {"image": _embeddings(seed, width)},
            {"real": _embeddings(seed + 1, width), "syn": _embeddings(seed + 2, width)},
            scale,
        )
        for name, seed, width, scale in (("a", seed, 6, 20.0), ("b", seed + 3, 4, 5.0))
    }


def _seen(teachers=None, seeds=(0, 1, 2), scale=SCALE, rows=ALL, kinds=("real", "syn")) -> Embeddings:
    texts = {kind: _embeddings(seed) for kind, seed in zip(kinds, seeds[1:], strict=False)}
    return Embeddings({"image": _embeddings(seeds[0])}, texts, torch.tensor(scale), teachers or _teachers(), rows)


def _parts(seen: Embeddings, lam: float, fidelity: str = "paper") -> dict[str, torch.Tensor]:
    return reinforced.Objective({"lambda": lam, "fidelity": fidelity}, D, {})(seen)


def _both(img, txt, scale):
    return affinities(img, txt, scale, slice(0, len(img)))


def _row_softmax(row: list[float]) -> list[float]:
    exp = [math.exp(x - max(row)) for x in row]
    return [x / sum(exp) for x in exp]


def _slow_distillation(img, txt, scale, teacher, kind) -> float:
    """Eq. 2 for one teacher: (1/2b) of the sum over directions and rows of KL(teacher row || student row)."""
    total = 0.0
    t_img, t_txt = teacher.images["image"].numpy(), teacher.texts[kind].numpy()
    for (rows, columns), (t_rows, t_columns) in (((img, txt), (t_img, t_txt)), ((txt, img), (t_txt, t_img))):
        for i in range(len(rows)):
            p = _row_softmax([teacher.scale * float(np.dot(t_rows[i], c)) for c in t_columns])
            q = _row_softmax([scale * float(np.dot(rows[i], c)) for c in columns])
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / (2 * len(img))


def _slow_clip(img, txt, scale) -> float:
    total = 0.0
    for rows, columns in ((img, txt), (txt, img)):
        for i in range(len(rows)):
            total -= math.log(_row_softmax([scale * float(np.dot(rows[i], c)) for c in columns])[i])
    return total / (2 * len(img))


@pytest.mark.parametrize("batch", [1, 2, 33])
@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_clip_loss_equals_open_clip(batch, scale):
    img, txt = _embeddings(0, batch=batch).float(), _embeddings(1, batch=batch).float()
    ours = clip_loss(img, txt, scale, slice(0, batch))
    torch.testing.assert_close(ours, open_clip.loss.ClipLoss()(img, txt, torch.tensor(scale)))
    assert ours.item() == pytest.approx(_slow_clip(img.numpy(), txt.numpy(), scale), abs=1e-4)


@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_one_teacher_equals_open_clips_distillation(lam):
    """Its loss is a cross-entropy: ours and the teacher's mean entropy; the gradients are the same."""
    teacher = _teachers()["a"]
    img, txt = (_embeddings(seed).requires_grad_() for seed in (0, 1))
    theirs = open_clip.loss.DistillClipLoss()(
        *(img, txt, torch.tensor(SCALE)),
        *(teacher.images["image"], teacher.texts["real"], torch.tensor(teacher.scale)),
    )
    expected = (1 - lam) * theirs[0] + lam * theirs[1]
    seen = Embeddings({"image": img}, {"real": txt}, torch.tensor(SCALE), {"a": teacher}, ALL)
    ours = sum(_parts(seen, lam).values())
    targets = [side.softmax(1) for side in _both(teacher.images["image"], teacher.texts["real"], teacher.scale)]
    entropy = -sum((p * p.log()).sum(1).mean() for p in targets) / 2
    torch.testing.assert_close(ours + lam * entropy, expected)
    for mine, other in zip(
        torch.autograd.grad(ours, (img, txt)), torch.autograd.grad(expected, (img, txt)), strict=True
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_the_parts_are_the_papers_sums(lam):
    seen, teachers = _seen(), _teachers()
    parts, img = _parts(seen, lam), _embeddings(0).numpy()
    expected = {}
    for kind, seed in (("real", 1), ("syn", 2)):
        txt = _embeddings(seed).numpy()
        if lam < 1:
            expected[f"{kind}/clip"] = (1 - lam) * _slow_clip(img, txt, SCALE)
        if lam > 0:
            for name, teacher in teachers.items():
                expected[f"{kind}/{name}"] = lam / 2 * _slow_distillation(img, txt, SCALE, teacher, kind)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_distillation_is_never_negative_and_zero_for_the_teacher_itself(seed):
    student, teacher = (_both(_embeddings(seed + n), _embeddings(seed + 50 + n), SCALE) for n in (0, 7))
    assert distillation_loss(student, teacher).item() > 0
    assert distillation_loss(student, student).item() == pytest.approx(0, abs=1e-14)
    assert distillation_loss(student, tuple(2 * side for side in student)).item() > 1e-3


def _gradient(loss, *leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    return torch.autograd.grad(loss(*leaves), leaves)


def _cross_entropy(img, txt, targets):
    sides = [-(p * x.log_softmax(1)).sum(1).mean() for p, x in zip(targets, _both(img, txt, SCALE), strict=True)]
    return sum(sides) / 2


@pytest.mark.parametrize("fidelity", ["paper", "released_code"])
def test_teachers_are_averaged_after_the_softmax_or_before_it(fidelity):
    """The paper's gradient is that of mean probabilities; the published code's default is that of mean logits."""
    img, txt, teachers = _embeddings(0), _embeddings(1), _teachers()
    logits = [_both(t.images["image"], t.texts["real"], t.scale) for t in teachers.values()]
    after = [sum(side.softmax(1) for side in sides) / 2 for sides in zip(*logits, strict=True)]
    before = (sum(i2t for i2t, _ in logits) / 2).softmax(1)
    transposed = [before, before.T]  # columns add up to one, not rows

    def ours(a, b):
        return sum(_parts(Embeddings({"image": a}, {"real": b}, SCALE, teachers, ALL), 1.0, fidelity).values())

    wanted, other = (after, transposed) if fidelity == "paper" else (transposed, after)
    mine = _gradient(ours, img, txt)
    for a, b in zip(mine, _gradient(lambda a, b: _cross_entropy(a, b, wanted), img, txt), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(mine, _gradient(lambda a, b: _cross_entropy(a, b, other), img, txt), strict=True):
        assert (a - b).abs().max() > 0.001


@pytest.mark.parametrize("fidelity", ["paper", "released_code"])
@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_the_mean_over_processes_is_the_loss_of_the_whole_batch(fidelity, lam):
    whole = _parts(_seen(), lam, fidelity)
    shares = [_parts(_seen(rows=slice(n, n + 1)), lam, fidelity) for n in range(B)]
    for name, part in whole.items():
        torch.testing.assert_close(sum(share[name] for share in shares) / B, part)


def test_each_teacher_has_its_own_temperature():
    parts, teachers = _parts(_seen(), 1.0), _teachers()
    swapped = {"a": Teacher(teachers["a"].images, teachers["a"].texts, 5.0), "b": teachers["b"]}
    other = _parts(_seen(swapped), 1.0)
    assert abs(parts["real/a"] - other["real/a"]) > 0.01
    torch.testing.assert_close(parts["real/b"], other["real/b"])


def test_lambda_zero_reads_no_teacher():
    nan = Teacher({"image": torch.full((B, D), torch.nan)}, {"real": torch.full((B, D), torch.nan)}, 1.0)
    parts = _parts(_seen({"nan": nan}, kinds=("real",)), 0.0)
    assert parts.keys() == {"real/clip"} and torch.isfinite(parts["real/clip"])
    assert reinforced.teachers_of({"lambda": 0.0}) == []


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gradients_equal_finite_differences(lam):
    teachers = _teachers()

    def loss(img, real, syn, scale):
        texts = {"real": normalize(real, dim=1), "syn": syn}
        return sum(_parts(Embeddings({"image": normalize(img, dim=1)}, texts, scale, teachers, ALL), lam).values())

    inputs = [_embeddings(seed).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(loss, (*inputs, torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)))


def test_order_of_the_batch_does_not_matter_but_pairs_do():
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    seen = _seen()
    shuffled = Embeddings(
        {"image": seen.images["image"][order]},
        {kind: emb[order] for kind, emb in seen.texts.items()},
        seen.scale,
        {name: teacher.map(lambda emb: emb[order]) for name, teacher in seen.teachers.items()},
        ALL,
    )
    for name, part in _parts(seen, 0.5).items():
        torch.testing.assert_close(_parts(shuffled, 0.5)[name], part)
    img, txt = seen.images["image"], seen.texts["real"]
    assert abs(clip_loss(img, txt[order], SCALE, ALL) - clip_loss(img, txt, SCALE, ALL)) > 0.01


def test_an_objective_is_a_module_by_its_name_with_a_schema():
    from clipdr.config import load_objectives
    from clipdr.schema import REPOSITORY

    for name in load_objectives(REPOSITORY):
        module = module_of({"name": name})
        assert callable(module.teachers_of) and issubclass(module.Objective, torch.nn.Module)


def test_the_released_targets_from_text_to_image_are_no_distribution():
    """What the published code does where features are gathered without --local-loss."""
    img, txt, teachers = _embeddings(0), _embeddings(1), _teachers()
    student = _both(img, txt, SCALE)
    one = [teachers["a"]]
    target = _both(one[0].images["image"], one[0].texts["real"], one[0].scale)[0].softmax(1)
    expected = (
        -(target * student[0].log_softmax(1)).sum(1).mean() - (target.T * student[1].log_softmax(1)).sum(1).mean()
    )
    torch.testing.assert_close(released_distillation(student, one, "real", ALL), expected / 2)
    assert (target.T.sum(1) - 1).abs().max() > 0.05
