"""Faults that were once tried on the chain: each is one line that names the file and the fix.

Faults of data and of runs are in test_stream.py and test_train.py.
"""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from clipdr import cli
from clipdr.data.views import load_views
from clipdr.errors import UserError
from clipdr.files import atomic_dir, atomic_file, finished, resumable_dir
from clipdr.models.folder import load_tokenizer
from clipdr.models.load import load_model

REPO = Path(__file__).parents[2]


def raising(error: Exception):
    def work(*args, **kwargs):
        raise error

    return work


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
    ],
)
def test_a_file_that_finds_no_room_is_one_line_and_leaves_nothing(error, tmp_path):
    says = r"x.json cannot be written \(.*\); make room.*same command again"
    with pytest.raises(UserError, match=says), atomic_file(tmp_path / "x.json") as path:
        path.write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_other_errors_of_a_block_are_not_taken_for_it(tmp_path):
    with pytest.raises(RuntimeError, match="something else"), atomic_file(tmp_path / "x"):
        raise RuntimeError("something else")


def test_a_command_without_room_ends_in_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        cli.run(raising(OSError(errno.EROFS, "Read-only file system", "results/runs/x")))
    assert str(end.value).startswith("error: results/runs/x cannot be written (Read-only file system); make room")
    with pytest.raises(FileNotFoundError):
        cli.run(raising(FileNotFoundError(errno.ENOENT, "No such file", "x")))


def test_work_survives_whatever_ends_it(tmp_path):
    for error in (OSError(errno.ENOSPC, "full"), RuntimeError("x"), UserError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), resumable_dir(tmp_path / "run", "token") as folder:
            (folder / type(error).__name__).touch()
            raise error
    with resumable_dir(tmp_path / "run", "token"):
        pass
    assert len([path for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")]) == 4
    assert finished(tmp_path / "run", "token") and not finished(tmp_path / "run", "other")


def test_a_folder_that_only_snakemake_marked_is_empty(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/.snakemake_timestamp").touch()
    with atomic_dir(tmp_path / "shards") as folder:
        (folder / "00000.tar").touch()
    assert (tmp_path / "shards/00000.tar").exists()


@pytest.mark.slow
def test_settings_by_hand_that_lack_a_key(tmp_path):
    (tmp_path / "settings.json").write_text(json.dumps({"training": {"steps": 1}}))
    settings = cli.settings(str(tmp_path / "settings.json"))
    with pytest.raises(UserError, match="the key 'batch_size' is missing"):
        settings["training"]["batch_size"]
    command = [sys.executable, "-m", "clipdr.train", "--settings", str(tmp_path / "settings.json")]
    command += ["--data", str(tmp_path), "--output", str(tmp_path / "model")]
    done = subprocess.run(command, cwd=REPO, env={"PYTHONPATH": str(REPO / "src")}, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().startswith("error: --settings: the key 'device' is missing")


@pytest.fixture()
def model(teachers, tmp_path):
    """A model folder to damage."""
    return shutil.copytree(teachers[0], tmp_path / "model")


def test_one_byte_flipped_in_weights(model):
    path = model / "open_clip_pytorch_model.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)  # torch sees nothing
    with pytest.raises(UserError, match="open_clip_pytorch_model.bin is damaged .*train or copy the model again"):
        load_model(model)


@pytest.mark.parametrize("text", [None, "{", '{"version": "1.0"}'])
def test_a_tokenizer_that_is_missing_or_broken(text, model):
    (model / "tokenizer.json").unlink()
    if text:
        (model / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match="its tokenizer cannot be read .*copy its files again"):
        load_tokenizer(model)


def test_a_tokenizer_that_brings_code(model):
    config = json.loads((model / "tokenizer_config.json").read_text())
    (model / "tokenizer_config.json").write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["x.Y", None]}}))
    with pytest.raises(UserError, match="auto_map names code that would be run"):
        load_model(model)


def test_a_configuration_without_an_image_tower(model):
    config = json.loads((model / "open_clip_config.json").read_text())
    del config["model_cfg"]["vision_cfg"]
    (model / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="no configuration of a model .*vision_cfg"):
        load_model(model)


@pytest.mark.parametrize("name", ["images.npy", "small.text.npy", "views.json", "texts.json"])
def test_views_that_are_cut_or_pickled(name, views_dir, tmp_path):
    views = shutil.copytree(views_dir, tmp_path / "views")
    if name.endswith("npy"):
        np.save(views / name, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    else:
        (views / name).write_bytes((views / name).read_bytes()[:40])
    with pytest.raises(UserError, match="read .*delete.*and materialise again"):
        load_views(views, ["small"])
