"""Teachers and captioner that are asked at every step: what they say is what the dataset would have stored."""

import json
import shutil

import pytest
import torch
from small import new_model

from clipdr.data.views import ViewBatches, load_views
from clipdr.errors import UserError
from clipdr.models.folder import load_tokenizer, save_weights
from clipdr.schema import defaults
from clipdr.train.online import Online
from clipdr.train.parallel import World
from clipdr.train.run import train
from clipdr.train.timing import measure
from clipdr.zoo.tokenizer import train_tokenizer

CAPTIONS = {"number": 2, "top_p": 0.9, "temperature": 1.0, "max_tokens": 11, "seed": 0}
ALONE = World(0, 1, torch.device("cpu"))
NAMES = ["small", "large"]


@pytest.fixture(scope="module")
def tokenize(teachers):
    return load_tokenizer(teachers[0]).cut


def source(views_dir, tokenize, teachers=(), kinds=("real", "syn")):
    return ViewBatches(load_views(views_dir, list(teachers)), tokenize, list(kinds), 4, 0)


def online(inner, tokenize, teachers=(), captioner=None, seed=0):
    asked = {"teachers": NAMES[: len(teachers)]} | ({"captions": CAPTIONS} if captioner else {})
    return Online(inner, tokenize, asked, teachers, captioner, seed, ALONE)


def test_teachers_say_what_is_stored(views_dir, tokenize, teachers):
    """Stored in bfloat16, of the same views and captions; `large` sees them resized."""
    stored = source(views_dir, tokenize, NAMES).batches(3)
    asked = online(source(views_dir, tokenize), tokenize, teachers).batches(3)
    for _ in range(3):  # across the border of an epoch
        theirs, ours = next(stored), next(asked)
        assert ours.uids == theirs.uids and list(ours.teachers) == NAMES
        for name in NAMES:
            assert ours.teachers[name].scale == theirs.teachers[name].scale
            for mine, other in (
                (ours.teachers[name].images, theirs.teachers[name].images),
                (ours.teachers[name].texts, theirs.teachers[name].texts),
            ):
                assert list(mine) == list(other)
                for key in mine:
                    torch.testing.assert_close(mine[key], other[key].float(), atol=4e-3, rtol=0)


def test_captions_depend_on_seed_and_step_alone(views_dir, tokenize, captioner):
    def first(seed, step):
        torch.manual_seed(123)  # what was drawn before must not matter
        return next(
            online(source(views_dir, tokenize, kinds=["real"]), tokenize, captioner=captioner, seed=seed).batches(step)
        )

    once, again = first(0, 2), first(0, 2)
    assert list(once.texts) == ["real", "syn"] and once.texts["syn"].shape == once.texts["real"].shape
    assert torch.equal(once.texts["syn"], again.texts["syn"])
    assert not torch.equal(once.texts["syn"], first(1, 2).texts["syn"])
    steps = online(source(views_dir, tokenize, kinds=["real"]), tokenize, captioner=captioner).batches(0)
    assert torch.equal([next(steps) for _ in range(3)][2].texts["syn"], once.texts["syn"])


def test_a_teacher_with_another_tokenizer_is_refused(views_dir, tokenize, teachers, model_config, tmp_path):
    train_tokenizer(["other words", "elsewhere"], 280, tmp_path / "words")
    model, _ = new_model(model_config, tmp_path / "words", tmp_path / "teacher", 0)
    save_weights(model, tmp_path / "teacher")
    with pytest.raises(UserError, match="teacher 'small' splits texts into other tokens"):
        online(source(views_dir, tokenize), tokenize, [tmp_path / "teacher"])


def test_models_that_are_asked_must_be_given(views_dir, tokenize, teachers, captioner):
    with pytest.raises(UserError, match="asks teachers small, large and no captioner, but --teachers names 1 folders"):
        Online(source(views_dir, tokenize), tokenize, {"teachers": NAMES}, teachers[:1], None, 0, ALONE)
    with pytest.raises(UserError, match="asks teachers none and a captioner, but .* --captioner none; give what"):
        Online(source(views_dir, tokenize), tokenize, {"captions": CAPTIONS}, [], None, 0, ALONE)


@pytest.fixture()
def settings(model_config):
    """A run of three steps that asks for everything."""
    recipe = {"steps": 3, "batch_size": 4, "lr": 0.01, "min_lr": 0.0, "warmup": 1, "weight_decay": 0.1}
    recipe |= {"betas": [0.9, 0.95], "grad_clip": 1.0}
    return {
        "model": {"name": "tiny", "config": model_config},
        "data": {"dataset": "all", "augmentation": "strong", "captions": ["real", "syn"]},
        "objective": {"name": "reinforced", "lambda": 0.7, "teachers": NAMES, "fidelity": "paper"},
        "online": {"captions": CAPTIONS, "teachers": NAMES},
        "training": defaults("training") | recipe,
        "seed": 0,
    }


def losses(folder):
    """Per step, the parts of the loss."""
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name.startswith(("real/", "syn/"))} for record in records]


def test_a_run_that_asks_teachers_sees_the_losses_of_one_that_stored_them(
    settings, views_dir, tokenizer, teachers, tmp_path
):
    stored = {key: value for key, value in settings.items() if key != "online"}
    asked = {**settings, "online": {"teachers": NAMES}}
    train(stored, views_dir, tokenizer=tokenizer, output=tmp_path / "stored")
    train(asked, views_dir, tokenizer=tokenizer, output=tmp_path / "asked", teachers=teachers)
    theirs, ours = losses(tmp_path / "stored"), losses(tmp_path / "asked")
    assert len(ours) == 3 and ours[0].keys() == {
        f"{kind}/{part}" for kind in ("real", "syn") for part in ("clip", *NAMES)
    }
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        assert mine == pytest.approx(
            other, abs=0.005 * 3**step
        )  # each step is taken from what rounding made of the last


def test_a_run_needs_no_stored_captions_where_it_asks_for_them(
    settings, views_dir, tokenizer, teachers, captioner, tmp_path
):
    bare = shutil.copytree(views_dir, tmp_path / "bare")
    texts = json.loads((bare / "texts.json").read_text())
    (bare / "texts.json").write_text(json.dumps([row[:1] for row in texts]))
    for path in bare.glob("*.text.npy"):
        path.unlink()
    train(settings, bare, tokenizer=tokenizer, output=tmp_path / "model", teachers=teachers, captioner=captioner)
    assert {f"{kind}/{name}" for kind in ("real", "syn") for name in NAMES} < losses(tmp_path / "model")[-1].keys()


def test_costs_are_those_of_every_round_and_run(settings, views_dir, tokenizer, teachers, captioner, tmp_path):
    stored = {key: value for key, value in settings.items() if key != "online"}
    runs = [{"row": "stored", "settings": stored}, {"row": "online", "settings": settings}]
    told = {"steps": 2, "rounds": 3, "runs": runs}
    models = {"tokenizer": tokenizer, "teachers": teachers, "captioner": captioner}
    measure(told, [views_dir, views_dir], tmp_path / "costs.json", **models)
    found = json.loads((tmp_path / "costs.json").read_text())
    assert found["steps"] == 2 and found["threads"] == 1
    for run, row in zip(found["runs"], ("stored", "online"), strict=True):
        assert run["row"] == row and run["batch_size"] == 4
        assert len(run["seconds"]) == len(run["waited"]) == 3
        assert all(0 < waited < seconds for waited, seconds in zip(run["waited"], run["seconds"], strict=True))
    stored, asked = found["runs"]
    assert sum(asked["waited"]) > sum(stored["waited"])
    with pytest.raises(UserError, match="names 1 folders for 2 runs"):
        measure(told, [views_dir], tmp_path / "costs.json", **models)
