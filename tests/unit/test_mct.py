"""The hybrid text encoder against sums over positions and taps, written out in numpy from the paper's description."""

from math import erf

import numpy as np
import pytest
import torch
from open_clip.transformer import TextTransformer
from torch.func import functional_call

from clipdr.errors import UserError
from clipdr.models.build import build
from clipdr.models.mct import RepMixer1d, TextRepMixerBlock, make_hybrid
from clipdr.models.registry import configuration

LENGTH, VOCABULARY, WIDTH, HEADS, EPS = 9, 30, 6, 2, 1e-5
EOT = VOCABULARY - 1
TOKENS = torch.tensor([[28, 5, 7, 1, EOT, 0, 0, 0, 0], [28, 3, EOT, 2, EOT, 0, 4, 0, 0]])  # in the second, twice
KERNELS = (3, 11, 31)  # Table 18; the last is longer than the text
PLACES = {6: "AAAAAA", 4: "CAAAAC", 2: "CCAACC", 1: "CCACCC", 0: "CCCCCC"}  # Table 5


# ---- the reference: one text, x[position, channel], float64


def normalised(x, mean, var, name, state):
    return (x - mean) / np.sqrt(var + EPS) * state[f"{name}.weight"] + state[f"{name}.bias"]


def batch_norm(x, name, state):
    return normalised(x, state[f"{name}.running_mean"], state[f"{name}.running_var"], name, state)


def layer_norm(x, name, state):
    return normalised(x, x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True), name, state)


def depthwise(x, kernel):
    """Every channel by itself; outside the text there are zeros."""
    taps, out = kernel.shape[-1], np.zeros_like(x)
    for position in range(len(x)):
        for tap in range(taps):
            seen = position + tap - taps // 2
            if 0 <= seen < len(x):
                out[position] += kernel[:, 0, tap] * x[seen]
    return out


def feed_forward(x, name, state):
    hidden = x @ state[f"{name}.c_fc.weight"].T + state[f"{name}.c_fc.bias"]
    gelu = hidden * np.vectorize(lambda value: (1 + erf(value / 2**0.5)) / 2)(hidden)
    return gelu @ state[f"{name}.c_proj.weight"].T + state[f"{name}.c_proj.bias"]


def rep_mixer_block(x, state, norm=batch_norm):
    """`norm` is what a batch norm does: by running statistics, or by those of the batch."""
    mixed = norm(depthwise(x, state["token_mixer.conv.weight"]), "token_mixer.conv_bn", state)
    mixed = mixed + norm(x, "token_mixer.skip_bn", state)
    x = x + state["token_mixer.layer_scale"][:, 0] * (mixed - norm(x, "token_mixer.norm_bn", state))
    convolved = norm(depthwise(x, state["mlp.conv.weight"]), "mlp.bn", state)
    return x + state["layer_scale"] * feed_forward(convolved, "mlp", state)


def attention_block(x, state):
    normed = layer_norm(x, "ln_1", state)
    query, key, value = np.split(normed @ state["attn.in_proj_weight"].T + state["attn.in_proj_bias"], 3, axis=1)
    heads, side = [], WIDTH // HEADS
    for first in range(0, WIDTH, side):
        q, k, v = (part[:, first : first + side] for part in (query, key, value))
        weights = np.exp(q @ k.T / side**0.5)
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    attended = np.concatenate(heads, axis=1) @ state["attn.out_proj.weight"].T + state["attn.out_proj.bias"]
    x = x + attended
    return x + feed_forward(layer_norm(x, "ln_2", state), "mlp", state)


def text_encoder(tokens, state):
    x = np.array([state["token_embedding.weight"][token] for token in tokens]) + state["positional_embedding"]
    for n in range(1 + max(int(key.split(".")[2]) for key in state if key.startswith("transformer.resblocks"))):
        prefix = f"transformer.resblocks.{n}."
        block = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        x = (rep_mixer_block if "layer_scale" in block else attention_block)(x, block)
    return layer_norm(x, "ln_final", state)[list(tokens).index(max(tokens))] @ state["text_projection"]


# ---- the networks


def arrays(module):
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}


@torch.no_grad()
def fill(module, seed=0):
    """Every weight of order 1, in float64: no branch is small, no norm is the identity."""
    random = torch.Generator().manual_seed(seed)
    module.double()
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2, generator=random)
        elif value.is_floating_point():
            value.normal_(0, 0.5, generator=random)
            if "norm" in key or "bn" in key or "layer_scale" in key:
                value.add_(1)
    return module


def transformer(**options):
    sizes = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH, "heads": HEADS, "output_dim": 5}
    return TextTransformer(**(sizes | {"layers": 6, "no_causal_mask": True} | options))


def hybrid(attention_layers=2, kernel_size=5, **options):
    text = transformer(**options)
    make_hybrid(text, attention_layers, kernel_size)
    return text


def block(kernel_size=5, width=WIDTH, training=False):
    return fill(TextRepMixerBlock(width, kernel_size, 4.0)).train(training)


# ---- what it computes


@pytest.mark.parametrize("kernel_size", KERNELS)
@pytest.mark.parametrize("attention_layers", [4, 1])
def test_encoder_is_what_the_paper_describes(attention_layers, kernel_size):
    text = fill(hybrid(attention_layers, kernel_size)).eval()
    expected = [text_encoder(tokens, arrays(text)) for tokens in TOKENS.tolist()]
    with torch.no_grad():
        np.testing.assert_allclose(text(TOKENS).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("kernel_size", KERNELS)
def test_folded_encoder_is_what_the_paper_describes(kernel_size):
    text = fill(hybrid(2, kernel_size)).eval()
    expected = [text_encoder(tokens, arrays(text)) for tokens in TOKENS.tolist()]
    for module in text.modules():
        if isinstance(module, RepMixer1d):
            module.reparameterize()
            assert [name for name, _ in module.named_parameters()] == ["folded.weight", "folded.bias"]
    with torch.no_grad():
        np.testing.assert_allclose(text(TOKENS).numpy(), expected, rtol=1e-9)


def test_training_uses_and_records_the_statistics_of_the_batch():
    """Over all texts and positions; what is recorded is the unbiased variance, with a momentum of 0.1."""
    module = block(training=True)
    state = {key: value.copy() for key, value in arrays(module).items()}
    x_BLD = np.random.default_rng(0).normal(size=(3, LENGTH, WIDTH))
    # The reference takes one text: here three in one, so far apart that no kernel reaches from one to the next.
    rows = [text * 2 * LENGTH + position for text in range(3) for position in range(LENGTH)]
    apart, statistics = np.zeros((6 * LENGTH, WIDTH)), {}
    apart[rows] = x_BLD.reshape(-1, WIDTH)

    def norm_by_batch(x, name, state):
        mean, var = x[rows].mean(axis=0), x[rows].var(axis=0)
        statistics[name] = {"running_mean": mean, "running_var": var * len(rows) / (len(rows) - 1)}
        out = np.zeros_like(x)
        out[rows] = normalised(x[rows], mean, var, name, state)
        return out

    expected = rep_mixer_block(apart, state, norm_by_batch)[rows].reshape(x_BLD.shape)
    np.testing.assert_allclose(module(torch.from_numpy(x_BLD)).detach(), expected, rtol=1e-9)
    assert len(statistics) == 4
    for name, values in statistics.items():
        for kind, value in values.items():
            recorded = 0.9 * state[f"{name}.{kind}"] + 0.1 * value
            np.testing.assert_allclose(arrays(module)[f"{name}.{kind}"], recorded, rtol=1e-9)


@pytest.mark.parametrize("training", [True, False], ids=["batch statistics", "running statistics"])
def test_gradients_of_a_block(training):
    """Of the output by the input and by every parameter, against finite differences."""
    module = block(kernel_size=3, width=2, training=training)
    names, parameters = zip(*module.named_parameters(), strict=True)
    x_BLD = torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def output(x, *values):
        return functional_call(module, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(output, (x_BLD, *parameters))


def test_gradients_of_a_folded_block():
    """By the input and by what is left of the parameters; the former are those of the block as it was."""
    module, x_BLD = block(), torch.randn(2, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    (before,) = torch.autograd.grad(module(x_BLD).square().sum(), x_BLD)
    module.token_mixer.reparameterize()
    (after,) = torch.autograd.grad(module(x_BLD).square().sum(), x_BLD)
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-9)
    small = block(kernel_size=3, width=2)
    small.token_mixer.reparameterize()
    assert torch.autograd.gradcheck(small, torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True))


def test_gradients_reach_every_parameter_of_the_encoder():
    text = fill(hybrid()).train()
    text(TOKENS).square().sum().backward()
    for name, parameter in text.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_gradient_checkpointing_gives_the_same_gradients():
    """What batch norms record is not the same: they see every batch twice, as in timm's networks."""
    gradients = []
    for checkpointing in (False, True):
        text = fill(hybrid()).train()
        text.set_grad_checkpointing(checkpointing)
        text(TOKENS).square().sum().backward()
        gradients.append([parameter.grad for parameter in text.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-9, atol=1e-12)


# ---- what a text's embedding depends on


@torch.no_grad()
def test_a_text_is_read_in_both_directions_and_with_its_padding():
    text = fill(hybrid()).eval()
    changed = TOKENS[:1].repeat(3, 1)
    changed[1, 1], changed[2, -1] = 9, 9  # before the end token, and two positions after it
    before, earlier, later = text(changed)
    assert not torch.allclose(earlier, before, rtol=1e-3) and not torch.allclose(later, before, rtol=1e-3)


@torch.no_grad()
def test_convolutions_alone_see_as_far_as_their_taps():
    """Six blocks, each with two kernels of 3: 12 positions to either side, and no more."""
    text = transformer(context_length=33)
    make_hybrid(text, 0, 3)
    fill(text).eval()
    tokens = torch.ones(33, 33, dtype=torch.int64)
    tokens[:, 16] = EOT
    tokens += torch.eye(33, dtype=torch.int64) * (torch.arange(33) != 16)  # text n is another at position n
    embedded = text(tokens)
    same = torch.isclose(embedded, embedded[16], rtol=1e-12, atol=1e-12).all(dim=1)  # n = 16 is the text unchanged
    assert same.nonzero()[:, 0].tolist() == [0, 1, 2, 3, 16, 29, 30, 31, 32]


@torch.no_grad()
def test_texts_do_not_mix():
    text = fill(hybrid()).eval()
    together, alone = text(TOKENS), torch.cat([text(row[None]) for row in TOKENS])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


# ---- which blocks, and how large


def letters(text):
    kinds = {TextRepMixerBlock: "C", type(transformer().transformer.resblocks[0]): "A"}
    return "".join(kinds[type(inner)] for inner in text.transformer.resblocks)


@pytest.mark.parametrize(("attention_layers", "places"), PLACES.items())
def test_attention_stands_in_the_middle(attention_layers, places):
    assert letters(hybrid(attention_layers)) == places
    with torch.device("meta"):
        model = build(configuration(f"mini-mct-{attention_layers}"), "mini")
    assert letters(model.text) == places


def test_attention_blocks_keep_their_weights():
    text = transformer()
    kept = text.transformer.resblocks[2].state_dict()
    make_hybrid(text, 2, 3)
    assert all(torch.equal(value, kept[key]) for key, value in text.transformer.resblocks[2].state_dict().items())


@pytest.mark.parametrize("kernel_size", KERNELS)
def test_every_convolution_has_the_kernel_that_is_asked_for(kernel_size):
    convs = [module for module in hybrid(4, kernel_size).modules() if isinstance(module, torch.nn.Conv1d)]
    assert [conv.weight.shape for conv in convs] == [(WIDTH, 1, kernel_size)] * 4
    assert all(conv.bias is None for conv in convs)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def fold(text):
    for module in list(text.modules()):
        if isinstance(module, RepMixer1d):
            module.reparameterize()
    return text


def full_size(attention_layers):
    with torch.device("meta"):
        text = TextTransformer(layers=6, no_causal_mask=True)
        make_hybrid(text, attention_layers, 11)
    return text


def test_parameters_of_every_piece_of_mct():
    """Of MobileCLIP-S0's text encoder, as instantiated from Apple's code."""
    text = full_size(4)
    blocks = text.transformer.resblocks
    assert count(text.token_embedding) == 25_296_896 and text.positional_embedding.numel() == 39_424
    assert [count(inner) for inner in blocks] == [2_116_096, *[3_152_384] * 4, 2_116_096]
    assert count(text.ln_final) == 1_024 and text.text_projection.numel() == 262_144
    assert count(text) == 42_441_216
    assert [count(inner) for inner in fold(text).transformer.resblocks] == [2_113_024, *[3_152_384] * 4, 2_113_024]
    assert count(text) == 42_435_072


@pytest.mark.parametrize(("attention_layers", "millions"), [(6, 44.5), (4, 42.4), (2, 40.4), (1, 39.3), (0, 38.3)])
def test_parameters_are_those_of_table_5(attention_layers, millions):
    assert round(count(fold(full_size(attention_layers))) / 1e6, 1) == millions


def test_fresh_weights():
    """As in the image encoders: blocks start as the identity, up to layer scales of 1e-5."""
    torch.manual_seed(0)
    module = TextRepMixerBlock(256, 11, 4.0)
    assert (module.layer_scale == 1e-5).all() and (module.token_mixer.layer_scale == 1e-5).all()
    for layer in (module.token_mixer.conv, module.mlp.conv, module.mlp.c_fc, module.mlp.c_proj):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert layer.weight.abs().max() < 0.12
    assert not module.mlp.c_fc.bias.any() and not module.mlp.c_proj.bias.any()
    x_BLD = torch.randn(2, LENGTH, 256)
    torch.testing.assert_close(module(x_BLD), x_BLD, rtol=0, atol=1e-3)


# ---- what is refused


@pytest.mark.parametrize(
    ("attention_layers", "kernel_size", "message"),
    [
        (4, 10, "mct.kernel_size is 10; it must be odd"),
        (4, 0, "mct.kernel_size is 0; it must be odd"),
        (4, -3, "mct.kernel_size is -3; it must be odd"),
        (7, 3, r"mct.attention_layers is 7; it must lie between 0 and layers \(6\)"),
        (-1, 3, "mct.attention_layers is -1; it must lie between 0"),
    ],
)
def test_impossible_sizes(attention_layers, kernel_size, message):
    with pytest.raises(UserError, match=message):
        hybrid(attention_layers, kernel_size)


@pytest.mark.parametrize("options", [{"no_causal_mask": False}, {"use_pad_mask": True}], ids=["causal", "padding"])
def test_a_mask_is_refused(options):
    with pytest.raises(UserError, match="^mct needs no_causal_mask: true and neither use_pad_mask"):
        hybrid(**options)


def small(text_cfg):
    vision = {"layers": 1, "width": 8, "head_width": 4, "patch_size": 16, "image_size": 32}
    sizes = {"context_length": LENGTH, "vocab_size": VOCABULARY, "width": WIDTH, "heads": HEADS, "layers": 3}
    return {
        "model_cfg": {"embed_dim": 5, "vision_cfg": vision, "text_cfg": {**sizes, "no_causal_mask": True, **text_cfg}}
    }


@pytest.mark.parametrize(
    ("text_cfg", "message"),
    [
        ({"mct": {"attention_layers": 4, "kernel_size": 3}}, "tiny: text_cfg.mct.attention_layers is 4; .* layers .3."),
        ({"mct": {"attention_layers": 1, "kernel_size": 4}}, "tiny: text_cfg.mct.kernel_size is 4"),
        ({"mct": {"attention_layers": 1, "kernel_size": 3}, "no_causal_mask": False}, "tiny: .*no_causal_mask: true"),
        ({"mct": {"attention_layers": 1, "kernel_size": 3}, "embed_cls": True}, "tiny: text_cfg.*embed_cls"),
        ({"mct": {"attention_layers": 1}}, "tiny: text_cfg.mct.*kernel_size"),
        ({"mct": {"attention_layers": 1, "kernel_size": 3, "kernel": 3}}, "tiny: text_cfg.mct.*'kernel'"),
    ],
)
def test_configurations_that_are_refused(text_cfg, message):
    with pytest.raises(UserError, match=message) as error:
        build(small(text_cfg), "tiny")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mlp_ratio", [4.0, 2.0])
def test_all_blocks_have_the_mlp_ratio_of_the_encoder(mlp_ratio):
    model = build(small({"mlp_ratio": mlp_ratio, "mct": {"attention_layers": 1, "kernel_size": 3}}), "tiny")
    assert [inner.mlp.c_fc.out_features for inner in model.text.transformer.resblocks] == [WIDTH * mlp_ratio] * 3
