"""The evaluator on tiny models and tasks: what it encodes, what it refuses or skips, and how it goes on."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from clones import copy_of_the_repository
from PIL import Image
from small import new_model

from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError
from clipdr.evaluate import suite
from clipdr.evaluate.encoder import Encoder
from clipdr.evaluate.kinds import choice, similarity, winogavil
from clipdr.evaluate.records import read_records
from clipdr.evaluate.suite import evaluate_suite, part_of
from clipdr.models.folder import save_weights
from clipdr.models.load import load_model
from clipdr.pool.layout import write_classification, write_task

CLASSES = ["red apple", "owl", "old tram", "violin", "rose", "crab"]
VAL = {"key": "t/val", "title": "Val", "kind": "classification", "main_metric": "acc1"}
PAIRS = {"key": "t/pairs", "title": "Pairs", "kind": "retrieval", "main_metric": "mean_recall@1"}


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 36), Image.BILINEAR).save(stream, "webp", lossless=True)
    return stream.getvalue()


@pytest.fixture()
def tasks(tmp_path):
    folder = tmp_path / "tasks"
    samples = [{"webp": picture(n), "cls": str(n % 6).encode()} for n in range(20)]
    write_classification(folder / "wds_t-val", samples, CLASSES, ["a {c}", "{c}"])
    pairs = [{"webp": picture(n), "txt": f"owl {n}\npink rose {n}".encode()} for n in range(9)]
    write_task(folder / "wds_t-pairs", pairs, "retrieval")
    return folder


def scored(model, tasks, output, *entries, **options):
    return evaluate_suite([model], tasks, {"tasks": list(entries), "batch_size": 4}, output, **options)


def images(number: int) -> list[tuple[bytes, str]]:
    return [(picture(n), f"image {n}") for n in range(number)]


def test_embeddings_are_those_of_the_model(teachers):
    """Folding, channels-last and shorter texts change no more than the last bits."""
    model, texts = load_model(teachers[0]), ["owl", "red apple, old tram and a violin", "a crab", ""]
    encoder = Encoder([teachers[0]], 2)
    img_ND, kept_N = encoder.images(images(5))
    pixels = torch.stack([model.preprocess(Image.open(io.BytesIO(data)).convert("RGB")) for data, _ in images(5)])
    with torch.inference_mode():
        np.testing.assert_allclose(img_ND, model.encode_image(pixels, normalize=True), atol=1e-6)
        expected = model.encode_text(model.tokenizer(texts), normalize=True)
    np.testing.assert_allclose(encoder.texts(texts), expected, atol=1e-6)
    assert kept_N.all() and np.array_equal(encoder.texts(texts[::-1]), encoder.texts(texts)[::-1])


def test_decoding_ahead_changes_nothing(teachers):
    """Images that come twice, in one batch and in the next, too."""
    some = [*images(5), *images(3), (b"no image", "bad"), *images(7)]
    one, two = (Encoder([teachers[0]], 2, threads=threads) for threads in (1, 2))
    for alone, ahead in zip(one.images(some, skip=True), two.images(some, skip=True), strict=True):
        np.testing.assert_array_equal(alone, ahead)
    assert (one.skipped, two.skipped) == (1, 1)


def test_devices_share_the_images(teachers):
    alone, both = Encoder([teachers[0]], 2), Encoder([teachers[0]], 2, devices=["cpu", "cpu"])
    assert np.array_equal(alone.images(images(9))[0], both.images(images(9))[0])
    assert np.array_equal(alone.texts(CLASSES), both.texts(CLASSES))


def test_a_precision_is_stated(teachers):
    whole, half = (Encoder([teachers[0]], 4, precision=name).images(images(6))[0] for name in ("float32", "bfloat16"))
    assert 0 < np.abs(whole - half).max() < 0.05 and np.allclose(np.linalg.norm(half, axis=1), 1, atol=1e-3)


def test_an_evaluation_that_was_killed_goes_on(teachers, tasks, tmp_path, monkeypatch):
    whole = scored(teachers[0], tasks, tmp_path / "whole", VAL, PAIRS)
    save, encode, images_seen = suite.save, Encoder.images, []

    def once(outcomes, path):
        if path.name == "t-pairs.npz" and not images_seen:
            raise KeyboardInterrupt
        save(outcomes, path)

    monkeypatch.setattr(suite, "save", once)
    with pytest.raises(KeyboardInterrupt):
        scored(teachers[0], tasks, tmp_path / "scores", VAL, PAIRS)
    assert not (tmp_path / "scores").exists()
    monkeypatch.setattr(suite, "save", save)

    def counted(self, images, skip=False):
        found, kept = encode(self, images, skip)
        images_seen.append(len(kept))
        return found, kept

    monkeypatch.setattr(Encoder, "images", counted)
    assert scored(teachers[0], tasks, tmp_path / "scores", VAL, PAIRS) == whole and images_seen == [9]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "scores" / path.name).read_bytes()


KIND = '''"""How many images lie on one side of a plane."""

import numpy as np

from clipdr.evaluate.tasks import open_images, read_images

METRICS = ["beside"]
ENTRY = {"properties": {"axis": {"description": "Number of the coordinate", "type": "integer"}}}


def open_task(folder, entry):
    return open_images(folder, entry, "classification"), entry["axis"]


def score(task, encoder):
    images, axis = task
    img_ND, _ = encoder.images((data, where) for _, data, where in read_images(images))
    return {"beside": img_ND[:, axis] > 0}


def units(outcomes):
    return len(outcomes["beside"])


def metrics(outcomes, weights_N):
    return {"beside": float(np.average(outcomes["beside"], weights=weights_N))}


def chance(outcomes):
    return {"beside": 0.5}


def facts(outcomes):
    return {"num_images": len(outcomes["beside"])}
'''


def test_adding_a_kind_is_adding_one_file(teachers, tasks, tmp_path):
    """A module more, and a suite may name it, is checked by it, and scored."""
    clone, entry = copy_of_the_repository(tmp_path / "clone"), {**VAL, "kind": "plane", "main_metric": "beside"}
    (clone / "src/clipdr/evaluate/kinds/plane.py").write_text(KIND)

    def suite_says(axis: int | str) -> str:
        (clone / "config/suites/planes.yaml").write_text(json.dumps({"tasks": [{**entry, "axis": axis}]}))
        (tmp_path / "settings.json").write_text(json.dumps({"tasks": [{**entry, "axis": axis}], "batch_size": 4}))
        load = f"from clipdr import config; config.load_suite({str(clone)!r}, 'planes')"
        result = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True, text=True)
        return result.stderr

    environment = {**os.environ, "PYTHONPATH": str(clone / "src")}
    assert "tasks[0]: axis is the text 'one'; it must be a whole number" in suite_says("one")
    assert suite_says(1) == ""
    told = ["--settings", tmp_path / "settings.json", "--tasks", tasks, "--output", tmp_path / "scores"]
    command = [sys.executable, "-m", "clipdr.evaluate", "suite", "--model", teachers[0], *told]
    subprocess.run(command, env=environment, check=True)
    img_ND, _ = Encoder([teachers[0]], 4).images(images(20))
    assert read_records(tmp_path / "scores/records.jsonl")["t/val"]["metrics"]["beside"] == (img_ND[:, 1] > 0).mean()


NEAR = {
    **{"key": "t/near", "images_of": "t/pairs", "title": "Near", "kind": "similarity", "main_metric": "image_cosine"},
    "teacher": "one",
}


def test_similarity_is_the_cosine_to_a_teacher(teachers, tasks, tmp_path, tokenizer):
    """A model is as near to itself as can be, and to another one as the two say of each image and caption."""
    other, _ = new_model(json.loads((teachers[0] / "open_clip_config.json").read_text()), tokenizer, tmp_path / "m", 9)
    save_weights(other, tmp_path / "m")
    told = {"tasks": [PAIRS, NEAR], "batch_size": 4, "teachers": ["one"]}
    _, same = evaluate_suite([teachers[0]], tasks, told, tmp_path / "same", teachers=[teachers[0]])
    assert same["metrics"] == pytest.approx(dict.fromkeys([*similarity.METRICS, "main_metric"], 1.0), abs=1e-5)
    assert read_records(tmp_path / "same/records.jsonl")["t/near"] == same, "no cosine is above 1"
    _, found = evaluate_suite([tmp_path / "m"], tasks, told, tmp_path / "scores", teachers=[teachers[0]])
    ours, theirs = Encoder([tmp_path / "m"], 4), Encoder([teachers[0]], 4)
    image = np.mean([ours.images(images(9))[0][n] @ theirs.images(images(9))[0][n] for n in range(9)])
    texts = [f"{what} {n}" for n in range(9) for what in ("owl", "pink rose")]
    text = np.mean([a @ b for a, b in zip(ours.texts(texts), theirs.texts(texts), strict=True)])
    expected = {"image_cosine": image, "text_cosine": text, "cosine": (image + text) / 2, "main_metric": image}
    assert found["metrics"] == pytest.approx(expected, abs=1e-6) and found["num_texts"] == 18
    assert read_records(tmp_path / "scores/records.jsonl")["t/near"] == found


def test_teachers_that_cannot_be_compared_with(teachers, tasks, tmp_path):
    told = {"tasks": [NEAR], "batch_size": 4, "teachers": ["one"]}
    with pytest.raises(UserError, match="have width 24, those of teacher 'one' 16, so that they have no cosine"):
        evaluate_suite([teachers[0]], tasks, told, tmp_path / "scores", teachers=[teachers[1]])
    with pytest.raises(UserError, match="tasks compare with one, but --teachers names 0 folders"):
        evaluate_suite([teachers[0]], tasks, told, tmp_path / "scores")


def test_jobs_share_the_tasks(teachers, tasks, tmp_path):
    told = {"tasks": [VAL, PAIRS, {**VAL, "key": "t/again"}], "batch_size": 4}
    keys = [[task["key"] for task in part_of(told, f"{k}-of-2")["tasks"]] for k in (0, 1)]
    assert keys == [["t/val", "t/again"], ["t/pairs"]] and part_of(told, "0-of-1") == told
    with pytest.raises(UserError, match="part 3-of-4 of 3 tasks has none; lower `evaluation.jobs`"):
        part_of(told, "3-of-4")


def spoiled(tasks, change) -> None:
    path = tasks / "wds_t-val/test/0.tar"
    write_shard(path, change(list(read_shard(path))))


def test_bad_images_stop_or_are_skipped_and_counted(teachers, tasks, tmp_path):
    """A skipped image takes its label with it: the others keep theirs."""
    spoiled(tasks, lambda samples: [samples[0], {**samples[1], "webp": b"no image"}, *samples[2:]])
    with pytest.raises(UserError, match="0.tar: sample s0000001 cannot be decoded"):
        scored(teachers[0], tasks, tmp_path / "a", VAL)
    (skipped,) = scored(teachers[0], tasks, tmp_path / "b", {**VAL, "bad_images": "skip"})
    assert (skipped["num_images"], skipped["num_skipped"]) == (19, 1)
    spoiled(tasks, lambda samples: [samples[0], *samples[2:]])
    (tasks / "wds_t-val/test/size.txt").write_text("19")
    (without,) = scored(teachers[0], tasks, tmp_path / "c", VAL)
    assert without["metrics"] == skipped["metrics"] and "num_skipped" not in without


def test_images_that_are_no_rgb_are_converted(teachers, tasks, tmp_path):
    def with_alpha(samples):
        stream = io.BytesIO()
        Image.open(io.BytesIO(samples[0]["webp"])).convert("RGBA").save(stream, "png")
        return [{"__key__": samples[0]["__key__"], "png": stream.getvalue(), "cls": samples[0]["cls"]}, *samples[1:]]

    (before,) = scored(teachers[0], tasks, tmp_path / "a", VAL)
    spoiled(tasks, with_alpha)
    assert scored(teachers[0], tasks, tmp_path / "b", VAL) == [before]


@pytest.mark.parametrize(
    "change, entry, says",
    [
        (lambda s: s[:12], {}, "the shards hold 12 samples, not 20"),
        (lambda s: [*s, {**s[0], "__key__": "one-more"}], {}, "the shards hold 21 samples, not 20"),
        (lambda s: s, {"size": 32}, "size.txt: 20, but the suite says that t/val has 32 images; correct one"),
        (lambda s: [{**s[0], "cls": b"6"}, *s[1:]], {}, "has label '6', out of range: classnames.txt has 6 lines"),
        (lambda s: [{**s[0], "cls": b"\xff"}, *s[1:]], {}, ".cls is not UTF-8"),
    ],
)
def test_a_task_that_is_not_what_it_says_is_no_score(teachers, tasks, tmp_path, change, entry, says):
    spoiled(tasks, change)
    with pytest.raises(UserError, match=says):
        scored(teachers[0], tasks, tmp_path / "scores", VAL | entry)
    assert not (tmp_path / "scores").exists()


def test_a_shard_that_nshards_does_not_count_is_noticed(teachers, tasks, tmp_path):
    (tasks / "wds_t-val/test/1.tar").write_bytes((tasks / "wds_t-val/test/0.tar").read_bytes())
    with pytest.raises(UserError, match="1.tar: one shard more than nshards.txt says"):
        scored(teachers[0], tasks, tmp_path / "scores", VAL)


@pytest.mark.parametrize("text", ["", "owl\n\nrose", "  "])
def test_captions_that_are_none_are_refused(teachers, tasks, tmp_path, text):
    write_shard(tasks / "wds_t-pairs/test/0.tar", [{"__key__": "s0", "webp": picture(0), "txt": text.encode()}])
    (tasks / "wds_t-pairs/test/size.txt").write_text("1")
    with pytest.raises(UserError, match="sample s0 has an empty .txt or a blank line"):
        scored(teachers[0], tasks, tmp_path / "scores", PAIRS)


class Words:
    """An encoder by hand: an image is the number in its bytes, a text the number that it ends with, as unit vectors."""

    def images(self, images, skip=False):
        rows = [self._unit(int(data)) for data, _ in images]
        return np.stack(rows), np.ones(len(rows), bool)

    def texts(self, texts):
        return np.stack([self._unit(int(text.split()[-1])) for text in texts])

    def _unit(self, degrees: int) -> np.ndarray:
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])


def shard(folder, samples) -> None:
    (folder / "test").mkdir(parents=True)
    write_shard(folder / "test/0.tar", samples)
    (folder / "test/nshards.txt").write_text("1")


def cases(*options, group=None) -> dict:
    return {"options": [f"at {degrees}" for degrees in options], "group": group}


def with_cases(folder, *of_image):
    """Images at 0, 90, … degrees with their cases."""
    samples = [
        {"__key__": f"s{n}", "webp": str(90 * n).encode(), "cases.json": json.dumps(own).encode()}
        for n, own in enumerate(of_image)
    ]
    shard(folder, samples)
    (folder / "dataset_type.txt").write_text("choice")


@pytest.mark.parametrize(
    "ties, macro, accuracy", [("wrong", (0.5 + 0 + 1) / 3, 4 / 7), ("right", (0.5 + 1 + 1) / 3, 5 / 7)]
)
def test_choices_are_scored_by_group(tmp_path, ties, macro, accuracy):
    """Group a is right once and wrong once; b is a tie; c is left out, d too rare; two cases are in no group."""
    first = [cases(10, 40, group="a"), cases(40, 10, group="a"), cases(20, 20, group="b"), cases(9, 80, group="c")]
    with_cases(tmp_path / "t", first, [cases(100, 0, group="d"), cases(0, 91, 92), cases(85, 0, 1)])
    entry = {"key": "t", "kind": "choice", "ties": ties, "leave_out": ["c"], "min_cases": 1}
    outcomes = choice.score(choice.open_task(tmp_path / "t", entry), Words())
    found = choice.metrics(outcomes, np.ones(2))
    assert (found["macro_accuracy"], found["accuracy"]) == (pytest.approx(macro), pytest.approx(accuracy))
    rare = choice.score(choice.open_task(tmp_path / "t", entry | {"min_cases": 2}), Words())
    assert choice.metrics(rare, np.ones(2))["macro_accuracy"] == 0.5  # of group a alone
    assert choice.facts(outcomes) == {"num_images": 2, "num_cases": 7, "num_groups": 3}


@pytest.mark.parametrize(
    "text", [b"[]", b'[{"options": ["at 1"], "group": null}]', b'[{"options": ["a", ""], "group": 1}]']
)
def test_cases_that_are_none_are_refused(tmp_path, text):
    shard(tmp_path / "t", [{"__key__": "s0", "webp": b"0", "cases.json": text}])
    (tmp_path / "t/dataset_type.txt").write_text("choice")
    task = choice.open_task(tmp_path / "t", {"key": "t", "kind": "choice", "ties": "wrong"})
    with pytest.raises(UserError, match="sample s0: .cases.json cannot be read"):
        choice.score(task, Words())


def gavil(folder, instances):
    shard(folder, [{"__key__": str(n), "webp": str(10 * n).encode()} for n in range(12)])
    (folder / "dataset_type.txt").write_text("winogavil")
    (folder / "instances.json").write_text(json.dumps(instances))
    return winogavil.open_task(folder, {"key": "t", "kind": "winogavil"})


def test_winogavil_takes_as_many_images_as_are_right(tmp_path):
    """The cue at 0 degrees is nearest to images 0 and 1: of 0 and 5 one is right, of three there are."""
    ten = [str(n) for n in range(10)]
    instances = [
        {"cue": "emerald 0", "candidates": ten, "associations": ["0", "5"]},
        {"cue": "cat 110", "candidates": ["0", "1", "2", "10", "11"], "associations": ["10", "11"]},
    ]
    outcomes = winogavil.score(gavil(tmp_path / "t", instances), Words())
    found = winogavil.metrics(outcomes, np.ones(2))
    assert found["jaccard_score_10-12"] == pytest.approx(1 / 3) and found["jaccard_score_5"] == 1.0
    assert winogavil.facts(outcomes) == {"num_images": 12, "num_instances": 2}


@pytest.mark.parametrize(
    "change, says",
    [
        ({"associations": ["99"]}, "not among its candidates"),
        ({"associations": []}, "are none"),
        ({"cue": None}, "cue"),
    ],
)
def test_winogavil_instances_that_are_none_are_refused(tmp_path, change, says):
    instance = {"cue": "cat 0", "candidates": ["0", "1", "2"], "associations": ["1"]} | change
    if change == {"cue": None}:
        del instance["cue"]
    with pytest.raises(UserError, match=f"instances.json cannot be read .*{says}"):
        gavil(tmp_path / "t", [instance])


def test_an_image_that_an_instance_names_must_be_there(tmp_path):
    task = gavil(tmp_path / "t", [{"cue": "cat 0", "candidates": ["0", "77"], "associations": ["0"]}])
    with pytest.raises(UserError, match="image '77' is missing"):
        winogavil.score(task, Words())
