"""Synthetic captions: the manifest by hand, and a tiny random captioner that must speak, and say the same twice."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from clipdr.errors import UserError
from clipdr.models.folder import preprocessing
from clipdr.models.load import load_model
from clipdr.reinforce import captions as stage
from clipdr.reinforce.captions import caption, describe, generate

SETTINGS = {"number": 3, "top_p": 0.9, "temperature": 1.0, "max_tokens": 11, "min_tokens": 2, "redraws": 3, "seed": 0}


def test_describe_by_hand():
    rows = [{"uid": "a", "syn": ["Cat", "cat, pet", "cat, pet", "dog"]}, {"uid": "b", "syn": ["owl"] * 4}]
    assert describe(rows, ["cat", "Owl"]) == {
        "images": 2,
        "captions": 8,
        "share_equal_to_label": 0.625,  # one of "cat" and four of "owl"
        "share_distinct_per_image": 0.5,  # the mean of 3/4 and 1/4
    }


def test_captions_are_never_empty(captioner):
    """A random captioner draws padding, control and space tokens too."""
    model = load_model(captioner)
    torch.manual_seed(0)
    texts = generate(model, torch.rand(700, 3, 32, 32), SETTINGS | {"top_p": 1.0})
    assert len(texts) == 700
    assert all(text and text == text.strip() for text in texts)


def test_a_captioner_that_says_nothing(captioner, monkeypatch):
    model = load_model(captioner)
    monkeypatch.setattr(model, "generate", lambda batch, **_: torch.tensor([[1, 0, 0, 0]] * len(batch)))
    with pytest.raises(UserError, match="5 of 5 images"):
        generate(model, torch.rand(5, 3, 32, 32), SETTINGS)


def test_the_settings_reach_the_captioner(captioner, monkeypatch):
    model = load_model(captioner)
    seen, drawn, inner = [], [], model.generate

    def watched(batch, **kwargs):
        seen.append(kwargs)
        drawn.append(inner(batch, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(model, "generate", watched)
    generate(model, torch.rand(3, 3, 32, 32), SETTINGS | {"max_tokens": 5, "top_p": 0.3})
    assert (seen[0]["generation_type"], seen[0]["top_p"], seen[0]["temperature"]) == ("top_p", 0.3, 1.0)
    assert (seen[0]["sot_token_id"], seen[0]["eos_token_id"], seen[0]["pad_token_id"]) == (1, 2, 0)
    assert drawn[0].shape == (3, 5) and (drawn[0][:, 0] == 1).all()


def test_same_seed_same_captions(captioner, pool, tmp_path):
    folder, index = pool
    names = {"first": SETTINGS, "again": SETTINGS, "other": SETTINGS | {"seed": 1}}
    for number, (name, settings) in enumerate(names.items()):
        torch.manual_seed(100 + number)  # what was drawn before must not matter
        caption(folder, index, captioner, settings, tmp_path / f"{name}.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()
    first, other = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("first", "other"))
    assert list(first["uid"]) == list(index["uid"]) and all(len(syn) == 3 for syn in first["syn"])
    assert any((a != b).any() for a, b in zip(first["syn"], other["syn"], strict=True))
    manifest = json.loads((tmp_path / "first.json").read_text())
    assert manifest == describe(first.to_dict("records"), list(index["label"])) | SETTINGS


def test_samples_of_an_image_are_independent(captioner, pool, tmp_path):
    caption(*pool, captioner, SETTINGS, tmp_path / "captions.parquet")
    assert all(len(set(syn)) > 1 for syn in pd.read_parquet(tmp_path / "captions.parquet")["syn"])


def test_images_reach_the_captioner_as_it_wants_them(captioner, pool, tmp_path, monkeypatch):
    """Bilinear and antialiased, the shortest side first, then the middle, normalised: the model's own preprocessing."""
    from PIL import Image

    from clipdr.data.samples import decode_image
    from clipdr.data.shards import read_shard

    seen = []
    monkeypatch.setattr(stage, "generate", lambda model, img, *_: (seen.append(img), ["x"] * 6)[1])
    caption(*pool, captioner, SETTINGS | {"number": 1}, tmp_path / "captions.parquet")
    _, mean, std = preprocessing(load_model(captioner))
    samples = [sample for shard in ("00000.tar", "00001.tar") for sample in read_shard(pool[0] / shard)]
    for img, sample in zip(seen[0], samples, strict=True):
        image = decode_image(sample)
        sides = [max(32, int(32 * side / min(image.size))) for side in image.size]
        left, top = ((side - 32) / 2 for side in sides)
        resized = image.resize(sides, Image.Resampling.BILINEAR).crop(
            (round(left), round(top), round(left) + 32, round(top) + 32)
        )
        pixels = np.asarray(resized) / 255
        np.testing.assert_allclose(img.numpy().transpose(1, 2, 0), (pixels - mean) / std, atol=1e-6)


def test_a_caption_that_an_image_has_is_drawn_again_and_kept_only_when_nothing_else_comes(monkeypatch):
    """Image 0 gets "a" until the third try, image 1 never anything but "b"."""
    tries = iter([["a", "b"], ["a", "b"], ["c", "b"], ["b"], ["never asked"]])
    asked = []

    def sample(model, img, settings):
        asked.append(len(img))
        return next(tries)

    monkeypatch.setattr(stage, "_sample", sample)
    texts = stage.generate(None, torch.zeros(2, 1), {"redraws": 3}, [{"a"}, {"b"}])
    assert texts == ["c", "b"]
    assert asked == [2, 2, 2, 1]


def test_the_published_generator_keeps_whatever_it_draws_first(monkeypatch):
    monkeypatch.setattr(stage, "_sample", lambda model, img, settings: ["a", "b"])
    assert stage.generate(None, torch.zeros(2, 1), {}, [{"a"}, {"b"}]) == ["a", "b"]
    assert stage.PUBLISHED == {"min_tokens": 5, "redraws": 0}


def test_captions_end_at_the_first_full_stop_and_at_the_first_end(captioner, monkeypatch):
    model = load_model(captioner)
    start, end, pad = model.tokenizer.marks
    ids = [token for token in model.tokenizer(["red apple"])[0].tolist() if token not in (start, end, pad)]
    monkeypatch.setattr(model, "generate", lambda batch, **_: torch.tensor([[start, *ids, end, *ids, pad]]))
    assert stage.generate(model, torch.zeros(1, 3, 32, 32), SETTINGS) == ["red apple"]
    monkeypatch.setattr(model.tokenizer, "decode", lambda tokens: ["An owl . At night."])
    assert stage.generate(model, torch.zeros(1, 3, 32, 32), SETTINGS) == ["An owl"]
