"""Apple's files of weights, with random numbers under the published names and shapes.

Two independent readers of the same file must agree with ours: open_clip's conversion into open_clip's own networks, and
the functions below, which compute both towers with torch.nn.functional from Apple's keys. They know what Apple's code
says and no key shows: all norms have an epsilon of 1e-5, GELU is exact, squeeze-and-excitation has ReLU and sigmoid;
the ViT pads its first convolution by 1 and has 12 heads, and its class token has no position; the text tower has 8
heads, does not scale embeddings, reads from left to right in B alone, and answers with the token of the highest id.
"""

import copy
import gzip
import re
from collections import defaultdict
from functools import cache
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from clipdr.errors import UserError
from clipdr.models.build import build
from clipdr.models.registry import configuration
from clipdr.models.weights import load_pretrained

TABLE = Path(__file__).parents[1] / "data" / "apple_state_dicts.tsv.gz"
PUBLISHED = {
    "MobileCLIP-S0": "mobileclip_s0",
    "MobileCLIP-S1": "mobileclip_s1",
    "MobileCLIP-S2": "mobileclip_s2",
    "MobileCLIP-B": "mobileclip_b",
}
IMAGE, TEXT = "image_encoder.model", "text_encoder"


def _shapes() -> dict[str, dict[str, list[int]]]:
    shapes = defaultdict(dict)
    for line in gzip.decompress(TABLE.read_bytes()).decode().splitlines()[2:]:
        model, key, shape = line.split("\t")
        shapes[model][key] = [] if shape == "scalar" else [int(n) for n in shape.split("x")]
    return shapes


SHAPES = _shapes()


def _random(key: str, shape: list[int]) -> torch.Tensor:
    """Far from any initial value, and such that no layer drowns another."""
    if key.endswith("num_batches_tracked"):
        return torch.randint(1, 2**53, ())
    if key == "logit_scale":
        return torch.tensor(4.3)
    if key.endswith("running_var"):
        return torch.rand(shape) + 0.5
    noise = torch.randn(shape)
    if re.search(r"layer_scale", key):
        return 0.3 * noise
    if len(shape) > 1 and not re.search("embed|cls_token", key):
        fan_in = shape[0] if key.endswith((".proj", "projection_layer")) else prod(shape[1:])
        return noise * fan_in**-0.5
    return 1 + 0.2 * noise if key.endswith("weight") and len(shape) == 1 else 0.3 * noise


def _fake(name: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {key: _random(key, shape) for key, shape in SHAPES[PUBLISHED[name]].items()}


@cache
def _shaped(name: str) -> torch.nn.Module:
    """The network without memory for its weights."""
    with torch.device("meta"):
        return build(configuration(name), name)


def _empty(name: str) -> torch.nn.Module:
    """The network with NaN in every parameter and buffer of its state dict, without the time of an initialisation."""
    model = copy.deepcopy(_shaped(name)).to_empty(device="cpu").eval()
    for value in model.state_dict().values():
        value.fill_(float("nan") if value.is_floating_point() else -1)
    if model.text.attn_mask is not None:
        model.text.attn_mask = model.text.build_causal_mask()
    return model


def _of(*names: str):
    return pytest.mark.parametrize("case", names, indirect=True)


@pytest.fixture(scope="module")
def case(request, tmp_path_factory):
    """(name, Apple's state dict, our model loaded from a file of it)."""
    name = request.param
    state = _fake(name)
    path = tmp_path_factory.mktemp("apple") / f"{PUBLISHED[name]}.pt"
    torch.save(state, path)
    model = _empty(name)
    load_pretrained(model, path, name)
    path.unlink()
    return name, state, model


@pytest.fixture()
def image(case):
    """MCi takes any multiple of 32 px, and smaller ones in less time."""
    side = 224 if case[0] == "MobileCLIP-B" else 96
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def _see(visual: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    return visual.head(visual.trunk(image))  # without the check of the image's size


@pytest.fixture(scope="module")
def tokens():
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    for row, length in zip(tokens, (9, 77), strict=True):
        row[: length - 1] = torch.randint(1, 49406, (length - 1,), generator=torch.Generator().manual_seed(2))
        row[0], row[length - 1] = 49406, 49407
    return tokens


def _same(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> None:
    assert ours.std() > 0.02
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * ours.abs().max().item())


def _differ(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() > 0.01 * ours.abs().max()


# -- Apple's towers, from their keys


def _affine(state, key):
    return state[f"{key}.weight"], state[f"{key}.bias"]


def _linear(state, key, x):
    return F.linear(x, *_affine(state, key))


def _layer_norm(state, key, x):
    return F.layer_norm(x, x.shape[-1:], *_affine(state, key), eps=1e-5)


def _batch_norm(state, key, x):
    return F.batch_norm(x, state[f"{key}.running_mean"], state[f"{key}.running_var"], *_affine(state, key), eps=1e-5)


def _conv(state, key, x, stride=1):
    """Convolution that keeps the place of a pixel; how the channels are grouped follows from the shapes."""
    weight = state[f"{key}.weight"]
    padding = [n // 2 for n in weight.shape[2:]]
    return F.conv2d(x, weight, state.get(f"{key}.bias"), stride, padding, groups=x.shape[1] // weight.shape[1])


def _conv_norm(state, key, x, stride=1):
    return _batch_norm(state, f"{key}.bn", _conv(state, f"{key}.conv", x, stride))


def _excite(state, key, x, names):
    squeezed = _conv(state, f"{key}.{names[0]}", x.mean((2, 3), keepdim=True)).relu()
    return x * _conv(state, f"{key}.{names[1]}", squeezed).sigmoid()


def _branches(state, key, x, stride=1):
    """The sum of those of MobileOne's branches that there are."""
    total = 0
    if f"{key}.rbr_skip.weight" in state:
        total = total + _batch_norm(state, f"{key}.rbr_skip", x)
    for branch in (f"{key}.rbr_conv.0", f"{key}.rbr_scale"):
        if f"{branch}.conv.weight" in state:
            total = total + _conv_norm(state, branch, x, stride)
    if f"{key}.se.reduce.weight" in state:
        total = _excite(state, f"{key}.se", total, ("reduce", "expand"))
    return total


def _attention(state, qkv, out, x, heads, causal=False):
    batch, length, width = x.shape
    qkv = F.linear(x, state[f"{qkv}.weight"], state.get(f"{qkv}.bias")).view(batch, length, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.mT / (width // heads) ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), float("-inf"))
    return _linear(state, out, (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


def _conv_ffn(state, key, x):
    hidden = _conv(state, f"{key}.fc1", _conv_norm(state, f"{key}.conv", x))
    return _conv(state, f"{key}.fc2", F.gelu(hidden))


def _conv_block(state, key, x):
    """A RepMixer block, or MCi's attention block, on [B, D, H, W]."""
    if f"{key}.token_mixer.qkv.weight" in state:
        flat = _batch_norm(state, f"{key}.norm", x).flatten(2).mT
        mixed = _attention(state, f"{key}.token_mixer.qkv", f"{key}.token_mixer.proj", flat, x.shape[1] // 32)
        x = x + state[f"{key}.layer_scale_1"] * mixed.mT.reshape(x.shape)
        return x + state[f"{key}.layer_scale_2"] * _conv_ffn(state, f"{key}.convffn", x)
    mixer = f"{key}.token_mixer"
    mixed = _branches(state, f"{mixer}.mixer", x) - _branches(state, f"{mixer}.norm", x)
    x = x + state[f"{mixer}.layer_scale"] * mixed
    return x + state[f"{key}.layer_scale"] * _conv_ffn(state, f"{key}.convffn", x)


def _transformer_block(state, key, x, heads, causal=False):
    norm, mha = f"{key}.pre_norm_mha.0", f"{key}.pre_norm_mha.1"
    x = x + _attention(state, f"{mha}.qkv_proj", f"{mha}.out_proj", _layer_norm(state, norm, x), heads, causal)
    hidden = _linear(state, f"{key}.pre_norm_ffn.1", _layer_norm(state, f"{key}.pre_norm_ffn.0", x))
    return x + _linear(state, f"{key}.pre_norm_ffn.4", F.gelu(hidden))


def _count(state, key):
    found = [re.match(rf"{re.escape(key)}\.(\d+)\.", name) for name in state]
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _downsample(state, key, x):
    large, small = (_conv_norm(state, f"{key}.proj.0.{name}", x, 2) for name in ("lkb_origin", "small_conv"))
    x = large + small
    if f"{key}.proj.0.se.fc1.weight" in state:
        x = _excite(state, f"{key}.proj.0.se", x, ("fc1", "fc2"))
    return F.gelu(_branches(state, f"{key}.proj.1", F.gelu(x)))


def _mci(state, x):
    for n, stride in enumerate((2, 2, 1)):
        x = F.gelu(_branches(state, f"{IMAGE}.patch_embed.{n}", x, stride))
    for n in range(_count(state, f"{IMAGE}.network")):
        key = f"{IMAGE}.network.{n}"
        if f"{key}.pe.weight" in state:
            x = x + _conv(state, f"{key}.pe", x)
        elif f"{key}.proj.0.lkb_origin.conv.weight" in state:
            x = _downsample(state, key, x)
        for block in range(_count(state, key)):
            x = _conv_block(state, f"{key}.{block}", x)
    return F.gelu(_branches(state, f"{IMAGE}.conv_exp", x)).mean((2, 3)) @ state[f"{IMAGE}.head.proj"]


def _vit(state, x):
    for n, (stride, padding) in enumerate(((4, 1), (2, 0), (2, 0))):
        key = f"{IMAGE}.patch_emb.{n}.block"
        x = F.conv2d(x, state[f"{key}.conv.weight"], state.get(f"{key}.conv.bias"), stride, padding)
        if n < 2:
            x = F.gelu(_batch_norm(state, f"{key}.norm", x))
    x = x.flatten(2).mT + state[f"{IMAGE}.pos_embed.pos_embed.pos_embed"][0]
    x = torch.cat([state[f"{IMAGE}.cls_token"].expand(len(x), -1, -1), x], dim=1)
    for n in range(12):
        x = _transformer_block(state, f"{IMAGE}.transformer.{n}", x, heads=12)
    return _layer_norm(state, f"{IMAGE}.post_transformer_norm", x[:, 0]) @ state[f"{IMAGE}.classifier.proj"]


def _text(state, tokens, causal):
    x = F.embedding(tokens, state[f"{TEXT}.embedding_layer.weight"])
    x = x + state[f"{TEXT}.positional_embedding.pos_embed.pos_embed"][0]
    for n in range(_count(state, f"{TEXT}.transformer")):
        key = f"{TEXT}.transformer.{n}"
        if f"{key}.convffn.fc1.weight" in state:
            x = _conv_block(state, key, x.mT[:, :, None]).squeeze(2).mT
        else:
            x = _transformer_block(state, key, x, heads=8, causal=causal)
    x = _layer_norm(state, f"{TEXT}.final_layer_norm", x)
    return x[torch.arange(len(x)), tokens.argmax(1)] @ state[f"{TEXT}.projection_layer"]


# -- tests


@_of(*PUBLISHED)
@torch.no_grad()
def test_towers_are_apples(case, image, tokens):
    """In float64: an epsilon of 1e-6 for 1e-5 would differ by more than rounding does."""
    name, state, model = case
    assert torch.equal(model.logit_scale, state["logit_scale"])
    of_b = name == "MobileCLIP-B"
    visual = copy.deepcopy(model.visual).double()
    image = image.double()
    doubles = {key: value.double() for key, value in state.items() if key.startswith(IMAGE)}
    _same(_see(visual, image), _vit(doubles, image) if of_b else _mci(doubles, image), 1e-9)
    if name in ("MobileCLIP-S1", "MobileCLIP-S2"):
        return  # B's blocks without its mask: the next test compares with open_clip's
    doubles = {key: value.double() for key, value in state.items() if key.startswith(TEXT)}
    embedded = copy.deepcopy(model.text).double()(tokens)
    _same(embedded, _text(doubles, tokens, causal=of_b), 1e-9)
    _differ(embedded[:1], _text(doubles, tokens[:1], causal=not of_b))


@_of(*PUBLISHED)
def test_every_published_tensor_is_used_once(case):
    """The random numbers at their ends tell the tensors apart; a transposed one keeps them."""
    _, state, model = case

    def ends(values):
        return sorted((value.numel(), value.flatten()[0].item(), value.flatten()[-1].item()) for value in values)

    assert ends(model.state_dict().values()) == ends(state.values())


@_of("MobileCLIP-S1", "MobileCLIP-S2", "MobileCLIP-B")
@torch.no_grad()
def test_open_clip_reads_the_same_file_alike(case, image, tokens, tmp_path):
    """Into its own networks; what it makes of the file, with a bias of zeros, loads into ours too."""
    from open_clip.convert import convert_mobile_clip_state_dict

    name, state, model = case
    peer = _empty(f"open_clip:{name}")
    converted = convert_mobile_clip_state_dict(peer, state, fastvit=name != "MobileCLIP-B")
    peer.load_state_dict(converted)
    embedded = _see(model.visual, image)
    if name == "MobileCLIP-B":
        _differ(embedded, _see(peer.visual, image))  # at the borders: the stem's padding
        _set_like(peer.visual.trunk, model.visual.trunk)
    _same(embedded, _see(peer.visual, image), 1e-6)
    _same(model.text(tokens), peer.text(tokens), 1e-6)
    if name == "MobileCLIP-S2":
        return  # as S1
    path = tmp_path / "open_clip_model.safetensors"
    save_file({key: value.contiguous() for key, value in converted.items()}, path)
    again = _empty(name)
    load_pretrained(again, path, name)
    path.unlink()
    _equal(model.state_dict(), again.state_dict())


@_of("MobileCLIP-S0")
def test_timm_reads_the_image_tower_alike(case):
    """Open_clip has no MobileCLIP-S0."""
    from timm.models.fastvit import checkpoint_filter_fn

    _, state, model = case
    theirs = checkpoint_filter_fn(state, model.visual.trunk)
    assert theirs.pop("head.fc.proj").T.equal(model.visual.head.proj.weight)
    _equal(theirs, model.visual.trunk.state_dict())


def _equal(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.equal(second[key]), key


def _set_like(peer, ours):
    """What timm's ViT has otherwise than Apple's: the stem's padding and the epsilon of the norms."""
    peer.patch_embed.backbone[0].conv.padding = ours.patch_embed.backbone[0].conv.padding
    norms = [[m for m in trunk.modules() if isinstance(m, torch.nn.LayerNorm)] for trunk in (peer, ours)]
    for theirs, norm in zip(*norms, strict=True):
        theirs.eps = norm.eps


@_of(*PUBLISHED)
def test_weights_of_another_one_name_it(case, tmp_path):
    name, state, _ = case
    other = "MobileCLIP-S0" if name != "MobileCLIP-S0" else "MobileCLIP-S1"
    torch.save({key: value.new_zeros(()).expand(value.shape) for key, value in state.items()}, tmp_path / "x.pt")
    with pytest.raises(UserError) as error:
        load_pretrained(_shaped(other), tmp_path / "x.pt", other)
    assert f"x.pt: not weights of {other}, but like {name}; keys: " in str(error.value)
    assert "\n" not in str(error.value)
