"""Folding MobileCLIP at full size: no output changes, parameters are the paper's, timm folds image towers the same.

The miniatures in tests/unit/test_reparameterize.py show the rest.
"""

import gc
import re
from copy import deepcopy

import pytest
import torch
from randomise import distance, randomise
from timm.utils import reparameterize_model
from torch.nn.functional import normalize

from clipdr.models.build import build
from clipdr.models.fold import reparameterize
from clipdr.models.folder import preprocessing
from clipdr.models.registry import configuration

pytestmark = pytest.mark.slow

# Of the image and the text tower: as trained, and folded. Table 7 has the folded ones: 11.4 + 42.4, 21.5 + 63.4, …
COUNTS = {
    "MobileCLIP-S0": ((11_406_464, 42_441_216), (11_356_992, 42_435_072)),
    "MobileCLIP-S1": ((21_541_120, 63_428_096), (21_460_544, 63_428_096)),
    "MobileCLIP-S2": ((35_814_720, 63_428_096), (35_702_480, 63_428_096)),
    "MobileCLIP-B": ((86_348_544, 63_428_096), (86_348_544, 63_428_096)),
}
# Towers with something to fold.
BRANCHES = {
    "MobileCLIP-S0": ("visual", "text"),
    "MobileCLIP-S1": ("visual",),
    "MobileCLIP-S2": ("visual",),
    "MobileCLIP-B": (),
}


def inputs(model, seed):
    """Two images of large and small shapes, and two texts."""
    random = torch.Generator().manual_seed(seed)
    side = preprocessing(model)[0]
    img = torch.nn.functional.interpolate(torch.rand(2, 3, side // 8, side // 8, generator=random), side)
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    for row, length in zip(tokens, (9, 40), strict=True):
        row[1:length] = torch.randint(0, 49406, (length - 1,), generator=random)
        row[0], row[length] = 49406, 49407
    return (img + 0.2 * torch.rand(img.shape, generator=random)).clamp(0, 1), tokens


@pytest.fixture(scope="module", params=COUNTS)
def pair(request):
    """(name, original, folded); one at a time in memory."""
    torch.manual_seed(0)
    model = build(configuration(request.param), request.param)
    randomise(model, 1, *inputs(model, 2))
    yield request.param, model, reparameterize(model)
    del model
    gc.collect()


def count(tower):
    return sum(parameter.numel() for parameter in tower.parameters())


def test_parameters(pair):
    name, model, folded = pair
    assert tuple((count(one.visual), count(one.text)) for one in (model, folded)) == COUNTS[name]


@torch.no_grad()
def test_outputs_are_equal(pair):
    """In float32 both networks round by 1e-5, so what folding changes shows in float64."""
    name, model, folded = pair
    for tower, arg in zip(("visual", "text"), inputs(model, 3), strict=True):
        before, after = getattr(model, tower)(arg), getattr(folded, tower)(arg)
        assert torch.isfinite(before).all() and 1e-2 < before.abs().max() < 1e4
        assert normalize(before, dim=-1).prod(dim=0).sum() < 0.999  # the cosine: both inputs have their own output
        assert distance(after, before) < 5e-5
        if tower in BRANCHES[name]:
            arg = arg.double() if tower == "visual" else arg
            before, after = (deepcopy(getattr(one, tower)).double()(arg) for one in (model, folded))
            assert distance(after, before) < 1e-5


@pytest.mark.parametrize("tower", ["visual", "text"])
def test_a_tower_without_branches_stays_as_it_is(pair, tower):
    name, model, folded = pair
    before, after = getattr(model, tower).state_dict(), getattr(folded, tower).state_dict()
    assert (before.keys() == after.keys()) == (tower not in BRANCHES[name])
    assert all(torch.equal(value, after[key]) for key, value in before.items() if key in after)


@torch.no_grad()
def test_the_token_mixers_count(pair):
    """Without them the outputs would be others: the layer scales are of order 1."""
    name, model, _ = pair
    for tower, arg in zip(("visual", "text"), inputs(model, 3), strict=True):
        without = deepcopy(getattr(model, tower))
        scales = [value for key, value in without.named_parameters() if "token_mixer.layer_scale" in key]
        for value in scales:
            value.zero_()
        assert bool(scales) == (tower in BRANCHES[name])
        if scales:
            assert distance(without(arg), getattr(model, tower)(arg)) > 0.1


@torch.no_grad()
def test_timm_folds_the_image_tower_the_same(pair):
    _, model, folded = pair
    theirs = reparameterize_model(model.visual.trunk)
    ours = folded.visual.trunk.state_dict()
    assert ours.keys() == theirs.state_dict().keys()
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-5 * value.abs().max().item(), msg=key)
    img, _ = inputs(model, 3)
    assert distance(folded.visual.trunk(img), theirs(img)) < 5e-5


def test_no_branch_is_left(pair):
    name, model, folded = pair
    branches = r"conv_kxk|conv_scale|identity|large_conv|small_conv|pos_enc|mixer\.norm|skip_bn|norm_bn"
    assert bool(re.search(branches, " ".join(model.state_dict()))) == bool(BRANCHES[name])
    assert not re.search(branches, " ".join(folded.state_dict()))
