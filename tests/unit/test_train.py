"""The training loop against formulas and open_clip; runs that were killed against runs that were not."""

import json
import math
import shutil

import numpy as np
import open_clip
import pytest
import torch
import yaml

from clipdr.errors import UserError
from clipdr.models.folder import load_tokenizer, new_model
from clipdr.models.load import load_model
from clipdr.train import loop, run
from clipdr.train.loop import build_optimizer, epoch_batch, fit, learning_rate
from clipdr.train.run import student_loss, train
from clipdr.data.views import TokenTable, load_views
from clipdr.zoo.tokenizer import train_tokenizer
from clipdr.zoo.train import _captioner_loss, train_member

FILES = {
    *("settings.yaml", "log.jsonl", "checkpoint.pt", "model/open_clip_config.json"),
    *("model/open_clip_pytorch_model.bin", "model/tokenizer.json"),
    *("model/tokenizer_config.json", "model/special_tokens_map.json"),
}


@pytest.fixture()
def settings(model_config):
    """A run of eight steps whose batches cross the borders of epochs: four pairs of six."""
    training = {"steps": 8, "batch_size": 4, "lr": 0.01, "min_lr": 0.0, "warmup": 2, "weight_decay": 0.1}
    training |= {"betas": [0.9, 0.95], "grad_clip": 1.0}
    settings = {"model": "tiny", "model_config": model_config, "captions": ["real", "syn"], "lambda": 0.7, "seed": 0}
    return settings | {"teachers": ["small", "large"], "training": training}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_config, views_dir, tokenizer):
    """A finished run of `settings`."""
    output = tmp_path_factory.mktemp("runs") / "run"
    train(settings.__wrapped__(model_config), views_dir, tokenizer, output)
    return output


def _bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


def _same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("size, batch_size", [(6, 4), (10, 3), (5, 5), (3, 8), (7, 20)])
def test_epochs_are_permutations_and_batches_cross_their_borders(size, batch_size):
    steps = 3 * size  # whole epochs
    stream = np.concatenate([epoch_batch(size, batch_size, 0, step) for step in range(steps)])
    assert all(len(epoch_batch(size, batch_size, 0, step)) == batch_size for step in range(3))
    epochs = stream.reshape(-1, size)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(size), (len(epochs), 1)))
    assert len({tuple(epoch) for epoch in epochs}) > 1  # each in its own order


def test_batches_depend_on_seed_and_step_only():
    first = [epoch_batch(50, 8, 0, step) for step in range(10)]
    again = [epoch_batch(50, 8, 0, step) for step in reversed(range(10))][::-1]
    np.testing.assert_array_equal(first, again)
    assert (np.array(first) != np.array([epoch_batch(50, 8, 1, step) for step in range(10)])).any()


def test_learning_rate_is_the_formula():
    settings = {"steps": 100, "lr": 0.5, "min_lr": 0.1, "warmup": 10}
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(0.05) and rates[9] == rates[10] == pytest.approx(0.5)
    assert rates[55] == pytest.approx(0.3)  # half way down the cosine
    assert rates[100] == pytest.approx(0.1)
    for step in range(10, 101):
        expected = 0.1 + 0.4 * math.cos((step - 10) / 90 * math.pi / 2) ** 2  # (1 + cos 2x) / 2 = cos² x
        assert rates[step] == pytest.approx(expected)
    assert learning_rate(0, settings | {"warmup": 0}) == 0.5
    assert learning_rate(99, settings | {"warmup": 100}) == 0.5


def test_learning_rate_equals_open_clips():
    """open_clip's training loop, apart from `min_lr`: its schedule ends at 0."""
    scheduler = pytest.importorskip("open_clip_train.scheduler")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = scheduler.cosine_lr(optimizer, 0.5, 10, 100)
    for step in range(100):
        theirs(step)
        ours = learning_rate(step, {"steps": 100, "lr": 0.5, "min_lr": 0.0, "warmup": 10})
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"])


def test_weight_decay_spares_what_open_clip_spares(model_config, tokenizer, tmp_path):
    model, _ = new_model(model_config, tokenizer, tmp_path, 0)
    optimizer = build_optimizer(model, {"weight_decay": 0.2, "lr": 0.5, "betas": [0.8, 0.9]})
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decay) == sum(len(group["params"]) for group in optimizer.param_groups) == len([*model.parameters()])
    for name, p in model.named_parameters():
        spared = p.ndim < 2 or any(word in name for word in ("bn", "ln", "bias", "logit_scale"))  # open_clip's rule
        assert decay[id(p)] == (0.0 if spared else 0.2), name
    assert all((g["lr"], g["betas"]) == (0.5, (0.8, 0.9)) for g in optimizer.param_groups)


def test_train_writes_the_contract(finished, settings):
    files = _bytes(finished)
    assert files.keys() == FILES
    assert yaml.safe_load(files["settings.yaml"]) == settings
    records = [json.loads(line) for line in files["log.jsonl"].splitlines()]
    assert [record["step"] for record in records] == list(range(1, 9))
    assert records[0].keys() == {"step", "loss", "lr", "logit_scale", "grad_norm"}
    assert [record["lr"] for record in records] == pytest.approx(
        [learning_rate(step, settings["training"]) for step in range(8)], abs=1e-6
    )
    checkpoint = torch.load(finished / "checkpoint.pt", weights_only=True)
    assert checkpoint.keys() == {"model", "step"} and checkpoint["step"] == 8
    assert _same(checkpoint["model"], torch.load(finished / "model/open_clip_pytorch_model.bin", weights_only=True))


def test_same_settings_give_the_same_bytes(finished, settings, views_dir, tokenizer, tmp_path):
    torch.manual_seed(123)  # what was drawn before must not matter
    train(settings, views_dir, tokenizer, tmp_path / "run")
    assert _bytes(tmp_path / "run") == _bytes(finished)


@pytest.mark.parametrize(
    "change", [{"lambda": 0.2}, {"seed": 1}, {"captions": ["real"]}, {"teachers": ["small"]}], ids=str
)
def test_other_settings_give_other_weights(change, finished, settings, views_dir, tokenizer, tmp_path):
    train({**settings, **change}, views_dir, tokenizer, tmp_path / "run")
    assert not _same(_weights(tmp_path / "run"), _weights(finished))


def _kill_at(monkeypatch, call: int):
    """Ctrl-C at the given call of the loss; returns the list of calls."""
    calls, loss = [], run.reinforced_loss

    def killed(*args):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(run, "reinforced_loss", killed)
    return calls


@pytest.mark.parametrize("step", [2, 5, 8])
def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(
    step, finished, settings, views_dir, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    calls = _kill_at(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        train(settings, views_dir, tokenizer, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == [".run.partial"]
    torch.manual_seed(99)
    train(settings, views_dir, tokenizer, tmp_path / "run")
    assert len(calls) == 9  # eight steps, and the one that was killed
    assert _bytes(tmp_path / "run") == _bytes(finished)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_save_that_was_cut_leaves_nothing(finished, settings, views_dir, tokenizer, tmp_path, monkeypatch):
    _kill_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(settings, views_dir, tokenizer, tmp_path / "run")
    monkeypatch.undo()
    (tmp_path / ".run.partial" / "resume.pt.partial").write_bytes(b"half a checkpoint")
    train(settings, views_dir, tokenizer, tmp_path / "run")
    assert _bytes(tmp_path / "run") == _bytes(finished)


@pytest.mark.parametrize(
    "what", ["settings", "tokenizer", "texts.json", "images.npy", "small.image.npy", "large.text.npy"]
)
def test_a_killed_run_starts_again_when_its_inputs_changed(
    what, finished, settings, views_dir, tokenizer, tmp_path, monkeypatch
):
    views, before, words = shutil.copytree(views_dir, tmp_path / "views"), settings, tokenizer
    if what == "settings":
        before = {**settings, "lambda": 0.1}
    elif what == "tokenizer":
        words = tmp_path / "tokenizer"
        words.mkdir()
        train_tokenizer(["other words"], 300, words)
    elif what == "texts.json":
        texts = json.loads((views / what).read_text())
        (views / what).write_text(json.dumps([["rose", *row[1:]] for row in texts]))
    else:
        np.save(views / what, np.load(views / what)[::-1])
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    _kill_at(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        train(before, views, words, tmp_path / "run")
    monkeypatch.undo()
    train(settings, views_dir, tokenizer, tmp_path / "run")
    assert _bytes(tmp_path / "run") == _bytes(finished)


def test_a_loss_that_is_not_finite_leaves_nothing(settings, views_dir, tokenizer, tmp_path, monkeypatch):
    loss = run.reinforced_loss
    monkeypatch.setattr(run, "reinforced_loss", lambda *args: loss(*args) * math.inf)
    with pytest.raises(UserError, match="run: the loss is inf at step 0.*lower"):
        train(settings, views_dir, tokenizer, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_the_logit_scale_stays_below_100(model_config, tokenizer, tmp_path):
    model, _ = new_model(model_config, tokenizer, tmp_path, 0)
    settings = {"steps": 12, "lr": 1.0, "min_lr": 1.0, "warmup": 0, "weight_decay": 0, "betas": [0.9, 0.9]}
    fit(model, lambda step: -model.logit_scale, settings | {"grad_clip": 1.0, "seed": 0}, "test", tmp_path)
    assert model.logit_scale.exp().item() == pytest.approx(100, rel=1e-5)


def test_open_clip_loads_a_run_by_its_folder(finished, views_dir):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{finished / 'model'}")
    ours = load_model(finished / "model")
    assert _same(model.state_dict(), _weights(finished)) and _same(ours.state_dict(), _weights(finished))
    tokens = open_clip.get_tokenizer(f"local-dir:{finished / 'model'}")(["a red apple"])
    assert torch.equal(tokens, load_tokenizer(finished / "model")(["a red apple"]))
    img = torch.from_numpy(np.load(views_dir / "images.npy")[0]).float() / 255
    with torch.no_grad():
        assert torch.equal(model.eval().encode_image(img), ours.encode_image(img))
        assert torch.equal(model.encode_text(tokens), ours.encode_text(tokens))


@pytest.mark.parametrize("missing", ["open_clip_config.json", "open_clip_pytorch_model.bin"])
def test_a_model_without_its_files_is_not_loaded_with_random_weights(finished, tmp_path, missing):
    folder = shutil.copytree(finished / "model", tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing"):
        load_model(folder)


def test_a_run_without_teachers_does_not_need_them(settings, views_dir, tokenizer, tmp_path):
    """λ = 0 with teachers named, with none named, and with none on disk: the same weights."""
    bare = shutil.copytree(views_dir, tmp_path / "bare")
    for path in bare.glob("*.*.npy"):
        path.unlink()
    (bare / "teachers.json").write_text("{}")
    plain = {**settings, "lambda": 0.0}
    train(plain, views_dir, tokenizer, tmp_path / "named")
    train({**plain, "teachers": []}, views_dir, tokenizer, tmp_path / "none")
    train({**plain, "teachers": []}, bare, tokenizer, tmp_path / "off")
    assert _same(_weights(tmp_path / "named"), _weights(tmp_path / "none"))
    assert _bytes(tmp_path / "none") == _bytes(tmp_path / "off")


def test_what_the_views_lack(settings, views_dir, tokenizer, tmp_path):
    with pytest.raises(UserError, match="no embeddings of teacher 'huge'"):
        train({**settings, "teachers": ["huge"]}, views_dir, tokenizer, tmp_path / "run")
    real = shutil.copytree(views_dir, tmp_path / "real")
    texts = json.loads((real / "texts.json").read_text())
    (real / "texts.json").write_text(json.dumps([row[:1] for row in texts]))
    with pytest.raises(UserError, match="no synthetic captions"):
        train(settings, real, tokenizer, tmp_path / "run")
    assert not (tmp_path / "run").exists() and not (tmp_path / ".run.partial").exists()


def test_a_step_reads_matching_views_captions_and_embeddings(settings, views_dir, tokenizer, tmp_path, monkeypatch):
    """Every tensor that reaches the loss belongs to the same image, view and caption, found again by its content."""
    model, tokenize = new_model(settings["model_config"], tokenizer, tmp_path, 0)
    views = load_views(views_dir, ["small", "large"])
    images, texts, seen = [], [], []
    encode_image, encode_text = model.encode_image, model.encode_text
    monkeypatch.setattr(model, "encode_image", lambda x, normalize: (images.append(x), encode_image(x, normalize))[1])
    monkeypatch.setattr(model, "encode_text", lambda x, normalize: (texts.append(x), encode_text(x, normalize))[1])
    monkeypatch.setattr(run, "reinforced_loss", lambda *args: seen.append(args))
    loss_at = student_loss(model, views, TokenTable(tokenize, views.texts), settings)
    for step in range(3):
        loss_at(step)
    columns = set()
    for img, tokens, (img_BD, texts_BD, _, lam, teachers) in zip(images, texts, seen, strict=True):
        assert lam == 0.7 and len(texts_BD) == len(teachers) == 2 and img_BD.shape == texts_BD[0].shape == (4, 16)
        for b in range(4):
            pixels = (img[b] * 255).round().numpy()
            [(row, view)] = np.argwhere((views.img_NACSS == pixels).all(axis=(2, 3, 4)))
            for batch in range(2):
                options = tokenize(views.texts[row])
                column = next(t for t in range(3) if torch.equal(options[t], tokens[batch * 4 + b]))
                assert (column == 0) == (batch == 0)  # the real batch comes first
                columns.add(column)
                for name, (t_img, t_txt, scale) in zip(views.teachers, teachers[batch], strict=True):
                    np.testing.assert_array_equal(t_img[b], views.teachers[name][0][row, view])
                    np.testing.assert_array_equal(t_txt[b], views.teachers[name][1][row, column])
                    assert scale == views.teachers[name][2]
    assert columns == {0, 1, 2}


def test_the_captioners_loss_equals_open_clips(captioner_config, tokenizer, tmp_path):
    model, tokenize = new_model(captioner_config, tokenizer, tmp_path, 0)
    img = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    tokens = tokenize(["red apple", "owl", "an old tram, at night"])
    out = model.eval()(img, tokens)
    theirs = open_clip.loss.CoCaLoss(caption_loss_weight=1.0, clip_loss_weight=1.0, pad_id=0)
    expected = sum(theirs(*(out[k] for k in ("image_features", "text_features", "logits", "labels", "logit_scale"))))
    torch.testing.assert_close(_captioner_loss(model, img, tokens), expected)


def test_a_killed_member_of_the_zoo_goes_on_where_it_was(model_config, pool, tokenizer, tmp_path, monkeypatch):
    augmentation = {"views": 2, "crop_scale": [0.5, 1.0], "num_ops": 1, "magnitude": 4, "seed": 0}
    settings = {"steps": 5, "batch_size": 4, "lr": 0.01, "min_lr": 0.0, "warmup": 1, "weight_decay": 0.1, "seed": 0}
    settings |= {"betas": [0.9, 0.95], "grad_clip": 1.0, "augmentation": augmentation}
    train_member(settings, model_config, pool[0], tokenizer, tmp_path / "whole")
    (tmp_path / "whole").rename(tmp_path / "finished")
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    save = loop._save

    def killed(folder, model, optimizer, step, records):
        save(folder, model, optimizer, step, records)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        train_member(settings, model_config, pool[0], tokenizer, tmp_path / "whole")
    train_member(settings, model_config, pool[0], tokenizer, tmp_path / "whole")
    assert _bytes(tmp_path / "whole") == _bytes(tmp_path / "finished")
    assert "resume.pt" not in _bytes(tmp_path / "whole")
    load_model(tmp_path / "whole")
