"""Stored augmentations against torchvision's RandAugment and RandomResizedCrop."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom, ks_2samp
from torchvision.transforms import RandAugment, RandomErasing, RandomResizedCrop
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.functional import InterpolationMode

from clipdr.data.augment import ERASE, FLIP, OPS, draw, replay, view_array

# The order of the published DataCompDR rows, where op 6 has magnitude .27, op 11 has 178.5, op 4 has 30.45.
NAMES = [
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast"),
    *("Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize"),
]
REAL_ROWS = [
    "[[14, 347, 370, 427], [[0, 0.0], [6, 0.26999998]]]",
    "[[45, 20, 54, 64], [[11, 178.5], [12, 0.0]]]",
    "[[45, 20, 54, 64], [[2, -0.09], [4, -30.45317]]]",
]


def _settings(**changes) -> dict:
    return {"image_size": 224, "crop_scale": [0.08, 1.0], "num_ops": 2, "magnitude": 9} | changes


def _image(width: int = 61, height: int = 47, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_ops_are_torchvisions_in_the_published_order():
    assert [name for name, *_ in OPS] == NAMES
    assert list(RandAugment()._augmentation_space(31, (224, 224))) == NAMES


@pytest.mark.parametrize("size", [32, 64, 224, 256])
@pytest.mark.parametrize("magnitude", [0, 1, 4, 9, 15, 29, 30])
def test_magnitudes_are_torchvisions(size, magnitude):
    space = RandAugment()._augmentation_space(31, (size, size))
    settings = _settings(image_size=size, magnitude=magnitude, num_ops=600)
    seen = {}
    for op, value in draw(np.random.default_rng(0), 50, 40, settings)[1]:
        seen.setdefault(NAMES[op], set()).add(value)
    assert seen.keys() == set(NAMES)
    for name, values in seen.items():
        table, signed = space[name]
        expected = float(table[magnitude]) if table.ndim else 0.0
        signs = {-1, 1} if signed else {1}
        assert {abs(value) for value in values} == {abs(max(values))}
        assert abs(max(values)) == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert expected == 0 or {np.sign(value) for value in values} == signs, name


def test_the_published_magnitudes_come_out_at_magnitude_9():
    values = {abs(value) for _, value in draw(np.random.default_rng(0), 50, 40, _settings(num_ops=600))[1]}
    for published in (0.26999998, 178.5, 0.09, 30.45317):
        assert any(value == pytest.approx(published, rel=1e-6) for value in values)


def test_ops_and_signs_are_drawn_uniformly():
    drawn = draw(np.random.default_rng(1), 50, 40, _settings(num_ops=14_000))[1]
    counts = np.bincount([op for op, _ in drawn], minlength=14)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 13 / 14)  # five standard deviations of the binomial
    positive = np.mean([value > 0 for op, value in drawn if NAMES[op] == "Rotate"])
    assert abs(positive - 0.5) < 5 * 0.5 / np.sqrt(counts[5])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("op", range(14), ids=NAMES)
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_replay_equals_torchvision_byte_for_byte(op, magnitude, sign):
    space, size = RandAugment()._augmentation_space(31, (32, 32)), 32
    table, signed = space[NAMES[op]]
    value = (float(table[magnitude]) if table.ndim else 0.0) * (sign if signed else 1)
    top, left, height, width = 5, 9, 37, 41
    image = _image()
    crop = F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BICUBIC, antialias=True)
    expected = _apply_op(crop, NAMES[op], value, InterpolationMode.NEAREST, None)
    ours = replay(image, [[top, left, height, width], [[op, value]]], size)
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(expected))


@pytest.mark.parametrize("size", [16, 32, 224])
def test_crop_equals_torchvisions_resized_crop(size):
    image = _image(301, 97)
    for seed in range(10):
        box, _ = draw(np.random.default_rng(seed), *image.size, _settings())
        expected = F.resized_crop(image, *box, [size, size], InterpolationMode.BICUBIC, antialias=True)
        np.testing.assert_array_equal(np.asarray(replay(image, [box, []], size)), np.asarray(expected))


def test_ops_are_applied_in_the_stored_order():
    image, box = _image(), [0, 0, 47, 61]
    there, back = ([[5, 9.0], [10, 2.0], [8, 0.9]], [[8, 0.9], [10, 2.0], [5, 9.0]])
    expected = replay(image, [box, []], 32)
    for op, value in there:
        expected = _apply_op(expected, NAMES[op], value, InterpolationMode.NEAREST, None)
    np.testing.assert_array_equal(np.asarray(replay(image, [box, there], 32)), np.asarray(expected))
    assert (np.asarray(replay(image, [box, back], 32)) != np.asarray(expected)).any()


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (640, 479), (301, 200), (9, 11), (1, 1), (3, 2)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.5, 1.0), (0.9, 1.0)])
def test_crops_lie_within_the_image_and_its_bounds(size, scale):
    width, height = size
    random = np.random.default_rng(0)
    for _ in range(300):
        top, left, h, w = draw(random, width, height, _settings(crop_scale=scale))[0]
        assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h > 0 and w > 0
        w0, h0 = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        if [top, left, h, w] == [(height - h0) // 2, (width - w0) // 2, h0, w0]:
            continue  # the fallback
        # sides are rounded to whole pixels: half a pixel each way
        assert (w + 0.5) / (h - 0.5) >= 3 / 4 and (w - 0.5) / (h + 0.5) <= 4 / 3
        assert (w + 0.5) * (h + 0.5) >= scale[0] * width * height and (w - 0.5) * (h - 0.5) <= width * height


def test_crops_are_distributed_as_torchvisions():
    image, scale = _image(301, 200), [0.08, 1.0]
    torch.manual_seed(0)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, [3 / 4, 4 / 3]) for _ in range(2000)])
    random = np.random.default_rng(0)
    ours = np.array([draw(random, *image.size, _settings(crop_scale=scale))[0] for _ in range(2000)])
    for column in range(4):
        assert ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    assert ks_2samp(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2]).pvalue > 1e-3


@pytest.mark.parametrize("size", [(400, 10), (10, 401), (300, 120)])
def test_extreme_aspects_fall_back_to_the_box_of_torchvision(size):
    theirs = RandomResizedCrop.get_params(_image(*size), [0.9, 1.0], [3 / 4, 4 / 3])
    assert draw(np.random.default_rng(0), *size, _settings(crop_scale=[0.9, 1.0]))[0] == list(theirs)


@pytest.mark.parametrize("row", REAL_ROWS)
def test_published_rows_replay(row):
    view = replay(_image(910, 640), json.loads(row), 224)
    assert view.size == (224, 224) and view.mode == "RGB"
    (top, left, height, width), ops = json.loads(row)
    expected = F.resized_crop(_image(910, 640), top, left, height, width, [224, 224], InterpolationMode.BICUBIC)
    for op, value in ops:
        expected = _apply_op(expected, NAMES[op], value, InterpolationMode.NEAREST, None)
    np.testing.assert_array_equal(np.asarray(view), np.asarray(expected))


def test_draws_depend_on_the_seed_only():
    def drawn(seed):
        random = np.random.default_rng(seed)
        return [draw(random, 61, 47, _settings()) for _ in range(20)]

    first = drawn(3)
    np.random.default_rng(8).random(7)
    torch.manual_seed(9)
    assert drawn(3) == first
    assert drawn(4) != first
    assert json.loads(json.dumps(first)) == first  # plain numbers: what is stored is what was drawn


def test_view_array_stacks_replays():
    image, random = _image(), np.random.default_rng(0)
    entries = [draw(random, *image.size, _settings(image_size=32)) for _ in range(3)]
    views = view_array(image, entries, 32)
    assert views.shape == (3, 3, 32, 32) and views.dtype == np.uint8
    for view, entry in zip(views, entries, strict=True):
        np.testing.assert_array_equal(view, np.moveaxis(np.asarray(replay(image, entry, 32)), 2, 0))


def test_flips_and_erasing_come_as_often_as_asked_and_change_no_other_draw():
    settings = _settings(image_size=64)
    plain = [draw(np.random.default_rng(seed), 50, 40, settings) for seed in range(2000)]
    drawn = [draw(np.random.default_rng(seed), 50, 40, settings | {"flip": 0.5, "erase": 0.25}) for seed in range(2000)]
    for before, (crop, (flip, *ops, erase)) in zip(plain, drawn, strict=True):
        assert [crop, ops] == before
        assert flip in (None, [FLIP, 1.0]) and (erase is None or erase[0] == ERASE)
    for position, share in ((0, 0.5), (-1, 0.25)):
        seen = sum(ops[position] is not None for _, ops in drawn)
        assert binom.ppf(1e-6, 2000, share) < seen < binom.ppf(1 - 1e-6, 2000, share)


def test_a_flip_is_pils_and_comes_before_the_other_ops():
    image, entry = _image(), [[0, 0, 47, 61], [[FLIP, 1.0], [3, 7.0]]]
    mirrored = replay(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), [entry[0], [[3, 7.0]]], 32)
    difference = np.abs(np.asarray(replay(image, entry, 32)).astype(int) - np.asarray(mirrored))
    assert difference.max() <= 1  # PIL's resize rounds either way
    once = replay(image, [entry[0], []], 32)
    np.testing.assert_array_equal(np.asarray(replay(image, [entry[0], [[FLIP, 1.0]]], 32)), np.asarray(once)[:, ::-1])


def test_erased_boxes_are_those_of_torchvisions_random_erasing():
    """Areas, aspects and places of 3000 boxes against torchvision's, of a picture that is white."""
    torch.manual_seed(0)
    erase, white, settings = RandomErasing(p=1.0), torch.ones(3, 100, 100), _settings(image_size=100, erase=1.0)
    ours, theirs = [], []
    for seed in range(3000):
        ((index, box),) = draw(np.random.default_rng(seed), 50, 40, settings | {"num_ops": 0})[1]
        assert index == ERASE
        ours.append([round(100 * share) for share in box])
        rows, columns = (torch.nonzero((erase(white) == 0)[0].any(dim)).flatten() for dim in (1, 0))
        theirs.append([rows[0].item(), columns[0].item(), len(rows), len(columns)])
    for mine, other in zip(np.array(ours).T, np.array(theirs).T, strict=True):
        assert ks_2samp(mine, other).pvalue > 1e-4


@pytest.mark.parametrize("size", [32, 64])
def test_an_erased_box_is_black_whatever_the_size(size):
    entry = [[0, 0, 47, 61], [[ERASE, [0.25, 0.5, 0.25, 0.125]]]]
    before, after = np.asarray(replay(_image(), [entry[0], []], size)), np.asarray(replay(_image(), entry, size))
    inside = np.zeros((size, size), bool)
    inside[size // 4 : size // 2, size // 2 : size // 2 + size // 8] = True
    assert (after[inside] == 0).all()
    np.testing.assert_array_equal(after[~inside], before[~inside])
