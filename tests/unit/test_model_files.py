"""What a file of config/models may say, and the configuration that comes of it."""

import shutil
from pathlib import Path

import pytest
import yaml
from refusals import refused

from clipdr.model_files import load_models

REPO = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    """A repository with schemas, and a folder for models."""
    shutil.copytree(REPO / "workflow/schemas", tmp_path / "workflow/schemas")
    (tmp_path / "config/models").mkdir(parents=True)
    return tmp_path


def models_file(**changes):
    """A file with one model; a key that is None is left out."""
    data = {
        "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"},
        "text_cfg": {"context_length": 77, "width": 512},
        "image": {"ViT": {"layers": 3}, "MCi": {"timm_model_name": "fastvit_mci0"}},
        "text": {"Base": {"heads": 8}, "Narrow": {"heads": 4, "width": 256}},
        "models": {"Pair": {"image": "ViT", "text": "Base", "embed_dim": 16}},
    }
    return {key: value for key, value in (data | changes).items() if value is not None}


def write(root, name="a.yaml", **changes):
    (root / "config/models" / name).write_text(yaml.safe_dump(models_file(**changes)))


def test_a_model_is_its_two_towers(root):
    pairs = {"One": {"image": "ViT", "text": "Base", "embed_dim": 16}}
    pairs["Two"] = {"image": "MCi", "text": "Narrow", "embed_dim": 32, "multimodal_cfg": {"layers": 2}}
    write(root, models=pairs)
    write(root, "b.yaml", models={"Three": pairs["One"]}, text_cfg=None)
    models = load_models(root)
    assert list(models) == ["One", "Two", "Three"]
    assert models["One"] == {
        "model_cfg": {
            "embed_dim": 16,
            "vision_cfg": {"layers": 3},
            "text_cfg": {"context_length": 77, "width": 512, "heads": 8},
            "custom_text": True,
        },
        "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"},
    }
    two = models["Two"]["model_cfg"]
    assert two["text_cfg"] == {"context_length": 77, "width": 256, "heads": 4}  # a tower's own keys win
    assert (two["vision_cfg"], two["multimodal_cfg"]) == ({"timm_model_name": "fastvit_mci0"}, {"layers": 2})
    assert models["Three"]["model_cfg"]["text_cfg"] == {"heads": 8}


def test_no_models(root):
    assert load_models(root) == {}


def test_a_name_in_two_files(root):
    write(root)
    write(root, "b.yaml")
    message = refused(load_models, root)
    assert "config/models/b.yaml: models: 'Pair' stands in another file" in message and "rename" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "ViTs"}, "models.Pair.image: 'ViTs' is not in image; did you mean 'ViT'? (known: MCi, ViT)"),
        ({"text": "base-"}, "models.Pair.text: 'base-' is not in text; did you mean 'Base'? (known: Base, Narrow)"),
        ({"text": "ViT"}, "models.Pair.text: 'ViT' is not in text"),
        ({"embed_dim": 0}, "models.Pair.embed_dim"),
        ({"embed_dim": 512.0}, "models.Pair.embed_dim"),
        ({"embed_dims": 16}, "models.Pair"),
        ({"multimodal_cfg": 3}, "models.Pair.multimodal_cfg"),
    ],
)
def test_a_model_that_is_wrong(root, change, message):
    write(root, models={"Pair": models_file()["models"]["Pair"] | change})
    assert f"config/models/a.yaml: {message}" in refused(load_models, root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modles": {}}, "modles"),
        ({"models": None}, "models"),
        ({"image": None}, "image"),
        ({"text": None}, "text"),
        ({"preprocess_cfg": None}, "preprocess_cfg"),
        ({"preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}, "preprocess_cfg.interpolation"),
        ({"preprocess_cfg": models_file()["preprocess_cfg"] | {"std": [1, 1, 0]}}, "preprocess_cfg.std[2]"),
        ({"preprocess_cfg": models_file()["preprocess_cfg"] | {"mean": [0, 0]}}, "preprocess_cfg.mean"),
        ({"preprocess_cfg": models_file()["preprocess_cfg"] | {"interpolation": "nearest"}}, "interpolation"),
        ({"image": {"ViT": 3}}, "image.ViT"),
    ],
)
def test_a_file_that_is_wrong(root, changes, message):
    write(root, **changes)
    found = refused(load_models, root)
    assert found.startswith("config/models/a.yaml: ") and message in found


def test_a_file_that_is_no_yaml(root):
    (root / "config/models/a.yaml").write_text("image: {ViT: [}")
    assert "config/models/a.yaml line 1" in refused(load_models, root)
