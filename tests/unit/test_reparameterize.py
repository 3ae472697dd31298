"""Folding changes no output, leaves the original alone, and removes every train-time branch: on miniatures."""

import copy
import re

import pytest
import torch
from randomise import BATCH_NORMS, distance, randomise
from torch import nn

from clipdr.models.build import build
from clipdr.models.fold import reparameterize
from clipdr.models.registry import configuration

# Name -> the tower with something to fold.
TOWERS = {"mini-mci-base": "visual", "mini-fastvit-base": "visual", "mini-mct-4": "text", "mini-mct-0": "text"}
# Batch norms that stay: in front of a feed-forward block, behind its depthwise convolution, and in front of attention.
BRANCHES = {
    "visual": ("mixer.conv_kxk", "mixer.conv_scale", "mixer.identity", "norm.identity", "small_conv", "pos_enc"),
    "text": ("skip_bn", "norm_bn", "conv_bn"),
}
STAY = {"visual": r"\.mlp\.conv\.bn|stages\.3\.blocks\.\d+\.norm", "text": r"resblocks\.\d+\.mlp\.bn"}


def inputs(seed=0, batch=8):
    """Images and texts of the miniatures: random pixels; a start token, random ones, and the end somewhere."""
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 1000, (batch, 16), generator=random)
    tokens[:, 0] = 1
    tokens[torch.arange(batch), torch.randint(2, 16, (batch,), generator=random)] = 2
    return torch.rand(batch, 3, 32, 32, generator=random), tokens


def random_model(name):
    torch.manual_seed(0)
    return randomise(build(configuration(name), name), 1, *inputs())


@pytest.fixture(scope="module", params=TOWERS)
def pair(request):
    """(name, original, folded)."""
    model = random_model(request.param)
    return request.param, model, reparameterize(model)


@torch.no_grad()
def outputs(model):
    """Of other images and texts than the statistics are from."""
    img, tokens = inputs(seed=2)
    return model.visual(img), model.text(tokens)


def without(model, pattern):
    """A copy of which all weights with such a name are zero."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        names = [name for name, _ in model.named_parameters() if re.search(pattern, name)]
        assert names
        for name in names:
            model.get_parameter(name).zero_()
    return model


def test_outputs_are_equal(pair):
    _, model, folded = pair
    for first, second in zip(outputs(folded), outputs(model), strict=True):
        assert torch.isfinite(second).all() and distance(first, second) < 1e-5
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5 * second.abs().max().item())


def test_the_branches_count(pair):
    """Else the outputs would be equal whatever folding does."""
    name, model, _ = pair
    at = ["visual", "text"].index(TOWERS[name])
    scales = [value for key, value in model.named_parameters() if "layer_scale" in key]
    assert all(value.min() >= 0.5 and value.max() <= 1.5 for value in scales)
    whole = outputs(model)[at]
    assert distance(outputs(without(model, r"token_mixer\.layer_scale"))[at], whole) > 0.1
    for branch in BRANCHES[TOWERS[name]]:
        assert distance(outputs(without(model, branch))[at], whole) > 0.01, branch


def test_texts_and_images_still_differ(pair):
    """Random networks may answer the same to everything; such an output says little."""
    name, model, _ = pair
    for out_BD in outputs(model):
        normed = nn.functional.normalize(out_BD, dim=-1)
        cosines = (normed @ normed.T)[~torch.eye(len(normed), dtype=torch.bool)]
        assert cosines.max() < 0.9999 and cosines.min() < 0.99, name


def test_a_second_time_changes_nothing(pair):
    _, _, folded = pair
    again = reparameterize(folded)
    assert again is not folded
    first, second = folded.state_dict(), again.state_dict()
    assert list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(("name", "training"), [("mini-mci-base", True), ("mini-mct-4", False)])
def test_the_original_is_left_alone(name, training):
    model = random_model(name).train(training)
    before = copy.deepcopy(model.state_dict())
    folded = reparameterize(model)
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    shared = {value.data_ptr() for value in folded.state_dict().values() if value.numel()}
    assert not shared & {value.data_ptr() for value in after.values() if value.numel()}


def test_no_branch_is_left(pair):
    name, model, folded = pair
    tower = TOWERS[name]
    norms = [key for key, module in getattr(folded, tower).named_modules() if isinstance(module, BATCH_NORMS)]
    assert norms and all(re.search(rf"({STAY[tower]})$", key) for key in norms)
    branches = r"conv_kxk|conv_scale|identity|large_conv|small_conv|pos_enc|mixer\.norm|_bn\.|token_mixer\.layer_scale"
    assert re.search(branches, " ".join(model.state_dict()))
    assert not re.search(branches, " ".join(getattr(folded, tower).state_dict()))
    weights = [sum(parameter.numel() for parameter in one.parameters()) for one in (folded, model)]
    assert weights[0] < weights[1]


def test_what_is_not_folded_is_kept(pair):
    """Bit by bit: float32 goes through float64 and back."""
    _, model, folded = pair
    before, after = model.state_dict(), folded.state_dict()
    common = before.keys() & after.keys()
    assert len(common) > 20 and all(torch.equal(before[key], after[key]) for key in common)


def test_every_part_is_in_evaluation_mode(pair):
    _, _, folded = pair
    assert [name for name, module in folded.named_modules() if module.training] == []


def test_folded_weights_are_float32_and_need_no_gradient(pair):
    _, model, folded = pair
    assert {value.dtype for value in folded.state_dict().values()} == {torch.float32, torch.int64}
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not any(out.requires_grad for out in (folded.visual(inputs()[0]), folded.text(inputs()[1])))
    assert model.logit_scale == folded.logit_scale


def test_another_precision_is_kept():
    model = random_model("mini-mct-4").double()
    folded = reparameterize(model)
    assert {value.dtype for value in folded.state_dict().values()} == {torch.float64, torch.int64}
    img, tokens = inputs(seed=2)
    with torch.no_grad():
        torch.testing.assert_close(folded.text(tokens), model.text(tokens), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(folded.visual(img.double()), model.visual(img.double()), rtol=1e-10, atol=1e-10)


def test_preprocessing_and_input_checks_are_kept():
    from PIL import Image

    from clipdr.errors import UserError

    model = build(configuration("mini-mct-0"), "mini-mct-0")
    folded = reparameterize(model)
    image = Image.linear_gradient("L").resize((50, 40))
    assert torch.equal(folded.preprocess(image), model.preprocess(image))
    with pytest.raises(UserError, match="images have shape"):
        folded.visual(torch.rand(1, 3, 30, 30))
    with pytest.raises(UserError, match="tokens have shape"):
        folded.text(torch.ones(1, 15, dtype=torch.int64))


def test_a_model_without_branches_stays_as_it_is():
    torch.manual_seed(0)
    model = build(configuration("mini-vit-base"), "mini-vit-base").eval()
    for first, second in zip(outputs(reparameterize(model)), outputs(model), strict=True):
        assert torch.equal(first, second)
