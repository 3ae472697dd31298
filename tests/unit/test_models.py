"""Initial weights come from the seed alone, the tokenizer from the texts alone; a folder gives its model back."""

import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from small import new_model

from clipdr.model_files import load_models
from clipdr.models.folder import load_tokenizer, preprocessing, save_weights
from clipdr.models.load import load_model

REPO = Path(__file__).parents[2]
SRC = REPO / "src"
MINIS = {name: config for name, config in load_models(REPO).items() if name.startswith("mini-")}


@pytest.fixture()
def poisoned_memory():
    """Fresh memory is NaN instead of what happened to be there, which is often zero."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", MINIS)
def test_every_weight_is_initialised_from_the_seed(name, tokenizer, tmp_path, poisoned_memory):
    assert torch.utils.deterministic.fill_uninitialized_memory
    config = MINIS[name]
    first, again, other = (new_model(config, tokenizer, tmp_path, seed)[0].state_dict() for seed in (0, 0, 1))
    for name, value in first.items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, again[name]), name
    assert any((value != other[name]).any() for name, value in first.items())


def test_preprocessing_is_the_configurations(model_config, tokenizer, tmp_path):
    given = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic"}
    config = model_config | {"preprocess_cfg": given}
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
    assert tokenize.marks == (1, 2, 0) and tokenize.decode(tokens[:1]) == texts[1:2]


def _folder(name, tokenizer, folder):
    """A model folder with weights; the model that was written, in evaluation mode."""
    model, _ = new_model(MINIS[name], tokenizer, folder, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_weights(model, folder)
    return model.eval()


@torch.no_grad()
def _outputs(model, tokenizer):
    side = preprocessing(model)[0]
    img = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = [model.encode_image(img), model.encode_text(tokenizer(["red apple", "old tram, at night"]))]
    return [*found, model.logit_scale]


@pytest.mark.parametrize("name", ["mini-mct-2", "mini-mci-base", "mini-captioner"])
def test_a_folder_gives_its_model_back(name, tokenizer, tmp_path):
    model = _folder(name, tokenizer, tmp_path)
    torch.manual_seed(5)
    loaded = load_model(tmp_path)
    for first, second in zip(_outputs(loaded, loaded.tokenizer), _outputs(model, loaded.tokenizer), strict=True):
        assert torch.equal(first, second)
    assert not any(module.training for module in loaded.modules())
    image = Image.linear_gradient("L").resize((50, 40))
    assert torch.equal(loaded.preprocess(image), model.preprocess(image))
    assert torch.equal(loaded.tokenizer(["rose"]), load_tokenizer(tmp_path)(["rose"]))


@pytest.mark.parametrize("name", ["mini-student", "mini-captioner", "mini-vit-base"])
def test_open_clip_reads_a_folder_as_we_do(name, tokenizer, tmp_path):
    _folder(name, tokenizer, tmp_path)
    ours, (theirs, preprocess) = load_model(tmp_path), open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    for first, second in zip(_outputs(ours, ours.tokenizer), _outputs(theirs.eval(), tokenize), strict=True):
        assert torch.equal(first, second)
    image = Image.linear_gradient("L").resize((50, 40)).rotate(30)
    assert torch.equal(ours.preprocess(image), preprocess(image))


def test_open_clip_does_not_take_a_hybrid_encoder_for_another(tokenizer, tmp_path):
    _folder("mini-mct-2", tokenizer, tmp_path)
    with pytest.raises(TypeError, match="mct"):
        open_clip.create_model(f"local-dir:{tmp_path}")


TRAIN = """
import sys
from pathlib import Path
from clipdr.zoo.tokenizer import train_tokenizer
texts = ["red apple", "green apple", "old tram", "apple-tree, old", "two crabs", "my own dog", "an owl at night"]
train_tokenizer(sorted(texts, key=len, reverse=sys.argv[2] == "1"), 80, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_tokenizer_depends_on_the_texts_alone(tmp_path):
    """Not on their order, nor on the process: hash tables differ from one to the next."""
    found = set()
    for order in "01":
        (tmp_path / order).mkdir()
        subprocess.run([sys.executable, "-c", TRAIN, tmp_path / order, order], check=True, cwd=SRC)
        found.add((tmp_path / order / "tokenizer.json").read_bytes())
    assert len(found) == 1
