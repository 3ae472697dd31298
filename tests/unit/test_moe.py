"""The mixture of experts against a loop over tokens and formulas, and what upcycling must keep."""

import copy
import math

import pytest
import torch
from torch import nn

from clipdr.errors import UserError
from clipdr.models.build import build
from clipdr.models.moe import MixtureOfExperts, Real, auxiliary_losses, make_sparse, mixtures_of, upcycle
from clipdr.schema import defaults

D, H, E, N = 6, 10, 4, 23
DEFAULTS = defaults("mixture")


def mlp(seed: int = 0, width: int = D) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(width, H), nn.GELU(), nn.Linear(H, width))


def mixture(seed: int = 1, **settings) -> MixtureOfExperts:
    torch.manual_seed(seed)
    made = MixtureOfExperts(mlp(), {**DEFAULTS, "experts": E, **settings}, Real())
    nn.init.normal_(made.router.weight, std=1.0)  # choices that differ
    return made


def tokens(seed: int = 2, number: int = N) -> torch.Tensor:
    return torch.randn(number, D, generator=torch.Generator().manual_seed(seed))


def expert(layer: MixtureOfExperts, e: int, x: torch.Tensor) -> torch.Tensor:
    hidden = nn.functional.gelu(x @ layer.weight_in[e] + layer.bias_in[e, 0])
    return hidden @ layer.weight_out[e] + layer.bias_out[e, 0]


def slowly(layer: MixtureOfExperts, x: torch.Tensor, slots: int) -> tuple[torch.Tensor, int]:
    """Token by token, choice by choice; and how many choices were dropped."""
    p = (x @ layer.router.weight.T).softmax(dim=1)
    gates, choices = p.topk(layer.top_k, dim=1)
    if layer.renormalise:
        gates = gates / gates.sum(dim=1, keepdim=True)
    order = sorted(range(len(x)), key=lambda n: (-gates[n, 0].item(), n)) if layer.by_gate else range(len(x))
    room, y, dropped = dict.fromkeys(range(layer.experts), slots), torch.zeros_like(x), 0
    for k in range(layer.top_k):
        for n in order:
            e = int(choices[n, k])
            if room[e]:
                room[e] -= 1
                y[n] += gates[n, k] * expert(layer, e, x[n])
            else:
                dropped += 1
    return y, dropped


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("priority", ["order", "gate"])
@pytest.mark.parametrize("top_k, capacity", [(1, 0.7), (1, 1.0), (2, 1.0), (2, 2.0), (3, 1.5), (4, 4.0)])
def test_a_mixture_is_what_a_loop_over_tokens_gives(renormalise, priority, top_k, capacity):
    layer = mixture(renormalise=renormalise, priority=priority, top_k=top_k, capacity=capacity).train()
    x = tokens()
    expected, dropped = slowly(layer, x, math.ceil(capacity * N / E))
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)
    assert layer.dropped.item() == pytest.approx(dropped / (N * top_k))
    assert layer.load.sum().item() == pytest.approx(1)


def test_gradients_are_those_of_the_loop():
    layer, x = mixture().train(), tokens()
    slow = copy.deepcopy(layer)
    layer(x).square().sum().backward()
    slowly(slow, x, math.ceil(2 * N / E))[0].square().sum().backward()
    for (name, one), other in zip(layer.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5, msg=name)


def test_capacity_counts_choices():
    """With two choices each and capacity 2, all fit when each expert is chosen as often; at 1, half of them."""
    layer = mixture(top_k=2, capacity=2.0).train()
    assert layer._slots(100, torch.zeros(E)) == 50 and 50 * E == 2 * 100
    assert mixture(top_k=2, capacity=1.0).train()._slots(100, torch.zeros(E)) * E == 100
    assert mixture(top_k=1, capacity=1.25).eval()._slots(10, torch.tensor([7, 1, 1, 1])) == 7, (
        "evaluation drops nothing"
    )


def test_dropped_tokens_get_nothing_and_the_least_sure_ones_go_first_by_gate():
    layer = mixture(top_k=1, renormalise=False, capacity=0.5, priority="gate").train()
    x, p = tokens(), (tokens() @ layer.router.weight.T).softmax(dim=1)
    y = layer(x)
    slots, gone = math.ceil(0.5 * N / E), (y == 0).all(dim=1)
    for e in range(E):
        mine = (p.argmax(dim=1) == e).nonzero().squeeze(1)
        kept = [n for n in mine.tolist() if not gone[n]]
        assert len(kept) == min(slots, len(mine))
        assert min((p[n, e].item() for n in kept), default=1) >= max(
            (p[n, e].item() for n in mine.tolist() if gone[n]), default=0
        )


def test_in_evaluation_outputs_do_not_depend_on_the_batch():
    layer, x = mixture(capacity=0.3).eval(), tokens()
    alone = torch.cat([layer(row[None]) for row in x])
    torch.testing.assert_close(layer(x), alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(layer.train()(x), alone, atol=1e-3), "in training tokens are dropped"


def test_losses_are_the_formulas():
    layer, x = mixture(top_k=2).train(), tokens()
    layer(x)
    logits = x @ layer.router.weight.T
    p = logits.softmax(dim=1)
    share = torch.zeros(E)
    for row in p.topk(2, dim=1).indices:
        share[row] += 1 / (2 * N)
    assert layer.losses["balance"].item() == pytest.approx((E * (share * p.mean(dim=0)).sum().item()), rel=1e-5)
    assert layer.losses["z"].item() == pytest.approx((logits.exp().sum(dim=1).log() ** 2).mean().item(), rel=1e-5)
    nn.init.zeros_(layer.router.weight)
    layer(x)
    assert layer.losses["balance"].item() == pytest.approx(1) and layer.losses["z"].item() == pytest.approx(
        math.log(E) ** 2
    )
    assert layer.spread.item() == pytest.approx(math.log(E))
    assert layer.losses["entropy"].item() == pytest.approx(math.log(E)), "all experts are in use: nothing is lacking"


def test_tokens_behind_the_end_choose_no_expert():
    layer = mixture().train()
    x = tokens(number=8).reshape(2, 4, D)
    real = layer.real.tokens_BL = torch.tensor([[True, True, False, False], [True, True, True, False]])
    y = layer(x)
    assert (y[~real] == 0).all()
    inside = x[real]
    layer.real.tokens_BL = None
    torch.testing.assert_close(layer(inside), torch.cat([y[0, :2], y[1, :3]]))


def config(layers: int = 4) -> dict:
    vision = {"layers": layers, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32}
    text = {"context_length": 12, "vocab_size": 300, "width": 32, "heads": 2, "layers": layers}
    return {"model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}}


def pair(**settings):
    """A dense model and one with mixtures in both towers, upcycled from it."""
    torch.manual_seed(0)
    dense = build(config(), "dense").eval()
    torch.manual_seed(1)
    sparse = build(config(), "sparse")
    make_sparse(sparse.visual, {**DEFAULTS, "experts": 4, **settings}, "vision_cfg")
    make_sparse(sparse.text, {**DEFAULTS, "experts": 4, **settings}, "text_cfg")
    return dense, sparse.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    texts = torch.randint(1, 298, (5, 12), generator=random)
    for row, end in zip(texts, (3, 6, 11, 2, 8), strict=True):
        row[end], row[end + 1 :] = 299, 0
    return torch.randn(5, 3, 32, 32, generator=random), texts


def test_an_upcycled_model_computes_what_the_dense_one_does():
    """With renormalised gates and nothing dropped; every other block is a mixture, and never the first."""
    dense, sparse = pair()
    upcycle(sparse, dense)
    img, texts = batch()
    with torch.no_grad():
        torch.testing.assert_close(sparse.encode_image(img), dense.encode_image(img), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(sparse.encode_text(texts), dense.encode_text(texts), rtol=1e-5, atol=1e-5)
    kinds = [isinstance(block.mlp, MixtureOfExperts) for block in sparse.visual.transformer.resblocks]
    assert kinds == [False, True, False, True] and len(list(mixtures_of(sparse))) == 4


def test_without_renormalisation_the_mlp_shrinks_by_the_gates():
    """Each token's MLP output is that of the dense one times the sum of its gates, about k / E at first."""
    layer, dense = mixture(renormalise=False), mlp()
    layer.copy(dense, 0.0, 0.0, torch.Generator())
    x = tokens()
    gates = (x @ layer.router.weight.T).softmax(dim=1).topk(2, dim=1).values.sum(dim=1)
    torch.testing.assert_close(layer.eval()(x), gates[:, None] * dense(x), rtol=1e-5, atol=1e-6)
    nn.init.normal_(layer.router.weight, std=1e-4)
    torch.testing.assert_close(layer(x), 2 / E * dense(x), rtol=1e-2, atol=1e-3)


def test_noise_and_renewed_units_make_experts_that_differ():
    layer, dense = mixture(), mlp()
    layer.copy(dense, 0.1, 0.0, torch.Generator().manual_seed(0))
    assert not torch.equal(layer.weight_in[0], layer.weight_in[1])
    change = (layer.weight_in - dense[0].weight.T).std() / dense[0].weight.std()
    assert change.item() == pytest.approx(0.1, rel=0.2)
    layer.copy(dense, 0.0, 0.3, torch.Generator().manual_seed(0))
    for e in range(E):
        same = (layer.weight_in[e] == dense[0].weight.T).all(dim=0)
        assert same.sum() == H - round(0.3 * H)
        assert (layer.weight_out[e][same] == dense[2].weight.T[same]).all()
    again = mixture()
    again.copy(dense, 0.0, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(again.weight_in, layer.weight_in)


def test_padding_does_not_matter_to_a_mixture_of_texts():
    _, sparse = pair()
    _, texts = batch()
    other = texts.clone()
    other[other == 0] = 7
    with torch.no_grad():
        torch.testing.assert_close(sparse.encode_text(texts), sparse.encode_text(other))
    assert next(mixtures_of(sparse.text)).real.tokens_BL.sum() == 3 + 6 + 11 + 2 + 8 + 5


def test_losses_are_means_over_the_mixtures_of_a_tower():
    dense, sparse = pair()
    sparse.train()
    sparse.encode_image(batch()[0])
    found = [mixture.losses for mixture in mixtures_of(sparse.visual)]
    for key, value in auxiliary_losses(sparse.visual).items():
        assert value.item() == pytest.approx(sum(one[key].item() for one in found) / 2)
    assert auxiliary_losses(dense.visual) == {}


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"experts": 1}, "experts is 1; one expert is the dense MLP"),
        ({"experts": 4, "top_k": 5}, "top_k is 5; it must be between 1 and experts"),
        ({"experts": 4, "top_k": 1}, "with top_k 1 renormalised gates are all 1"),
        ({"experts": 4, "capacity": 0}, "capacity is 0, which drops every token"),
        ({"experts": 4, "first": 4}, "first is 4, and there are 4 blocks"),
        ({"experts": 4, "first": 0}, "first is 0; the first block .0. stays dense"),
    ],
)
def test_settings_that_make_no_sense(settings, says):
    with pytest.raises(UserError, match=says):
        make_sparse(build(config(), "x").visual, {**DEFAULTS, **settings}, "vision_cfg")


def test_what_cannot_be_upcycled():
    dense, sparse = pair()
    with pytest.raises(UserError, match="this one is a mixture already"):
        upcycle(copy.deepcopy(sparse), sparse)
    with pytest.raises(UserError, match="the tower is a mixture already"):
        make_sparse(sparse.visual, DEFAULTS, "vision_cfg")
    with pytest.raises(UserError, match="the dense model is another network, first at"):
        upcycle(sparse, build(config(5), "other"))
    wide = config()
    wide["model_cfg"]["vision_cfg"]["width"] = 48
    with pytest.raises(UserError, match="no MLP of this width at visual"):
        upcycle(sparse, build(wide, "wide"))
    with pytest.raises(UserError, match="needs a transformer of open_clip"):
        make_sparse(nn.Linear(2, 2), DEFAULTS, "vision_cfg")
