"""Full-size networks, which need no memory here: they are counted on torch's device `meta`.

Parameters against the paper's tables and open_clip's models; multiply-accumulates against formulas and layers that run.
"""

from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from clipdr.deploy.counts import count
from clipdr.schema import load_yaml

EXPERIMENTS = Path(__file__).parents[2] / "config/experiments/mobileclip"
COLUMNS = {"Params img (M)": "image", "Params txt (M)": "text"}
# The paper gives all ViT-B and EVA02 the image tower of B/16, and RN50 the projection of a text to 512 instead of 1024.
DIFFERENT = {("ViT-B-32", "image"), ("ViT-B-32-256", "image"), ("EVA02-B-16", "image"), ("RN50", "text")}
BASE, ATTENTION = 63_428_096, 3_152_384
CONVOLUTION = {"params_train": 2_116_096, "params": 2_113_024}
counted = cache(count)


def published() -> list[tuple[str, str, float]]:
    """(network, tower, millions of parameters) of Tables 5 and 7."""
    found = []
    for table in ("table5", "table7"):
        for row in load_yaml(EXPERIMENTS / f"{table}.yaml")["rows"]:
            values = row.get("published") or {}
            found += [(row["network"], COLUMNS[c], values[c]) for c in COLUMNS if "network" in row and values.get(c)]
    return sorted(set(found))


def test_the_tables_have_what_is_compared():
    names = {(network, tower) for network, tower, _ in published()}
    mobile = {(f"MobileCLIP-{size}", tower) for size in ("S0", "S1", "S2", "B") for tower in COLUMNS.values()}
    hybrid = {(f"ViT-B/16:MCt-{n}", "text") for n in (6, 4, 2, 1, 0)}
    assert names >= mobile | hybrid | DIFFERENT | {("ViT-B-16", "image")} and len(published()) == len(names)


@pytest.mark.parametrize("network, tower, millions", published())
def test_parameters_are_the_papers(network, tower, millions):
    same = f"{counted(network)[tower]['params'] / 1e6:.1f}" == f"{millions:.1f}"
    assert same == ((network, tower) not in DIFFERENT)


@pytest.mark.parametrize(
    "network, image_train, image, text_train, text",
    [
        ("MobileCLIP-S0", 11_406_464, 11_356_992, 42_441_216, 42_435_072),
        ("MobileCLIP-S1", 21_541_120, 21_460_544, BASE, BASE),
        ("MobileCLIP-S2", 35_814_720, 35_702_480, BASE, BASE),
        ("MobileCLIP-B", 86_348_544, 86_348_544, BASE, BASE),
        ("ViT-B-16", 86_192_640, 86_192_640, BASE, BASE),
        ("open_clip:MobileCLIP-B", 86_349_056, 86_349_056, BASE, BASE),  # its projection has a bias
    ],
)
def test_exact_parameters(network, image_train, image, text_train, text):
    found = counted(network)
    assert (found["image"]["params_train"], found["image"]["params"]) == (image_train, image)
    assert (found["text"]["params_train"], found["text"]["params"]) == (text_train, text)


@pytest.mark.parametrize("attention", [6, 4, 2, 1, 0])
@pytest.mark.parametrize("form", CONVOLUTION)
def test_hybrid_text_encoders_are_the_sum_of_their_blocks(attention, form):
    embeddings, norm, projection = 49_408 * 512 + 77 * 512, 1_024, 512 * 512
    blocks = attention * ATTENTION + (6 - attention) * CONVOLUTION[form]
    found = counted(f"ViT-B/16:MCt-{attention}")["text"][form]
    assert found == embeddings + blocks + norm + projection


@pytest.mark.parametrize("name", ["ViT-B-16", "RN50", "open_clip:MobileCLIP-S1"])
def test_parameters_are_those_of_open_clips_model(name):
    import open_clip

    with torch.device("meta"):
        model = open_clip.create_model(name.removeprefix("open_clip:"), device="meta")
    image = sum(parameter.numel() for parameter in model.visual.parameters())
    every = sum(parameter.numel() for parameter in model.parameters())
    found = counted(name)
    assert (found["image"]["params_train"], found["text"]["params_train"]) == (image, every - image - 1)


@pytest.mark.parametrize(
    "name, tower, width, layers, patch, tokens, embed",
    [
        ("ViT-B-16", "image", 768, 12, 16, 197, 512),
        ("ViT-B-32", "image", 768, 12, 32, 50, 512),
        ("ViT-S/16:Base", "image", 384, 12, 16, 197, 512),
        ("ViT-S-16", "text", 384, 12, 0, 77, 384),  # a network without published weights
        ("MobileCLIP-S1", "text", 512, 12, 0, 77, 512),
        ("MobileCLIP-B", "text", 512, 12, 0, 77, 512),  # a causal mask saves nothing
        ("RN50", "text", 512, 12, 0, 77, 1024),
    ],
)
def test_multiplications_of_transformers(name, tower, width, layers, patch, tokens, embed):
    macs = layers * (12 * width**2 * tokens + 2 * tokens**2 * width) + width * embed
    macs += (tokens - 1) * 3 * patch**2 * width
    assert counted(name)[tower]["gmacs"] == pytest.approx(macs / 1e9, rel=1e-12)


def test_multiplications_of_the_hybrid_text_encoder():
    width, tokens, kernel = 512, 77, 11
    attention = 4 * (12 * width**2 * tokens + 2 * tokens**2 * width)
    convolution = 2 * tokens * (2 * kernel * width + 8 * width**2)
    macs = attention + convolution + width * 512
    assert counted("MobileCLIP-S0")["text"]["gmacs"] == pytest.approx(macs / 1e9, rel=1e-12)


def resnet() -> tuple[nn.Module, int]:
    """RN50's image tower, and the cost of its attention pooling, in which all 50 positions ask and one is used."""
    import open_clip

    width, positions = 2048, 50
    pooling = positions * (3 * width**2 + 2 * positions * width + width * 1024)
    return open_clip.create_model("RN50").visual, pooling


def mci0() -> tuple[nn.Module, int]:
    """timm's folded MCi0, and the cost of the projection behind it."""
    import timm

    network = timm.create_model("fastvit_mci0", num_classes=0).eval()
    return timm.utils.reparameterize_model(network), 1024 * 512


@pytest.mark.parametrize("name, peer", [("MobileCLIP-S0", mci0), ("RN50", resnet)])
def test_multiplications_of_convolutional_networks(name, peer):
    """Real numbers through real layers, whose outputs say what they cost."""
    from timm.models.fastvit import Attention

    network, rest = peer()
    macs = [rest]
    for module in network.eval().modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, _, out: macs.append(out.numel() * m.weight[0].numel()))
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(lambda m, _, out: macs.append(out.numel() * m.in_features))
        elif isinstance(module, Attention):  # [B, D, H, W], between all positions
            module.register_forward_hook(lambda m, _, out: macs.append(2 * out.numel() * out[0, 0].numel()))
    side = counted(name)["image_size"]
    with torch.no_grad():
        network(torch.zeros(1, 3, side, side))
    assert len(macs) > 50
    assert counted(name)["image"]["gmacs"] == pytest.approx(sum(macs) / 1e9, rel=1e-12)
