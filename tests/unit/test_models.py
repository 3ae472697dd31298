"""Initial weights come from the seed alone."""

import json
from pathlib import Path

import pytest
import torch

from clipdr.models import new_model, preprocessing
from clipdr.zoo.tokenizer import train_tokenizer

CONFIGS = sorted(Path(__file__).parents[2].glob("config/models/mini-*.json"))


@pytest.fixture()
def poisoned_memory():
    """Fresh memory is NaN instead of what happened to be there, which is often zero."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_weight_is_initialised_from_the_seed(path, tokenizer, tmp_path, poisoned_memory):
    assert torch.utils.deterministic.fill_uninitialized_memory
    config = json.loads(path.read_text())
    first, again, other = (new_model(config, tokenizer, tmp_path, seed)[0].state_dict() for seed in (0, 0, 1))
    for name, value in first.items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, again[name]), name
    assert any((value != other[name]).any() for name, value in first.items())


def test_preprocessing_is_the_configurations(model_config, tokenizer, tmp_path):
    config = model_config | {"preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    assert preprocessing(new_model(config, tokenizer, tmp_path, 0)[0]) == (32, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_tokenizer_wraps_lower_cases_and_pads(model_config, tokenizer, tmp_path):
    _, tokenize = new_model(model_config, tokenizer, tmp_path, 0)
    tokens = tokenize(["Red APPLE", "red apple", "né 🍏", ""])
    assert tokens.dtype == torch.int64 and tokens.shape == (4, 12)
    assert torch.equal(tokens[0], tokens[1])
    for row in tokens.tolist():
        end = row.index(2)
        assert row[0] == 1 and not any(row[end + 1 :]) and 0 not in row[:end]
    assert tokenize.tokenizer.decode(tokens[2], skip_special_tokens=True).strip() == "né 🍏"


def test_tokenizer_does_not_depend_on_the_order_of_the_texts(tmp_path):
    texts = ["red apple", "green apple", "old tram", "apple tree"]
    for name, given in (("a", texts), ("b", texts[::-1])):
        (tmp_path / name).mkdir()
        train_tokenizer(given, 280, tmp_path / name)
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()
