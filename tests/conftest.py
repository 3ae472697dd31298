"""Tiny stand-ins that many tests share: tokenizer, model configurations, teachers, a pool of six images, its views."""

import io
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: sums depend on the split
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pandas as pd
import pytest
from PIL import Image

WORDS = ["red apple", "green pear", "old tram", "owl at night", "two crabs", "a violin, wood", "rose", "big cat"]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory):
    """Folder of a tokenizer of 300 entries."""
    from clipdr.zoo.tokenizer import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(WORDS, 300, folder)
    return folder


def _config(embed_dim: int, side: int, mean: float, std: float) -> dict:
    return {
        "model_cfg": {
            "embed_dim": embed_dim,
            "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": side},
            "text_cfg": {
                "context_length": 12,
                "vocab_size": 300,
                "width": 32,
                "heads": 2,
                "layers": 1,
                "hf_tokenizer_name": "beside-this-file",
                "pool_type": "eos",
                "eos_id": 2,
                "pad_id": 0,
            },
            "custom_text": True,
        },
        "preprocess_cfg": {"mean": [mean] * 3, "std": [std] * 3, "interpolation": "bilinear"},
    }


@pytest.fixture(scope="session")
def model_config():
    """A student's configuration: 32 px, 16-wide embeddings."""
    return _config(16, 32, 0.0, 1.0)


@pytest.fixture(scope="session")
def captioner_config():
    """A CoCa's configuration."""
    from copy import deepcopy

    config = deepcopy(_config(16, 32, 0.0, 1.0))
    model = config["model_cfg"]
    model["vision_cfg"] |= {
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 4,
        "output_tokens": True,
    }
    model["text_cfg"] |= {"embed_cls": True, "output_tokens": True}
    model["multimodal_cfg"] = {"context_length": 12, "vocab_size": 300, "width": 16, "heads": 2, "layers": 1}
    model["text_cfg"]["width"] = 16
    return config


@pytest.fixture(scope="session")
def teachers(tmp_path_factory, tokenizer):
    """Two random teachers that differ in width, input size, normalisation and temperature."""
    import torch
    from small import new_model

    from clipdr.models.folder import save_weights

    folders = []
    for seed, (name, config) in enumerate(
        {"small": _config(24, 32, 0.5, 0.25), "large": _config(16, 48, 0, 1)}.items()
    ):
        folder = tmp_path_factory.mktemp("zoo") / name
        model, _ = new_model(config, tokenizer, folder, seed)
        with torch.no_grad():
            model.logit_scale.fill_(3.0 + seed)
        save_weights(model, folder)
        folders.append(folder)
    return folders


@pytest.fixture(scope="session")
def captioner(tmp_path_factory, captioner_config, tokenizer):
    """A random captioner."""
    from small import new_model

    from clipdr.models.folder import save_weights

    folder = tmp_path_factory.mktemp("zoo") / "captioner"
    model, _ = new_model(captioner_config, tokenizer, folder, 0)
    save_weights(model, folder)
    return folder


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """An exported miniature: a convolutional image tower, a hybrid text tower that pools at the end of the text."""
    from clipdr.deploy.export import export

    folder = tmp_path_factory.mktemp("export") / "mini-mct-2"
    export("mini-mct-2", folder)
    return folder


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """(folder, index) of six random images of odd sizes in two shards."""
    from clipdr.data.shards import shard_name, write_shard
    from clipdr.files import sha256

    folder, random = tmp_path_factory.mktemp("pool"), np.random.default_rng(0)
    samples, rows = [], []
    for i in range(6):
        width, height = (int(x) for x in random.integers(33, 80, 2))
        pixels = random.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(stream, "webp", lossless=True)
        uid, image = sha256(str(i).encode())[:32], stream.getvalue()
        row = {"uid": uid, "shard": shard_name(i // 3), "caption": WORDS[i], "texts": WORDS[i : i + 2]}
        row |= {"sha256": sha256(image), "label": WORDS[i].split()[-1]}
        details = json.dumps({key: row[key] for key in ("uid", "sha256", "label", "texts")}).encode()
        samples.append({"__key__": uid, "webp": image, "txt": row["caption"].encode(), "json": details})
        rows.append(row)
    write_shard(folder / "00000.tar", samples[:3])
    write_shard(folder / "00001.tar", samples[3:])
    index = pd.DataFrame(rows)
    index.to_parquet(folder / "index.parquet", index=False)
    return folder, index


@pytest.fixture(scope="session")
def captions(tmp_path_factory, pool):
    """Folder with two synthetic captions per image."""
    folder = tmp_path_factory.mktemp("captions") / "all"
    folder.mkdir()
    rows = [{"uid": uid, "syn": [WORDS[-1 - i], f"{WORDS[i]} drawn"]} for i, uid in enumerate(pool[1]["uid"])]
    for number in range(2):
        pd.DataFrame(rows[3 * number : 3 * number + 3]).to_parquet(folder / f"0000{number}.parquet", index=False)
    (folder / "manifest.json").write_text("{}")
    return folder


@pytest.fixture(scope="session")
def augmentation():
    """Settings of stored views: three of 32 px."""
    return {"views": 3, "image_size": 32, "crop_scale": [0.3, 1.0], "num_ops": 2, "magnitude": 9, "seed": 0}


@pytest.fixture(scope="session")
def reinforced(tmp_path_factory, pool, captions, teachers, augmentation):
    """Folder of the reinforced pool."""
    from clipdr.reinforce.embed import reinforce

    folder = tmp_path_factory.mktemp("reinforced") / "all"
    settings = {"augmentation": augmentation, "teachers": [path.name for path in teachers]}
    reinforce(*pool, captions, teachers, settings, folder)
    return folder


@pytest.fixture(scope="session")
def views_dir(tmp_path_factory, reinforced):
    """Folder of the reinforced pool's materialised views."""
    from clipdr.data.views import materialise

    folder = tmp_path_factory.mktemp("views") / "all"
    materialise(reinforced, 32, folder)
    return folder


@pytest.fixture(scope="session")
def rows_dir(tmp_path_factory, reinforced):
    """Folder of the reinforced pool in the form that a stream reads."""
    from clipdr.data.rows import convert

    folder = tmp_path_factory.mktemp("rows") / "all"
    convert(reinforced, folder)
    return folder
