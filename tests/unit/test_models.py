"""Initial weights come from the seed alone, the tokenizer from the texts alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipdr.models import new_model, preprocessing

SRC = Path(__file__).parents[2] / "src"
CONFIGS = sorted(SRC.parent.glob("config/models/mini-*.json"))


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
    texts = ["Old TRAM, at night", "old tram, at night", "né", ""]
    tokens = tokenize(texts)
    assert tokens.dtype == torch.int64 and tokens.shape == (4, 12)
    assert torch.equal(tokens[0], tokens[1]) and 3 in tokens[2]  # é is in no text of the training
    for row in tokens.tolist():
        end = row.index(2)
        assert row[0] == 1 and not any(row[end + 1 :]) and 0 not in row[:end]
    assert tokenize.tokenizer.decode(tokens[0], skip_special_tokens=True) == texts[1]


TRAIN = """
import sys
from pathlib import Path
from clipdr.zoo.tokenizer import train_tokenizer
texts = ["red apple", "green apple", "old tram", "apple-tree, old", "two crabs", "my own dog", "an owl at night"]
train_tokenizer(sorted(texts, key=len, reverse=sys.argv[2] == "1"), 80, Path(sys.argv[1]))
"""


def test_tokenizer_depends_on_the_texts_alone(tmp_path):
    """Not on their order, nor on the process: hash tables differ from one to the next."""
    found = set()
    for order in "01":
        (tmp_path / order).mkdir()
        subprocess.run([sys.executable, "-c", TRAIN, tmp_path / order, order], check=True, cwd=SRC)
        found.add((tmp_path / order / "tokenizer.json").read_bytes())
    assert len(found) == 1
