"""The losses against open_clip, the paper's sums written as loops, and what a KL divergence must satisfy."""

import math

import numpy as np
import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from clipdr.losses.clip import clip_loss
from clipdr.losses.reinforced import distillation_loss, reinforced_loss

B, D = 7, 5
SCALE = 12.0


def _embeddings(seed: int, width: int = D, batch: int = B) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(batch, width, generator=random, dtype=torch.float64), dim=1)


def _teachers(seed: int = 100) -> list:
    """Two teachers that differ in width and temperature."""
    return [
        (_embeddings(seed, 6), _embeddings(seed + 1, 6), 20.0),
        (_embeddings(seed + 2, 4), _embeddings(seed + 3, 4), 5.0),
    ]


def _row_softmax(row: list[float]) -> list[float]:
    exp = [math.exp(x - max(row)) for x in row]
    return [x / sum(exp) for x in exp]


def _slow_distillation(img, txt, scale, teachers) -> float:
    """Eq. 2: (1/2bK) of the sum over directions, teachers and rows of KL(teacher row || student row), term by term."""
    total = 0.0
    for direction in (0, 1):
        for teacher in teachers:
            rows, columns = (img, txt) if direction == 0 else (txt, img)
            t_rows, t_columns = (teacher[0], teacher[1]) if direction == 0 else (teacher[1], teacher[0])
            for i in range(len(rows)):
                p = _row_softmax([teacher[2] * float(np.dot(t_rows[i], c)) for c in t_columns])
                q = _row_softmax([scale * float(np.dot(rows[i], c)) for c in columns])
                total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / (2 * len(img) * len(teachers))


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
    expected = open_clip.loss.ClipLoss()(img, txt, torch.tensor(scale))
    torch.testing.assert_close(clip_loss(img, txt, scale), expected)
    assert clip_loss(img, txt, scale).item() == pytest.approx(_slow_clip(img.numpy(), txt.numpy(), scale), abs=1e-4)


def test_distillation_equals_the_papers_sum():
    img, txt, teachers = _embeddings(0), _embeddings(1), _teachers()
    numpy_teachers = [(a.numpy(), b.numpy(), s) for a, b, s in teachers]
    expected = _slow_distillation(img.numpy(), txt.numpy(), SCALE, numpy_teachers)
    assert distillation_loss(img, txt, SCALE, teachers).item() == pytest.approx(expected, abs=1e-12)


def test_distillation_equals_torch_kl_div_against_the_right_side():
    """torch's kl_div(log Q, P, batchmean) is KL(P || Q): the teacher is P."""
    img, txt, (teacher, _) = _embeddings(0), _embeddings(1), _teachers()
    q, p = SCALE * img @ txt.T, teacher[2] * teacher[0] @ teacher[1].T
    sides = [
        torch.nn.functional.kl_div(a.log_softmax(1), b.softmax(1), reduction="batchmean")
        for a, b in ((q, p), (q.T, p.T))  # softmax after the transpose: each direction has its own rows
    ]
    torch.testing.assert_close(distillation_loss(img, txt, SCALE, [teacher]), sum(sides) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_distillation_is_never_negative_and_zero_for_the_teacher_itself(seed):
    img, txt = _embeddings(seed), _embeddings(seed + 50)
    assert distillation_loss(img, txt, SCALE, _teachers(seed)).item() > 0
    assert distillation_loss(img, txt, SCALE, [(img, txt, SCALE)] * 2).item() == pytest.approx(0, abs=1e-14)
    assert distillation_loss(img, txt, SCALE, [(img, txt, 2 * SCALE)]).item() > 1e-3


def _gradient(loss, *leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    return torch.autograd.grad(loss(*leaves), leaves)


def _cross_entropy(img, txt, targets):
    logits = SCALE * img @ txt.T
    sides = [-(p * x.log_softmax(1)).sum(1).mean() for p, x in zip(targets, (logits, logits.T), strict=True)]
    return sum(sides) / 2


def test_gradient_is_that_of_the_mean_of_the_teachers_probabilities():
    """Averaged after the softmax; the mean of logits, averaged before, has another gradient."""
    img, txt, teachers = _embeddings(0), _embeddings(1), _teachers()
    logits = [s * a @ b.T for a, b, s in teachers]
    after = [torch.stack([side.softmax(1) for side in sides]).mean(0) for sides in (logits, [x.T for x in logits])]
    before = [torch.stack(sides).mean(0).softmax(1) for sides in (logits, [x.T for x in logits])]
    ours = _gradient(lambda a, b: distillation_loss(a, b, SCALE, teachers), img, txt)
    for mine, theirs in zip(ours, _gradient(lambda a, b: _cross_entropy(a, b, after), img, txt), strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(ours, _gradient(lambda a, b: _cross_entropy(a, b, before), img, txt), strict=True):
        assert (mine - theirs).abs().max() > 0.01


def test_each_teacher_has_its_own_temperature():
    img, txt, (first, second) = _embeddings(0), _embeddings(1), _teachers()
    apart = [distillation_loss(img, txt, SCALE, [teacher]) for teacher in (first, second)]
    torch.testing.assert_close(distillation_loss(img, txt, SCALE, [first, second]), sum(apart) / 2)
    swapped = [(*first[:2], second[2]), (*second[:2], first[2])]
    assert abs(distillation_loss(img, txt, SCALE, swapped) - sum(apart) / 2) > 0.01


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_reinforced_loss_is_the_sum_over_caption_batches(lam):
    img, texts, teachers = _embeddings(0), [_embeddings(1), _embeddings(2)], [_teachers(100), _teachers(200)]
    expected = 0.0
    for txt, of_batch in zip(texts, teachers, strict=True):
        expected += (1 - lam) * _slow_clip(img.numpy(), txt.numpy(), SCALE)
        numpy_teachers = [(a.numpy(), b.numpy(), s) for a, b, s in of_batch]
        expected += lam * _slow_distillation(img.numpy(), txt.numpy(), SCALE, numpy_teachers)
    assert reinforced_loss(img, texts, SCALE, lam, teachers).item() == pytest.approx(expected, abs=1e-12)


def test_lambda_zero_reads_no_teacher_and_lambda_one_no_label():
    img, txt = _embeddings(0), _embeddings(1)
    torch.testing.assert_close(reinforced_loss(img, [txt], SCALE, 0.0, [[]]), clip_loss(img, txt, SCALE))
    nan = torch.full((B, D), torch.nan)
    assert torch.isfinite(reinforced_loss(img, [txt], SCALE, 0.0, [[(nan, nan, 1.0)]]))
    only = distillation_loss(img, txt, SCALE, _teachers())
    torch.testing.assert_close(reinforced_loss(img, [txt], SCALE, 1.0, [_teachers()]), only)


def test_caption_batches_and_their_teachers_must_pair_up():
    with pytest.raises(ValueError):
        reinforced_loss(_embeddings(0), [_embeddings(1)] * 2, SCALE, 0.5, [_teachers()])


@pytest.mark.parametrize("lam", [0.0, 0.7, 1.0])
def test_gradients_equal_finite_differences(lam):
    teachers = [_teachers(100), _teachers(200)]

    def loss(img, real, syn, scale):
        return reinforced_loss(normalize(img, dim=1), [normalize(real, dim=1), syn], scale, lam, teachers)

    inputs = [_embeddings(seed).requires_grad_() for seed in range(3)]
    assert torch.autograd.gradcheck(loss, (*inputs, torch.tensor(SCALE, dtype=torch.float64, requires_grad=True)))


def test_order_of_the_batch_does_not_matter():
    img, txt, teachers = _embeddings(0), _embeddings(1), _teachers()
    order = torch.randperm(B, generator=torch.Generator().manual_seed(0))
    shuffled = [(a[order], b[order], s) for a, b, s in teachers]
    expected = reinforced_loss(img, [txt], SCALE, 0.5, [teachers])
    torch.testing.assert_close(reinforced_loss(img[order], [txt[order]], SCALE, 0.5, [shuffled]), expected)
    # but pairs must stay pairs: the contrastive part sees which text belongs to which image
    assert abs(clip_loss(img, txt[order], SCALE) - clip_loss(img, txt, SCALE)) > 0.01
