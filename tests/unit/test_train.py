"""Runs as a whole: what they write, what they read, and runs that were killed against runs that were not."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from small import in_processes, new_model, run_settings

import clipdr.losses.clip_kd
import clipdr.losses.reinforced  # noqa: F401
from clipdr import losses
from clipdr.data.views import load_views, materialise, save_views
from clipdr.errors import UserError
from clipdr.models.folder import load_tokenizer
from clipdr.models.load import load_model
from clipdr.reinforce.embed import reinforce
from clipdr.schema import defaults
from clipdr.train import loop
from clipdr.train.log import read_log
from clipdr.train.run import train
from clipdr.train.watch import OF_THE_MACHINE
from clipdr.zoo.tokenizer import train_tokenizer
from clipdr.zoo.train import Captioner, train_member

WEIGHTS = "open_clip_pytorch_model.bin"
FILES = {"log.jsonl", ".token", "open_clip_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"}
FILES |= {"special_tokens_map.json"}


@pytest.fixture()
def settings(model_config):
    return run_settings(model_config)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model_config, views_dir, tokenizer):
    """A finished run of `settings`."""
    output = tmp_path_factory.mktemp("runs") / "model"
    train(run_settings(model_config), views_dir, tokenizer=tokenizer, output=output)
    return output


def weights(folder: Path) -> dict:
    return torch.load(folder / WEIGHTS, weights_only=True)


def same(first: Path, second: Path) -> bool:
    """Whether two runs ended alike: weights to the bit, and what they logged but for this machine's pace."""
    a, b = weights(first), weights(second)
    logs = [
        [{k: v for k, v in record.items() if k not in OF_THE_MACHINE} for record in read_log(folder / "log.jsonl")]
        for folder in (first, second)
    ]
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) and logs[0] == logs[1]


def killed_at(monkeypatch, call: int, module=losses.reinforced) -> list:
    """Ctrl-C at the given call of the objective; the list of calls."""
    calls, forward = [], module.Objective.forward

    def interrupted(self, embeddings):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return forward(self, embeddings)

    monkeypatch.setattr(module.Objective, "forward", interrupted)
    return calls


def test_a_run_writes_a_model_folder_and_its_log(finished, settings):
    assert {path.name for path in finished.iterdir()} == FILES
    records = read_log(finished / "log.jsonl")
    assert [record["step"] for record in records] == list(range(1, 9))
    assert [record["samples"] for record in records] == list(range(4, 33, 4))
    parts = {f"{kind}/{part}" for kind in ("real", "syn") for part in ("clip", "small", "large")}
    agreements = {f"agreement/{kind}/{teacher}" for kind in ("real", "syn") for teacher in ("small", "large")}
    named = {"step", "samples", "loss", "lr", "logit_scale", "grad_norm", *OF_THE_MACHINE}
    assert records[0].keys() == parts | agreements | named
    for record in records:
        assert record["loss"] == pytest.approx(sum(record[part] for part in parts), abs=1e-5)
        assert all(0 <= record[name] <= 1 for name in agreements)
    assert records[0]["lr"] == pytest.approx(0.005) and records[7]["lr"] < 0.001


def test_same_settings_give_the_same_weights(finished, settings, views_dir, tokenizer, tmp_path):
    torch.manual_seed(123)  # what was drawn before must not matter
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert same(tmp_path / "model", finished)


@pytest.mark.parametrize(
    "part, key, value",
    [
        ("objective", "lambda", 0.2),
        ("objective", "teachers", ["small"]),
        ("objective", "fidelity", "released_code"),
        ("data", "captions", ["real"]),
        ("data", "captions", ["real-or-syn"]),
    ],
)
def test_other_settings_give_other_weights(part, key, value, finished, settings, views_dir, tokenizer, tmp_path):
    train({**settings, part: {**settings[part], key: value}}, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert not same(tmp_path / "model", finished)


@pytest.mark.parametrize("step", [2, 8])
def test_a_run_that_was_interrupted_ends_like_one_that_was_not(
    step, finished, settings, views_dir, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    calls = killed_at(monkeypatch, step)
    with pytest.raises(KeyboardInterrupt):
        train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".model.lock", ".model.partial"]
    torch.manual_seed(99)
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert len(calls) == 9  # eight steps, and the one that was interrupted
    assert same(tmp_path / "model", finished)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_objectives_layers_are_resumed_with_the_run_and_are_no_part_of_the_model(
    settings, views_dir, tokenizer, tmp_path, monkeypatch
):
    """CLIP-KD with all of its parts; patches that are left out are drawn again as they were."""
    parts = {"clip": 1.0, "crd": 1.0, "fd": 20.0, "mfd": 20.0, "gd": 1.0, "icl": 1.0, "afd": 1.0}
    settings["objective"] = {"name": "clip-kd", "teachers": ["small", "large"], **parts}
    settings["objective"] |= {"mask_ratio": 0.5, "projection": True, "fidelity": "paper"}
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "whole")
    killed_at(monkeypatch, 4, losses.clip_kd)
    torch.manual_seed(99)
    with pytest.raises(KeyboardInterrupt):
        train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    kept = torch.load(tmp_path / ".model.partial/resume.pt", weights_only=True)
    assert any("fusions" in name for name in kept["objective"])
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert same(tmp_path / "model", tmp_path / "whole")
    plain = {**settings, "objective": {"name": "clip"}}
    train(plain, views_dir, tokenizer=tokenizer, output=tmp_path / "plain")
    assert weights(tmp_path / "whole").keys() == weights(tmp_path / "plain").keys()


def train_and_die(settings: dict, data: Path, tokenizer: Path, output: Path, step: int) -> None:
    """Train, saving after each step; the first process kills itself in the given step after its start, 0 for never."""
    calls, forward = [], losses.reinforced.Objective.forward

    def killed(self, embeddings):
        calls.append(1)
        if len(calls) == step and os.environ.get("RANK", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        return forward(self, embeddings)

    losses.reinforced.Objective.forward = killed
    loop.SAVE_EVERY_SECONDS = -1
    train(settings, data, output, tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["memory", "stream"])
@pytest.mark.parametrize("processes", [1, 2])
def test_kill_9_then_the_same_command_again(source, processes, settings, views_dir, rows_dir, tokenizer, tmp_path):
    """Killed in the third step, again in the second after that, then let go on: as if nothing had happened."""
    settings["training"] |= {"source": source, "processes": processes, "shuffle_buffer": 2, "ema": 0.5}
    data = {"memory": views_dir, "stream": rows_dir}[source]

    def run(folder: Path, step: int) -> list[int]:
        return in_processes(processes, train_and_die, settings, data, tokenizer, folder, step)

    assert run(tmp_path / "killed", 3)[0] == run(tmp_path / "killed", 2)[0] == -signal.SIGKILL
    assert run(tmp_path / "killed", 0) == run(tmp_path / "whole", 0) == [0] * processes
    assert same(tmp_path / "killed", tmp_path / "whole")


def test_a_checkpoint_that_was_cut_leaves_nothing(finished, settings, views_dir, tokenizer, tmp_path, monkeypatch):
    killed_at(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    monkeypatch.undo()
    (tmp_path / ".model.partial" / ".resume.pt.partial").write_bytes(b"half a checkpoint")
    with (tmp_path / ".model.partial/log.jsonl").open("a") as log:
        log.write('{"step": 3, "lo')
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert same(tmp_path / "model", finished)
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES


@pytest.mark.parametrize("what", ["settings", "tokenizer", "views"])
def test_a_killed_run_starts_again_when_its_inputs_changed(
    what, finished, settings, views_dir, tokenizer, tmp_path, monkeypatch
):
    views, before, words = views_dir, settings, tokenizer
    if what == "settings":
        before = {**settings, "objective": {**settings["objective"], "lambda": 0.1}}
    elif what == "tokenizer":
        words = tmp_path / "tokenizer"
        words.mkdir()
        train_tokenizer(["other words"], 300, words)
    else:
        other, views = load_views(views_dir, ["small", "large"]), tmp_path / "views"
        other.texts[0][0] = "rose"
        views.mkdir()
        save_views(other, views)
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    killed_at(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        train(before, views, tokenizer=words, output=tmp_path / "model")
    monkeypatch.undo()
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert same(tmp_path / "model", finished)


def test_a_full_disk_keeps_the_last_checkpoint(finished, settings, views_dir, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    saves, write = [], torch.save

    def full(content, path):
        saves.append(path)
        if len(saves) == 4:
            Path(path).write_bytes(b"as much as there was room for")
            raise OSError(28, "No space left on device")
        write(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="resume.pt cannot be written.*No space left.*same command again"):
        train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    monkeypatch.undo()
    calls = killed_at(monkeypatch, 0)
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert len(calls) == 5  # of eight steps, three were saved
    assert same(tmp_path / "model", finished)


def test_a_second_process_leaves_the_first_ones_work_alone(settings, views_dir, tokenizer, tmp_path, monkeypatch):
    """Other settings, the same folder, while the first is at work: refused, and the first ends as if alone."""
    forward, refused = losses.reinforced.Objective.forward, []

    def meanwhile(self, embeddings):
        if not refused:
            refused.append(1)
            with pytest.raises(UserError, match=f"is being made by process {os.getpid()}; wait"):
                train({**settings, "seed": 1}, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
        return forward(self, embeddings)

    monkeypatch.setattr(losses.reinforced.Objective, "forward", meanwhile)
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert refused and (tmp_path / "model" / WEIGHTS).is_file()


def test_what_an_orphan_has_finished_is_kept(finished, settings, views_dir, tokenizer, tmp_path, monkeypatch):
    run = shutil.copytree(finished, tmp_path / "model")
    calls = killed_at(monkeypatch, 1)
    train(settings, views_dir, tokenizer=tokenizer, output=run)
    assert not calls and same(run, finished)
    with pytest.raises(UserError, match="is not empty"):
        train({**settings, "seed": 1}, views_dir, tokenizer=tokenizer, output=run)


def test_a_loss_that_is_no_number_names_step_images_and_last_checkpoint(
    settings, views_dir, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "SAVE_EVERY_SECONDS", -1)
    forward, calls = losses.reinforced.Objective.forward, []

    def broken(self, embeddings):
        calls.append(1)
        parts = forward(self, embeddings)
        return parts | {"real/clip": parts["real/clip"] * (float("inf") if len(calls) == 3 else 1)}

    monkeypatch.setattr(losses.reinforced.Objective, "forward", broken)
    with pytest.raises(
        UserError, match="at step 2 real/clip is not finite.*lower `lr`.*resume.pt. Images of the batch"
    ):
        train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert torch.load(tmp_path / ".model.partial/resume.pt", weights_only=True)["step"] == 2
    monkeypatch.undo()
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")  # it goes on


def test_stored_embeddings_that_are_no_numbers_are_blamed(settings, views_dir, tokenizer, tmp_path):
    views = shutil.copytree(views_dir, tmp_path / "views")
    emb = np.load(views / "large.text.npy")
    emb[:] = np.nan
    np.save(views / "large.text.npy", emb)
    with pytest.raises(UserError, match="at step 0 .*large.*stored embeddings of teacher 'large' are not finite"):
        train(settings, views, tokenizer=tokenizer, output=tmp_path / "model")


def test_a_ladder_keeps_weights_on_the_way(settings, views_dir, tokenizer, tmp_path):
    settings["training"]["ladder"] = 3
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model/ladder").iterdir()) == [
        "0000002.pt", "0000004.pt", "0000006.pt"
    ]  # fmt: skip
    early = torch.load(tmp_path / "model/ladder/0000002.pt", weights_only=True)
    assert early.keys() == weights(tmp_path / "model").keys()
    assert not torch.equal(early["visual.proj"], weights(tmp_path / "model")["visual.proj"])


def test_a_run_starts_from_another_ones_weights(finished, settings, views_dir, tokenizer, tmp_path, model_config):
    settings["training"] |= {"steps": 1, "lr": 1e-12, "warmup": 0}
    train(settings, views_dir, tokenizer=tokenizer, output=tmp_path / "model", init=finished)
    start, end = weights(finished), weights(tmp_path / "model")
    assert all(torch.allclose(start[name], end[name], atol=1e-9) for name in start)
    wider = json.loads(json.dumps(model_config))
    wider["model_cfg"]["embed_dim"] = 8
    other = {**settings, "model": {"name": "wider", "config": wider}}
    with pytest.raises(UserError, match="is another model than the one to train"):
        train(other, views_dir, tokenizer=tokenizer, output=tmp_path / "other", init=finished)


def test_open_clip_loads_a_run_by_its_folder(finished, views_dir):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{finished}")
    ours, expected = load_model(finished), weights(finished)
    for state in (model.state_dict(), ours.state_dict()):
        assert all(torch.equal(state[name], expected[name]) for name in expected)
    tokens = open_clip.get_tokenizer(f"local-dir:{finished}")(["a red apple"])
    assert torch.equal(tokens, load_tokenizer(finished)(["a red apple"]))
    img = torch.from_numpy(np.load(views_dir / "images.npy")[0]).float() / 255
    with torch.no_grad():
        assert torch.equal(model.eval().encode_image(img), ours.encode_image(img))


@pytest.mark.parametrize("missing", ["open_clip_config.json", WEIGHTS])
def test_a_model_without_its_files_is_not_loaded_with_random_weights(finished, tmp_path, missing):
    folder = shutil.copytree(finished, tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=f"{missing} is missing"):
        load_model(folder)


def test_a_run_without_teachers_does_not_need_them(settings, views_dir, tokenizer, tmp_path):
    bare = shutil.copytree(views_dir, tmp_path / "bare")
    for path in bare.glob("*.*.npy"):
        path.unlink()
    plain = {**settings, "objective": {"name": "reinforced", "lambda": 0.0, "fidelity": "paper"}}
    train(plain, bare, tokenizer=tokenizer, output=tmp_path / "model")
    train(plain, views_dir, tokenizer=tokenizer, output=tmp_path / "stored")
    assert same(tmp_path / "model", tmp_path / "stored")
    train({**plain, "objective": {"name": "clip"}}, bare, tokenizer=tokenizer, output=tmp_path / "clip")
    assert same(tmp_path / "model", tmp_path / "clip")  # λ = 0 is CLIP's loss


def test_a_dataset_without_embeddings_serves_runs_without_teachers(
    settings, pool, captions, augmentation, views_dir, tokenizer, tmp_path
):
    plain = {**settings, "objective": {"name": "clip"}}
    for stored, kinds in ((captions, ["real", "syn"]), (None, ["real"])):
        folder = tmp_path / "+".join(kinds)
        reinforce(*pool, stored, [], {"augmentation": augmentation, "teachers": []}, folder / "shards")
        materialise(folder / "shards", 32, folder / "views")
        told = {**plain, "data": {**plain["data"], "captions": kinds}}
        for name, views in (("with", views_dir), ("without", folder / "views")):
            train(told, views, tokenizer=tokenizer, output=folder / name)
        assert same(folder / "with", folder / "without")
    with pytest.raises(UserError, match="has no embeddings of teacher 'small'; it has none"):
        train(settings, tmp_path / "real/views", tokenizer=tokenizer, output=tmp_path / "model")
    with pytest.raises(UserError, match="images without synthetic captions"):
        train(plain, tmp_path / "real/views", tokenizer=tokenizer, output=tmp_path / "model")


def bare_captions(views: Path) -> None:
    texts = json.loads((views / "texts.json").read_text())
    (views / "texts.json").write_text(json.dumps([row[:1] for row in texts]))


@pytest.mark.parametrize(
    "spoil, change, says",
    [
        (None, {"objective": {"teachers": ["huge"]}}, "no embeddings of teacher 'huge'; it has large, small"),
        (bare_captions, {}, "images without synthetic captions"),
        (bare_captions, {"data": {"captions": ["real-or-syn"]}}, "images without synthetic captions"),
        (None, {"training": {"batch_size": 8}}, "6 images, fewer than a batch of 8; lower `training.batch_size`"),
        (None, {"training": {"processes": 2}}, "training.processes is 2, but 1 were started; call `torchrun"),
        (None, {"training": {"source": "stream"}}, "manifest.json is missing; `training.source` is 'stream'"),
        (None, {"training": {"device": "cuda"}}, "device cuda was asked for, which this machine does not have"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    spoil, change, says, settings, views_dir, tokenizer, tmp_path
):
    views = shutil.copytree(views_dir, tmp_path / "views")
    if spoil:
        spoil(views)
    changed = {**settings, **{part: {**settings[part], **keys} for part, keys in change.items()}}
    with pytest.raises(UserError, match=says):
        train(changed, views, tokenizer=tokenizer, output=tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_captioners_loss_equals_open_clips(captioner_config, tokenizer, tmp_path):
    model, tokenize = new_model(captioner_config, tokenizer, tmp_path, 0)
    img = torch.randint(256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    tokens = tokenize(["red apple", "owl", "an old tram, at night"])
    student = Captioner(model.eval(), defaults("training"))
    images, texts, scale, parts = student({"image": img}, {"any": tokens})
    out = model(img / 255, tokens)
    clip, caption = open_clip.loss.CoCaLoss(caption_loss_weight=1.0, clip_loss_weight=1.0, pad_id=model.pad_id)(
        out["image_features"], out["text_features"], out["logits"], out["labels"], out["logit_scale"]
    )
    assert parts["caption"].item() == pytest.approx(caption.item(), rel=1e-6)
    assert torch.allclose(images["image"], out["image_features"]) and torch.allclose(texts["any"], out["text_features"])
    assert scale.item() == pytest.approx(out["logit_scale"].item())


def test_a_member_of_the_zoo_is_a_model_folder_too(captioner_config, pool, tokenizer, tmp_path):
    training = defaults("training") | {"steps": 2, "batch_size": 4, "lr": 0.01, "min_lr": 0.0, "warmup": 0}
    settings = training | {"weight_decay": 0.1, "betas": [0.9, 0.95], "grad_clip": 1.0, "seed": 0}
    settings |= {"augmentation": {"views": 2, "crop_scale": [0.9, 1.0], "num_ops": 0, "magnitude": 0, "seed": 0}}
    train_member(settings | {"config": captioner_config}, pool[0], tokenizer, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == FILES
    assert {"any/clip", "caption"} < read_log(tmp_path / "model/log.jsonl")[0].keys()
    assert load_model(tmp_path / "model").logit_scale.item() > 0
