"""Networks by name against the same ones made by timm and open_clip directly: equal bits on equal weights."""

from functools import cache

import open_clip
import pytest
import timm
import torch
from open_clip.model import convert_to_custom_text_state_dict
from randomise import randomise
from torch import nn
from torch.nn.functional import pad

from clipdr.models.build import build
from clipdr.models.create import create_model
from clipdr.models.registry import configuration

TIMM = {"MobileCLIP-S0": "fastvit_mci0", "MobileCLIP-S1": "fastvit_mci1", "MobileCLIP-S2": "fastvit_mci2"}
TEXTS = ["a photo of a cat", "an owl at night, on the branch of an old tree", ""]


def images(side, batch=1):
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def tokens():
    return open_clip.get_tokenizer("ViT-B-32")(TEXTS)


@pytest.fixture(scope="module")
def models():
    """Name -> model with random weights, in evaluation mode, built when first asked for.

    Image towers made of batch norms and layer scales are randomised, else their blocks would do nothing.
    """

    @cache
    def get(name):
        torch.manual_seed(0)
        model = build(configuration(name), name).eval()
        if name in TIMM:
            randomise(model.visual, 1, images(256))
        return model

    yield get
    get.cache_clear()


def as_open_clip(state):
    """Our state for open_clip's MobileCLIP, whose projection is timm's classifier and has a bias."""
    state = dict(state)
    head = (
        "visual.trunk.head.fc" if any(key.startswith("visual.trunk.stages") for key in state) else "visual.trunk.head"
    )
    weight = state.pop("visual.head.proj.weight")
    return {**state, f"{head}.weight": weight, f"{head}.bias": torch.zeros(len(weight))}


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_image_tower_is_timms(models, name):
    model, img = models(name), images(256)
    theirs = timm.create_model(TIMM[name], num_classes=0).eval()
    theirs.load_state_dict(model.visual.trunk.state_dict())
    features = theirs(img)
    projection = model.visual.head.proj
    assert projection.bias is None and projection.weight.shape == (512, theirs.num_features)
    assert torch.equal(model.visual.trunk(img), features)
    torch.testing.assert_close(model.visual(img), features @ projection.weight.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["MobileCLIP-S1", "MobileCLIP-S2", "MobileCLIP-B"])
@torch.no_grad()
def test_mobileclip_is_open_clips(models, name):
    model = models(name)
    theirs = open_clip.create_model(name).eval()
    theirs.load_state_dict(as_open_clip(model.state_dict()))
    if name == "MobileCLIP-B":  # Apple's network; open_clip has timm's
        theirs.visual.trunk.patch_embed.backbone[0].conv.padding = (1, 1)
        norms = [module for module in theirs.visual.modules() if isinstance(module, nn.LayerNorm)]
        assert len(norms) == 25 and {norm.eps for norm in norms} == {1e-6}
        for norm in norms:
            norm.eps = 1e-5
    img = images(model.visual.image_size[0])
    assert torch.equal(model.encode_text(tokens()), theirs.encode_text(tokens()))
    assert torch.equal(model.encode_image(img), theirs.encode_image(img))
    assert torch.equal(model.logit_scale, theirs.logit_scale)


@torch.no_grad()
def test_the_padded_stem_sees_the_image_one_pixel_further(models):
    """Its first windows do not overlap, so padding by one moves all of them: by one pixel, up and to the left."""
    ours, img = models("MobileCLIP-B").visual.trunk.patch_embed.backbone, images(224)
    theirs = timm.create_model("vit_base_mci_224").eval().patch_embed.backbone
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(img), theirs(pad(img, (1, 0, 1, 0))[..., :224, :224]))
    difference = (ours(img) - theirs(img)).abs().amax(dim=1)[0]
    assert difference.shape == (14, 14) and difference.min() > 1e-3  # not at the borders alone


@torch.no_grad()
def test_only_b_reads_from_left_to_right(models):
    """A change behind the end token reaches the embedding of S2's text tower, and not that of B's."""
    changed = tokens()[:1].repeat(2, 1)
    changed[1, 30] = 17
    first, second = models("MobileCLIP-S2").text(changed)
    assert (first - second).abs().max() > 1e-4
    first, second = models("MobileCLIP-B").text(changed)
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ViT-B-32", "RN50"])
@torch.no_grad()
def test_names_of_open_clip_are_open_clips(name):
    ours = create_model(name, seed=3)
    torch.manual_seed(3)
    theirs, _, preprocess = open_clip.create_model_and_transforms(name)
    expected = convert_to_custom_text_state_dict(theirs.state_dict())
    state = ours.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[key], expected[key]) for key in state)
    img = images(224)
    assert torch.equal(ours.encode_image(img), theirs.eval().encode_image(img))
    assert torch.equal(ours.encode_text(ours.tokenizer(TEXTS)), theirs.encode_text(tokens()))
    assert str(ours.preprocess) == str(preprocess)  # ViT-B-32 and RN50: what open_clip does without a word is right
