"""Synthetic captions: sampling against open_clip's, numbers by hand, and captions that belong to their image alone."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2_contingency

from clipdr.data.samples import decode_image
from clipdr.data.shards import read_shard
from clipdr.errors import UserError
from clipdr.models.folder import preprocessing
from clipdr.models.load import load_model
from clipdr.reinforce import captions as stage
from clipdr.reinforce.captions import caption, describe, generate
from clipdr.reinforce.sampling import encode, sample

SETTINGS = {"number": 3, "top_p": 0.9, "temperature": 1.0, "max_tokens": 11, "min_tokens": 2, "redraws": 3, "seed": 0}


@pytest.fixture(scope="module")
def model(captioner):
    return load_model(captioner)


def generators(number: int) -> list[np.random.Generator]:
    return [np.random.default_rng([0, image]) for image in range(number)]


def peer(model, img: torch.Tensor, settings: dict) -> torch.Tensor:
    """What open_clip's own sampling draws: int64 [N, max_tokens]."""
    start, end, pad = model.tokenizer.marks
    names = {"seq_len": "max_tokens", "min_seq_len": "min_tokens", "top_p": "top_p", "temperature": "temperature"}
    return model.generate(
        img,
        generation_type="top_p",
        sot_token_id=start,
        eos_token_id=end,
        pad_token_id=pad,
        fixed_output_length=True,
        max_seq_len=model.context_length,
        **{theirs: settings[ours] for theirs, ours in names.items()},
    )


@pytest.mark.parametrize("min_tokens", [2, 5])
def test_a_nucleus_of_one_token_leaves_open_clip_and_us_no_choice(model, min_tokens):
    img = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    settings = SETTINGS | {"top_p": 1e-6, "min_tokens": min_tokens}
    assert torch.equal(sample(model, encode(model, img), settings, generators(16)), peer(model, img, settings))


@pytest.mark.parametrize(("top_p", "temperature"), [(0.2, 1.0), (0.2, 0.5), (1.0, 2.0)])
def test_first_tokens_are_drawn_as_often_as_open_clips(model, top_p, temperature):
    """8000 draws each: the same tokens, and no more differences in how often than chance makes."""
    img = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).expand(8000, -1, -1, -1)
    settings = SETTINGS | {"top_p": top_p, "temperature": temperature, "max_tokens": 3, "min_tokens": 1}
    torch.manual_seed(0)
    tokens = encode(model, img[:1]).expand(8000, -1, -1)
    ours, theirs = (
        np.bincount(drawn[:, 1].numpy(), minlength=300)
        for drawn in (sample(model, tokens, settings, generators(8000)), peer(model, img, settings))
    )
    often = (ours + theirs) > 20
    assert often.sum() > 5 and ours[~often].sum() < 800
    assert ((ours[often] > 0) == (theirs[often] > 0)).all()
    assert chi2_contingency([ours[often], theirs[often]]).pvalue > 1e-4


def test_a_draw_takes_the_token_at_which_the_sum_of_probabilities_passes_it():
    from clipdr.reinforce.sampling import _draw

    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).expand(5, -1)
    draws = torch.tensor([0.0, 0.2499, 0.25, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert _draw(probabilities, draws).tolist() == [1, 1, 3, 3, 3]


def test_numbers_of_captions_by_hand():
    table = pd.DataFrame({"syn": [["Cat", "cat, pet", "cat, pet", "dog"], ["owl"] * 4], "label": ["cat", "Owl"]})
    unlabelled = pd.DataFrame({"syn": [["a", "b"]], "label": [None]})
    assert describe([table, unlabelled]) == {
        "captions": 10,
        "labelled": 8,
        "equal_to_label": 5,  # one "Cat" and four "owl"
        "distinct": 3 + 1 + 2,
    }


def test_captions_are_never_empty(model):
    """A random captioner draws padding, control and space tokens too."""
    img = torch.rand(300, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = generate(model, img, SETTINGS | {"top_p": 1.0}, [[image] for image in range(300)], 2)
    assert [len(row) for row in texts] == [2] * 300
    assert all(text and text == text.strip() for row in texts for text in row)


def test_a_captioner_that_says_nothing(model, monkeypatch):
    monkeypatch.setattr(stage, "sample", lambda model, tokens, *_: torch.tensor([[1, 0, 0, 0]] * len(tokens)))
    with pytest.raises(UserError, match="5 of 5 images"):
        generate(model, torch.rand(5, 3, 32, 32), SETTINGS, [[n] for n in range(5)], 1)


def written(folder) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


def test_same_seed_same_captions(captioner, pool, tmp_path):
    folder, index = pool
    for number, (name, settings) in enumerate({"first": SETTINGS, "again": SETTINGS, "other": {"seed": 1}}.items()):
        torch.manual_seed(100 + number)  # what was drawn before must not matter
        caption(folder, index, captioner, SETTINGS | settings, tmp_path / name)
    for file in ("00000.parquet", "00001.parquet", "manifest.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()
    first, other = written(tmp_path / "first"), written(tmp_path / "other")
    assert list(first["uid"]) == list(index["uid"]) and all(len(syn) == 3 for syn in first["syn"])
    assert any((a != b).any() for a, b in zip(first["syn"], other["syn"], strict=True))
    manifest = json.loads((tmp_path / "first/manifest.json").read_text())
    assert {key: manifest[key] for key in ("captions", "distinct")} == {
        "captions": 18,
        "distinct": sum(len(set(syn)) for syn in first["syn"]),
    }
    assert manifest["shards"] == {"00000.parquet": 3, "00001.parquet": 3} and manifest["settings"] == SETTINGS


def test_captions_belong_to_their_image(captioner, pool, tmp_path):
    """Not to the number of captions, nor to what else is captioned in other shards; and those of an image differ."""
    folder, index = pool
    caption(folder, index, captioner, SETTINGS, tmp_path / "all")
    caption(folder, index[index["shard"] == "00001.tar"], captioner, SETTINGS, tmp_path / "second")
    caption(folder, index, captioner, SETTINGS | {"number": 1}, tmp_path / "one")
    whole = written(tmp_path / "all")
    assert all(len(set(syn)) > 1 for syn in whole["syn"])
    assert [list(syn) for syn in written(tmp_path / "second")["syn"]] == [list(syn) for syn in whole["syn"][3:]]
    assert [list(syn) for syn in written(tmp_path / "one")["syn"]] == [list(syn[:1]) for syn in whole["syn"]]


def test_killed_captions_go_on_where_they_were(captioner, pool, tmp_path, monkeypatch):
    asked, inner = [], stage._caption

    def killed_at_the_second(model, samples, settings):
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return inner(model, samples, settings)

    monkeypatch.setattr(stage, "_caption", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        caption(*pool, captioner, SETTINGS, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    caption(*pool, captioner, SETTINGS, tmp_path / "cut")
    caption(*pool, captioner, SETTINGS, tmp_path / "whole")
    assert len(asked) == 3 + 2
    for path in (tmp_path / "whole").glob("*.*"):
        assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes()


def test_the_image_is_encoded_once_however_many_captions(captioner, pool, tmp_path, monkeypatch):
    seen, inner = [], stage.encode
    monkeypatch.setattr(stage, "encode", lambda model, img: (seen.append(len(img)), inner(model, img))[1])
    caption(*pool, captioner, SETTINGS | {"number": 5}, tmp_path / "captions")
    assert seen == [3, 3]


def test_images_reach_the_captioner_as_it_wants_them(captioner, pool, tmp_path, monkeypatch):
    """Bilinear and antialiased, the shortest side first, then the middle, normalised: the model's own preprocessing."""
    from PIL import Image

    seen, inner = [], stage.encode
    monkeypatch.setattr(stage, "encode", lambda model, img: (seen.extend(img), inner(model, img))[1])
    caption(*pool, captioner, SETTINGS | {"number": 1}, tmp_path / "captions")
    _, mean, std = preprocessing(load_model(captioner))
    samples = [sample for shard in ("00000.tar", "00001.tar") for sample in read_shard(pool[0] / shard)]
    for img, one in zip(seen, samples, strict=True):
        image = decode_image(one)
        sides = [max(32, int(32 * side / min(image.size))) for side in image.size]
        left, top = ((side - 32) / 2 for side in sides)
        resized = image.resize(sides, Image.Resampling.BILINEAR).crop(
            (round(left), round(top), round(left) + 32, round(top) + 32)
        )
        pixels = np.asarray(resized) / 255
        np.testing.assert_allclose(img.numpy().transpose(1, 2, 0), (pixels - mean) / std, atol=1e-6)


class Scripted:
    """A captioner whose tokens are numbers of texts."""

    def __init__(self, *tries: list[str]) -> None:
        self.tries, self.asked, self.tokenizer = iter(tries), [], self

    def sample(self, model, tokens, settings, generators):
        self.asked.append(len(tokens))
        return next(self.tries)

    def decode(self, texts: list[str]) -> list[str]:
        return texts


def drawn(script: Scripted, monkeypatch, settings: dict, number: int) -> list[list[str]]:
    monkeypatch.setattr(stage, "sample", script.sample)
    monkeypatch.setattr(stage, "encode", lambda model, img: img)
    return generate(script, torch.zeros(2, 1), settings, [[0], [1]], number)


def test_a_caption_that_an_image_has_is_drawn_again_and_kept_only_when_nothing_else_comes(monkeypatch):
    """Image 0 gets "a" again until the third try, image 1 never anything but "b"."""
    script = Scripted(["a", "b"], ["a", "b"], ["a", "b"], ["c", "b"], ["b"], ["never asked"])
    assert drawn(script, monkeypatch, {"redraws": 3}, 2) == [["a", "c"], ["b", "b"]]
    assert script.asked == [2, 2, 2, 2, 1]


def test_the_published_generator_keeps_whatever_it_draws_first(monkeypatch):
    assert drawn(Scripted(["a", "b"], ["a", "b"]), monkeypatch, {}, 2) == [["a", "a"], ["b", "b"]]
    assert stage.PUBLISHED == {"min_tokens": 5, "redraws": 0}


def test_captions_end_at_the_first_full_stop(monkeypatch):
    script = Scripted(["An owl . At night.", "."], ["A rose"])
    assert drawn(script, monkeypatch, {}, 1) == [["An owl"], ["A rose"]]


def test_tokens_are_read_up_to_the_first_end(model):
    start, end, pad = model.tokenizer.marks
    ids = [token for token in model.tokenizer(["red apple"])[0].tolist() if token not in (start, end, pad)]
    assert model.tokenizer.decode(torch.tensor([[start, *ids, end, *ids, pad]])) == ["red apple"]
