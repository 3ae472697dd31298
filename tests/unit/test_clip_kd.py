"""The losses of CLIP-KD against open_clip, automatic differentiation, finite differences, and what must not matter."""

import math

import open_clip
import pytest
import torch
from refusals import refused
from torch.nn.functional import cross_entropy, normalize

from clipdr.batch import Embeddings, Teacher
from clipdr.errors import UserError
from clipdr.losses import clip_kd, reinforced
from clipdr.losses.clip import clip_loss
from clipdr.losses.clip_kd import contrastive_gradients, feature_loss, gradient_loss, interactive_loss
from clipdr.model_files import load_models
from clipdr.models.build import build
from clipdr.schema import REPOSITORY, defaults, validate
from clipdr.train.student import Student

B, D, E = 6, 5, 7
ALL = slice(0, B)
NONE = {"teachers": ["t"], "clip": 0.0, "projection": True, "mask_ratio": 0.75, "fidelity": "paper"}
NONE |= dict.fromkeys(clip_kd.PARTS, 0.0)
EVERY = {"crd": 1.0, "fd": 2000.0, "mfd": 300.0, "gd": 1e4, "icl": 0.5, "afd": 0.25}


def emb(seed: int, width: int = D) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(B, width, generator=random, dtype=torch.float64), dim=1)


def seen(rows: slice = ALL, width: int = E, order=ALL) -> Embeddings:
    """A student's embeddings of images, of masked ones and of texts, and a teacher's, in some order of the pairs."""
    teacher = Teacher({"image": emb(3, width)[order]}, {"real": emb(4, width)[order]}, 20.0)
    images = {"image": emb(0)[order], "masked": emb(1)[order]}
    return Embeddings(images, {"real": emb(2)[order]}, torch.tensor(12.0, dtype=torch.float64), {"t": teacher}, rows)


def objective(width: int = E, **settings) -> clip_kd.Objective:
    torch.manual_seed(0)
    return clip_kd.Objective(NONE | settings, D, {"t": width}).double()


def parts(embeddings: Embeddings, width: int = E, **settings) -> dict[str, float]:
    return {name: part.item() for name, part in objective(width, **settings)(embeddings).items()}


def test_relations_are_mobileclips_distillation_and_have_open_clips_gradient():
    """One function for three papers: equal to `reinforced` at λ = 1, to open_clip's up to the teacher's entropy."""
    one = seen()
    theirs = reinforced.Objective({"lambda": 1, "fidelity": "paper"}, D, {})(one)["real/t"]
    assert parts(one, crd=3.0) == pytest.approx({"real/crd/t": 3 * theirs.item()})
    img, txt, teacher = one.images["image"].requires_grad_(), one.texts["real"].requires_grad_(), one.teachers["t"]
    ours = objective(crd=1.0)(one)["real/crd/t"]
    _, expected = open_clip.loss.DistillClipLoss()(
        *(img, txt, one.scale), *(teacher.images["image"], teacher.texts["real"], torch.tensor(teacher.scale))
    )
    for mine, other in zip(
        torch.autograd.grad(ours, (img, txt)), torch.autograd.grad(expected, (img, txt)), strict=True
    ):
        torch.testing.assert_close(mine, other)


def test_a_fixed_temperature_is_that_of_both_models():
    """TinyCLIP's policy: the student's affinities are divided by the same constant as the teacher's."""
    one = seen()
    teacher = one.teachers["t"]
    fixed = Embeddings(
        one.images, one.texts, torch.tensor(50.0).double(), {"t": Teacher(teacher.images, teacher.texts, 50.0)}, ALL
    )
    assert parts(one, crd=1.0, scale=50.0) == pytest.approx(parts(fixed, crd=1.0))
    assert parts(one, crd=1.0, scale=50.0) != pytest.approx(parts(one, crd=1.0))


def test_features_are_a_mean_over_pairs_and_coordinates():
    """For unit vectors the mean squared difference is (2 - 2 cos) / width: the weight depends on the width."""
    ours, theirs = emb(0, E), emb(3, E)
    cosine = (ours * theirs).sum(1)
    assert feature_loss(ours, theirs, ALL).item() == pytest.approx(((2 - 2 * cosine) / E).mean().item())
    assert feature_loss(ours, ours, ALL) == 0
    one = seen(width=D)
    both = [feature_loss(a, b, ALL).item() for a, b in ((emb(0), emb(3)), (emb(2), emb(4)))]
    assert parts(one, width=D, fd=2000.0) == pytest.approx({"real/fd/t": 2000 * sum(both)})


def test_weights_that_were_chosen_for_another_width_and_batch_are_brought_to_this_one():
    """Unit vectors at one angle, and the gradients of pairs alike, then weigh the same whatever width and batch."""
    plain, brought = parts(seen(), **EVERY), parts(seen(), **EVERY, for_width=2 * E, for_batch=3 * B)
    ratio = {part: brought[f"real/{part}/t"] / plain[f"real/{part}/t"] for part in EVERY}
    assert ratio == pytest.approx({"crd": 1, "icl": 1, "afd": 1, "fd": 1 / 2, "mfd": 1 / 2, "gd": 1 / 18})


def test_masked_features_differ_in_the_students_images_alone():
    one = seen()
    masked = Embeddings({"image": one.images["masked"]}, one.texts, one.scale, one.teachers, ALL)
    assert parts(one, mfd=1.0)["real/mfd/t"] == pytest.approx(parts(masked, fd=1.0)["real/fd/t"])
    released = parts(one, mfd=1.0, fidelity="released_code")["real/mfd/t"]
    assert released == pytest.approx(parts(one, fd=1.0)["real/fd/t"]), "the published code masks nothing"
    assert clip_kd.masked_of(NONE | {"mfd": 1.0}) == 0.75
    assert clip_kd.masked_of(NONE | {"mfd": 1.0, "fidelity": "released_code"}) == clip_kd.masked_of(NONE) == 0


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
def test_gradients_in_closed_form_are_those_of_the_contrastive_loss(scale):
    """Against automatic differentiation, and finite differences of the cross-entropy."""

    def loss(query, key):
        return cross_entropy(scale * query @ key.T, torch.arange(B))

    query, key = emb(0).requires_grad_(), emb(2).requires_grad_()
    found = contrastive_gradients(query, key, scale)
    for mine, other in zip(found, torch.autograd.grad(loss(query, key), (query, key)), strict=True):
        torch.testing.assert_close(mine, other)
    step = torch.zeros(B, D, dtype=torch.float64)
    step[2, 3] = 1e-6
    for gradient, change in ((found[0], (step, 0)), (found[1], (0, step))):
        above, below = (loss(query + sign * change[0], key + sign * change[1]).item() for sign in (1, -1))
        assert gradient[2, 3].item() == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-9)


def test_gradient_distillation_is_four_means_and_the_published_code_inverts_the_temperature():
    one, width = seen(width=D), D
    teacher = one.teachers["t"]
    student = (one.images["image"], one.texts["real"], one.scale.item())
    theirs = (teacher.images["image"], teacher.texts["real"], teacher.scale)

    def slow(invert: bool) -> float:
        total = 0.0
        for side in (0, 1):
            for n in (0, 1):
                a, b = (
                    contrastive_gradients(m[side], m[1 - side], 1 / m[2] if invert else m[2])[n]
                    for m in (student, theirs)
                )
                total += ((a - b) ** 2).mean().item()
        return total

    assert parts(one, width, gd=2.0) == pytest.approx({"real/gd/t": 2 * slow(False)})
    assert parts(one, width, gd=2.0, fidelity="released_code") == pytest.approx({"real/gd/t": 2 * slow(True)})
    assert slow(True) < slow(False) / 100, "so that a weight for one swamps with the other"
    assert gradient_loss(student, student, ALL) == 0


def test_interaction_with_oneself_is_the_contrastive_loss():
    img, txt = emb(0), emb(2)
    assert interactive_loss(img, txt, img, txt, 12.0, ALL).item() == pytest.approx(
        clip_loss(img, txt, 12.0, ALL).item()
    )


def test_scales_of_their_own_begin_as_clips_and_the_published_code_forgets_the_exponential():
    one = seen(width=D)
    teacher = one.teachers["t"]
    args = (one.images["image"], one.texts["real"], teacher.images["image"], teacher.texts["real"])
    for fidelity, scale in (("paper", 1 / 0.07), ("released_code", math.log(1 / 0.07))):
        expected = interactive_loss(*args, scale, ALL).item()
        assert parts(one, D, icl=1.0, fidelity=fidelity)["real/icl/t"] == pytest.approx(expected, rel=1e-6)
    made = objective(D, icl=1.0)
    made.distillers[0].log_scales["icl_logit_scale"].data.fill_(9.0)
    assert made.distillers[0].learned_scale("icl") == 100


def test_augmented_features_are_fused_from_both_models():
    """With layers that copy the student's part, the contrastive loss of the student; widths may differ."""
    one, made = seen(), objective(afd=1.0)
    for fusion in made.distillers[0].fusions.values():
        assert fusion.weight.shape == (D, D + E)
        fusion.weight.data = torch.cat([torch.eye(D), torch.zeros(D, E)], dim=1).double()
        fusion.bias.data.zero_()
    expected = clip_loss(one.images["image"], one.texts["real"], 1 / 0.07, ALL).item()
    assert made(one)["real/afd/t"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("fidelity", ["paper", "released_code"])
def test_the_order_of_pairs_and_how_processes_share_them_change_nothing(fidelity):
    settings = {**EVERY, "clip": 1.0, "fidelity": fidelity}
    whole = parts(seen(), **settings)
    assert whole.keys() == {"real/clip", *(f"real/{part}/t" for part in clip_kd.PARTS)}
    assert parts(seen(order=[3, 0, 5, 1, 4, 2]), **settings) == pytest.approx(whole)
    shares = [parts(seen(rows=rows), **settings) for rows in (slice(0, 2), slice(2, 4), slice(4, 6))]
    assert {name: sum(share[name] for share in shares) / 3 for name in whole} == pytest.approx(whole)


def test_of_several_teachers_the_mean_is_taken_and_each_has_its_own_layers():
    one = seen()
    two = Embeddings(one.images, one.texts, one.scale, one.teachers | {"u": seen(width=D).teachers["t"]}, ALL)
    torch.manual_seed(0)
    made = clip_kd.Objective(NONE | {"teachers": ["t", "u"], "crd": 1.0, "fd": 1.0}, D, {"t": E, "u": D}).double()
    found = {name: part.item() for name, part in made(two).items()}
    assert found["real/crd/t"] == pytest.approx(parts(one, crd=1.0)["real/crd/t"] / 2)
    assert [len(distiller.heads) for distiller in made.distillers] == [2, 0]


def test_widths_that_differ_need_a_projection():
    with pytest.raises(
        UserError, match="student have width 5, those of teacher 't' 7; set objective.projection to true"
    ):
        objective(fd=1.0, projection=False)
    objective(crd=1.0, afd=1.0, projection=False)
    assert len(objective(width=D, fd=1.0, projection=False).distillers[0].heads) == 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fdd": 1}, "fdd is not a key; did you mean 'fd'?"),
        ({"fd": -1}, "fd is -1; it must be at least 0"),
        ({"mfd": 1, "mask_ratio": 1}, "mask_ratio is 1; it must be less than 1"),
        ({"fidelity": "code"}, "fidelity is 'code'"),
    ],
)
def test_what_is_no_such_loss_is_refused(settings, says):
    told = {"name": "clip-kd", "teachers": "single", **settings}
    assert says in refused(validate, told, "objectives/clip-kd", "config/x.yaml")


# ---- masking


@pytest.mark.parametrize("tower", [{}, {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_masked_image_loses_patches_and_the_image_keeps_them(tower, share):
    """open_clip's ViT and timm's, both with a class token: int(L (1 - share)) patches are left of L."""
    config = load_models(REPOSITORY)["mini-vit-base"]
    if tower:
        config["model_cfg"]["vision_cfg"] = {**tower, "image_size": 48}
    model = build(config, "x").train()
    student = Student(model, defaults("training"), share)
    trunk = getattr(model.visual, "trunk", model.visual)
    block = trunk.blocks[0] if hasattr(trunk, "blocks") else trunk.transformer.resblocks[0]
    tokens = []
    block.register_forward_hook(lambda module, args, out: tokens.append(out.shape[1]))
    side = model.visual.image_size
    img = torch.randint(256, (2, 3, *(side if isinstance(side, tuple) else (side, side))), dtype=torch.uint8)
    texts = torch.ones(2, model.context_length, dtype=torch.int64)
    torch.manual_seed(0)
    images, *_ = student({"image": img}, {"real": texts})
    patches = tokens[0] - 1
    assert tokens == [patches + 1, 1 + int(patches * (1 - share))]
    assert images.keys() == {"image", "masked"} and not torch.equal(images["image"], images["masked"])
    torch.manual_seed(0)
    again, *_ = student({"image": img}, {"real": texts})
    assert torch.equal(images["masked"], again["masked"])
    tokens.clear()
    Student(model, defaults("training"))({"image": img}, {"real": texts})
    assert tokens == [patches + 1]


def test_a_tower_without_patches_cannot_be_masked():
    model = build(load_models(REPOSITORY)["mini-student"], "x")
    with pytest.raises(
        UserError, match="objective.mfd: the image tower of this model, ByobNet, has no patches to mask"
    ):
        Student(model, defaults("training"), 0.75)
