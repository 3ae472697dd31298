"""Our records against clip_benchmark's library functions, on the same folders and the same random model.

Also what the evaluator says when a folder is broken: clip_benchmark gives tracebacks, or numbers.
"""

import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipdr.data.shards import read_shard, write_shard
from clipdr.errors import UserError
from clipdr.evaluate.suite import evaluate_suite

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"},
}
CLASSES = ["cat", "owl", "red apple", "violin", "tram", "rose", "crab"]
TEMPLATES = ["a photo of a {c}.", "{c}", "a drawing of a {c}, on white."]
GROUPS = {"key": "tiny/groups", "title": "Groups", "kind": "grouped", "main_metric": "acc_wg", "group": 1}
LABELS = {"key": "tiny/labels", "title": "Labels", "kind": "multilabel", "main_metric": "mean_average_precision"}
CLASSIFY = {"key": "tiny/val", "title": "Tiny", "kind": "classification", "main_metric": "acc1"}
FEW = {"key": "tiny/few", "title": "Few", "kind": "classification", "main_metric": "mean_per_class_recall"}
RETRIEVE = {"key": "tiny/retrieval", "title": "Pairs", "kind": "retrieval", "main_metric": "mean_recall@1"}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return _model(tmp_path_factory.mktemp("model"), CONFIG, 0)


def _model(folder, config, seed):
    import open_clip

    torch.manual_seed(seed)
    model = open_clip.CLIP(**json.loads(json.dumps(config["model_cfg"])))
    with torch.no_grad():  # fresh weights give all images one embedding; larger ones spread them over the classes
        for weight in model.visual.parameters():
            weight.mul_(8)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    random = np.random.default_rng(0)
    _write(folder / "wds_tiny-val", [("cls", str(random.integers(0, 7))) for _ in range(53)], CLASSES, extension="png")
    _write(folder / "wds_tiny-few", [("cls", str(random.integers(0, 3))) for _ in range(20)], CLASSES[:4])
    words = ["big", "small", "green", "blue", "round", "old", "cat", "owl", "apple", "tree", "on", "under", "a", "the"]
    captions = [[" ".join(random.choice(words, 6)) for _ in range(5)] for _ in range(31)]
    _write(folder / "wds_tiny-retrieval", [("txt", "\n".join(own)) for own in captions])
    metadata = [_npy(random.integers(0, 3, 4)) for _ in range(44)]
    labels = [{"cls": str(random.integers(0, 7)).encode(), "npy": array} for array in metadata]
    _write(folder / "wds_tiny-groups", labels, CLASSES)
    targets = random.random((40, 7)) < 0.3
    _write(folder / "wds_tiny-labels", [{"npy": _npy(row.astype(np.int64))} for row in targets], CLASSES)
    (folder / "wds_tiny-labels/dataset_type.txt").write_text("multilabel")
    return folder


def _npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.fixture()
def broken(tasks, tmp_path):
    """A copy of the tasks to break."""
    return shutil.copytree(tasks, tmp_path / "tasks")


def _write(folder, annotations, classes=None, extension="webp"):
    """A task folder of two shards; images of any size, so that resizing and cropping count."""
    random = np.random.default_rng(len(annotations))
    (folder / "test").mkdir(parents=True)
    samples = []
    for i, annotation in enumerate(annotations):
        if isinstance(annotation, tuple):
            annotation = {annotation[0]: annotation[1].encode()}
        pixels = random.integers(0, random.integers(50, 256, 3), (*random.integers(3, 9, 2), 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize(tuple(int(x) for x in random.integers(30, 70, 2)), Image.BILINEAR)
        stream = io.BytesIO()
        image.save(stream, extension, **({"lossless": True} if extension == "webp" else {}))
        samples.append({"__key__": f"s{i:07d}", extension: stream.getvalue(), **annotation})
    half = len(samples) // 2
    write_shard(folder / "test/0.tar", samples[:half])
    write_shard(folder / "test/1.tar", samples[half:])
    (folder / "test/nshards.txt").write_text("2")
    if classes:
        (folder / "classnames.txt").write_text("\n".join(classes) + "\n")
        (folder / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    else:
        (folder / "dataset_type.txt").write_text("retrieval")


def _evaluate(model_dirs, tasks, *entries, batch_size=16, **options):
    model_dirs = model_dirs if isinstance(model_dirs, list) else [model_dirs]
    with tempfile.TemporaryDirectory() as folder:
        suite = {"tasks": list(entries), "batch_size": batch_size}
        return evaluate_suite(model_dirs, tasks, suite, Path(folder) / "scores", **options)


def _clip_benchmark(model_dir, folder, retrieval=False):
    """Metrics of one task by clip_benchmark's own loader and metric functions."""
    import open_clip
    from clip_benchmark.datasets.builder import build_wds_dataset, image_captions_collate_fn
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_dir}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_dir}")
    dataset = build_wds_dataset("tiny", preprocess, data_dir=str(folder))
    collate = image_captions_collate_fn if retrieval else None
    loader = torch.utils.data.DataLoader(
        dataset.batched(8, collation_fn=collate) if collate else dataset.batched(8), None
    )
    common = {"device": "cpu", "amp": False}
    if retrieval:
        return zeroshot_retrieval.evaluate(model.eval(), loader, tokenizer, recall_k_list=[1, 5, 10], **common)
    return zeroshot_classification.evaluate(
        model.eval(), _WithClasses(loader, dataset), tokenizer, dataset.classes, dataset.templates, **common
    )


class _WithClasses:
    """clip_benchmark reads the class names from `loader.dataset`, which batching hides."""

    def __init__(self, loader, dataset):
        self.loader, self.dataset = loader, dataset

    def __iter__(self):
        return iter(self.loader)


@pytest.mark.parametrize("entry", [CLASSIFY, FEW], ids=["7 classes", "4 classes"])
def test_classification_equals_clip_benchmark(model_dir, tasks, entry):
    folder = tasks / f"wds_{entry['key'].replace('/', '-')}"
    theirs = _clip_benchmark(model_dir, folder)
    (record,) = _evaluate(model_dir, tasks, entry)
    assert theirs["acc1"] not in (0, 1) and theirs["mean_per_class_recall"] != pytest.approx(1 / 3)  # a real test
    few = entry is FEW
    assert np.isnan(theirs["acc5"]) == few
    expected = {name: None if np.isnan(value) else pytest.approx(value, abs=1e-9) for name, value in theirs.items()}
    main = expected[entry["main_metric"]]
    assert record["metrics"] == {**expected, "F1-macro_all": record["metrics"]["F1-macro_all"], "main_metric": main}
    assert (record["num_images"], record["num_classes"]) == ((20, 4) if few else (53, 7))


def test_retrieval_equals_clip_benchmark(model_dir, tasks):
    theirs = _clip_benchmark(model_dir, tasks / "wds_tiny-retrieval", retrieval=True)
    (record,) = _evaluate(model_dir, tasks, RETRIEVE)
    mean = (theirs["image_retrieval_recall@1"] + theirs["text_retrieval_recall@1"]) / 2
    expected = {**theirs, "mean_recall@1": mean, "main_metric": mean}
    found = {name: value for name, value in record["metrics"].items() if not name.startswith("first_caption")}
    assert found == pytest.approx(expected, abs=1e-6)  # theirs are float32
    assert (record["num_images"], record["num_texts"]) == (31, 155)


def test_multilabel_equals_clip_benchmark(model_dir, tasks):
    theirs = _clip_benchmark(model_dir, tasks / "wds_tiny-labels")
    (record,) = _evaluate(model_dir, tasks, LABELS)
    assert record["metrics"]["main_metric"] == pytest.approx(theirs["mean_average_precision"], abs=1e-6)
    assert 0.25 < record["metrics"]["main_metric"] < 1 and (record["num_images"], record["num_classes"]) == (40, 7)


def test_the_worst_group_is_the_least_of_clip_benchmarks_accuracies(model_dir, tasks, tmp_path):
    """The images of each group as a task of their own."""
    (record,) = _evaluate(model_dir, tasks, GROUPS)
    folder = tasks / "wds_tiny-groups"
    samples = [sample for shard in ("0.tar", "1.tar") for sample in read_shard(folder / "test" / shard)]
    found = []
    for group in range(3):
        own = shutil.copytree(folder, tmp_path / str(group))
        of_group = [s for s in samples if np.load(io.BytesIO(s["npy"]))[1] == group]
        assert record["groups"][str(group)] == len(of_group)
        write_shard(own / "test/0.tar", [{k: v for k, v in s.items() if k != "npy"} for s in of_group])
        (own / "test/nshards.txt").write_text("1")
        found.append(_clip_benchmark(model_dir, own))
    assert record["metrics"]["acc_wg"] == pytest.approx(min(one["acc1"] for one in found), abs=1e-9)
    assert record["metrics"]["acc_top5_wg"] == pytest.approx(min(one["acc5"] for one in found), abs=1e-9)
    assert len({one["acc1"] for one in found}) > 1


def test_a_suite_in_one_process_equals_its_tasks_one_by_one(model_dir, tasks):
    together = _evaluate(model_dir, tasks, CLASSIFY, FEW, RETRIEVE, batch_size=256, threads=2)
    assert [record["key"] for record in together] == ["tiny/val", "tiny/few", "tiny/retrieval"]
    assert together == [_evaluate(model_dir, tasks, entry, batch_size=5)[0] for entry in (CLASSIFY, FEW, RETRIEVE)]
    json.dumps(together, allow_nan=False)


def test_each_text_and_each_image_is_encoded_once(model_dir, tasks, monkeypatch, tmp_path):
    from clipdr.evaluate import encoder

    seen, forward = {"encode_image": 0, "encode_text": 0}, encoder._forward

    def counted(model, encode, x):
        seen[encode] += len(x)
        return forward(model, encode, x)

    monkeypatch.setattr(encoder, "_forward", counted)
    folder = shutil.copytree(tasks, tmp_path / "tasks")
    shutil.copytree(folder / "wds_tiny-val", folder / "wds_tiny-again")
    _evaluate(model_dir, folder, CLASSIFY, FEW, {**CLASSIFY, "key": "tiny/again"})
    assert seen == {"encode_image": 53 + 20, "encode_text": len(CLASSES) * len(TEMPLATES)}


def test_missing_weights_are_an_error(model_dir, tasks, tmp_path):
    shutil.copy(model_dir / "open_clip_config.json", tmp_path)
    with pytest.raises(UserError, match="open_clip_pytorch_model.bin is missing"):
        _evaluate(tmp_path, tasks, CLASSIFY)


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "NaN or infinity"), (0.0, "zero or not finite")])
def test_a_diverged_model_is_an_error(model_dir, tasks, tmp_path, value, message):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    weights = torch.load(folder / "open_clip_pytorch_model.bin")
    torch.save({k: torch.full_like(v, value) for k, v in weights.items()}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match=message):
        _evaluate(folder, tasks, CLASSIFY)


def test_weights_that_do_not_fit_are_one_line(model_dir, tasks, tmp_path):
    folder = shutil.copytree(model_dir, tmp_path / "model")
    torch.save({"visual.proj": torch.zeros(2, 2)}, folder / "open_clip_pytorch_model.bin")
    with pytest.raises(UserError, match="not weights of") as error:
        _evaluate(folder, tasks, CLASSIFY)
    assert "\n" not in str(error.value)


def _damage(folder, name):
    test = folder / "test"
    image = Image.new("RGB", (40, 40))
    stream = io.BytesIO()
    image.save(stream, "webp")
    good = {"__key__": "s1", "webp": stream.getvalue(), "cls": b"0"}
    match name:
        case "no nshards":
            (test / "nshards.txt").unlink()
        case "nshards is no number":
            (test / "nshards.txt").write_text("two")
        case "no shard":
            (test / "1.tar").unlink()
        case "cut shard":
            (test / "1.tar").write_bytes((test / "1.tar").read_bytes()[:5000])
        case "label too large":
            write_shard(test / "1.tar", [{**good, "cls": b"7"}])
        case "label is text":
            write_shard(test / "1.tar", [{**good, "cls": b"cat"}])
        case "no label":
            write_shard(test / "1.tar", [{"__key__": "s1", "webp": good["webp"]}])
        case "no image":
            write_shard(test / "1.tar", [{"__key__": "s1", "cls": b"0"}])
        case "not an image":
            write_shard(test / "1.tar", [{**good, "webp": b"no image"}])
        case "cut image":
            write_shard(test / "1.tar", [{**good, "webp": good["webp"][:40]}])
        case "wrong type":
            (folder / "dataset_type.txt").write_text("multilabel")
        case "no templates":
            (folder / "zeroshot_classification_templates.txt").unlink()
        case "template without a class":
            (folder / "zeroshot_classification_templates.txt").write_text("{c}\na photo\n")
        case "blank class":
            (folder / "classnames.txt").write_text("cat\n\nowl\n")
        case "no samples":
            write_shard(test / "0.tar", [])
            write_shard(test / "1.tar", [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no nshards", r"nshards\.txt: missing"),
        ("nshards is no number", r"nshards\.txt: holds 'two'"),
        ("no shard", r"1\.tar: missing"),
        ("cut shard", r"1\.tar"),
        ("label too large", r"1\.tar: sample s1 has label '7', out of range: classnames.txt has 7"),
        ("label is text", r"1\.tar: sample s1 has label 'cat'"),
        ("no label", r"1\.tar: sample s1 has no \.cls"),
        ("no image", r"1\.tar: sample s1 has no image"),
        ("not an image", r"1\.tar: sample s1 cannot be decoded"),
        ("cut image", r"1\.tar: sample s1 cannot be decoded"),
        ("wrong type", r"dataset_type\.txt: .*multilabel"),
        ("no templates", r"templates\.txt: missing"),
        ("template without a class", r"templates\.txt: template 'a photo'"),
        ("blank class", r"classnames\.txt: empty file or blank line"),
        ("no samples", r"hold no samples"),
    ],
)
def test_a_broken_folder_is_one_line_that_names_the_place(model_dir, broken, name, message):
    _damage(broken / "wds_tiny-val", name)
    with pytest.raises(UserError, match=message) as error:
        _evaluate(model_dir, broken, CLASSIFY)
    assert "\n" not in str(error.value)


def test_another_number_of_classes_than_the_suite_says(model_dir, tasks):
    """A class name more, or less at the end of the list, would shift no label that a folder can tell."""
    assert _evaluate(model_dir, tasks, {**CLASSIFY, "classes": 7})
    with pytest.raises(UserError, match=r"classnames\.txt has 7 lines, but the suite says that tiny/val has 8 classes"):
        _evaluate(model_dir, tasks, {**CLASSIFY, "classes": 8})


def test_a_task_without_a_folder_is_named(model_dir, tasks):
    with pytest.raises(UserError, match="no such task folder for tiny/other"):
        _evaluate(model_dir, tasks, {**CLASSIFY, "key": "tiny/other"})


def test_the_command_writes_sorted_records_and_no_nan(model_dir, tasks, tmp_path, monkeypatch):
    from clipdr.evaluate.__main__ import main

    settings, output = tmp_path / "settings.json", tmp_path / "new" / "scores"
    settings.write_text(json.dumps({"tasks": [FEW, RETRIEVE], "batch_size": 8}))
    arguments = {"--model": model_dir, "--tasks": tasks, "--settings": settings, "--output": output}
    monkeypatch.setattr("sys.argv", ["evaluate", "suite", *(str(x) for pair in arguments.items() for x in pair)])
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    main()
    text = (output / "records.jsonl").read_text()
    lines = text.splitlines()
    records = [json.loads(line) for line in lines]
    assert lines == [json.dumps(record, sort_keys=True) for record in records]
    assert '"acc5": null' in lines[0] and "NaN" not in text
    assert records == _evaluate(model_dir, tasks, FEW, RETRIEVE, batch_size=8)
    written = {"records.jsonl", "draws.npz", "tiny-few.npz", "tiny-retrieval.npz", ".token"}
    assert {path.name for path in output.iterdir()} == written
    assert [path.name for path in output.parent.iterdir()] == ["scores"]


def test_an_ensemble_joins_unit_vectors(model_dir, tasks, tmp_path):
    """Two models that differ in width, size and preprocessing, with open_clip and loops (MobileCLIP, Appendix D)."""
    import open_clip

    config = json.loads(json.dumps(CONFIG))
    config["model_cfg"] |= {"embed_dim": 24, "vision_cfg": config["model_cfg"]["vision_cfg"] | {"image_size": 48}}
    config["preprocess_cfg"] |= {"mean": [0.4] * 3, "interpolation": "bicubic"}
    folders = [model_dir, _model(tmp_path, config, 1)]
    images, labels = [], []
    for shard in ("0.tar", "1.tar"):
        for sample in read_shard(tasks / "wds_tiny-val/test" / shard):
            images.append(Image.open(io.BytesIO(sample["png"])).convert("RGB"))
            labels.append(int(sample["cls"]))
    img_parts, txt_parts = [], []
    for folder in folders:
        model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
        tokenize = open_clip.get_tokenizer(f"local-dir:{folder}")
        with torch.no_grad():
            img_parts.append(model.eval().encode_image(torch.stack([preprocess(image) for image in images]), True))
            prompts = [template.format(c=name) for name in CLASSES for template in TEMPLATES]
            txt_parts.append(model.encode_text(tokenize(prompts), True))
    img_ND, txt_PD = (torch.nn.functional.normalize(torch.cat(parts, dim=1), dim=1) for parts in (img_parts, txt_parts))
    weights_CD = torch.nn.functional.normalize(txt_PD.reshape(len(CLASSES), len(TEMPLATES), -1).mean(dim=1), dim=1)
    expected = ((img_ND @ weights_CD.T).argmax(dim=1) == torch.tensor(labels)).double().mean().item()
    (record,) = _evaluate(folders, tasks, CLASSIFY)
    assert record["metrics"]["acc1"] == pytest.approx(expected, abs=1e-9) and 0 < expected < 1
    alone = [_evaluate(folder, tasks, CLASSIFY)[0] for folder in folders]
    assert record["metrics"] not in [one["metrics"] for one in alone]
    twin = shutil.copytree(folders[0], tmp_path / "twin")
    both = _evaluate([folders[0], twin], tasks, CLASSIFY)
    assert both[0]["metrics"] == pytest.approx(alone[0]["metrics"])  # a model with itself is the model


def _command(model_dir, tasks, output, names, *options) -> dict[str, dict]:
    """Metrics that the `clip_benchmark` command writes of each task."""
    command = [sys.executable, "-m", "clip_benchmark.cli", "eval", "--dataset", *(f"wds/tiny/{name}" for name in names)]
    command += ["--dataset_root", f"{tasks}/wds_{{dataset_cleaned}}", "--model", f"local-dir:{model_dir}"]
    command += ["--pretrained", "", "--no_amp", "--num_workers", "0", "--batch_size", "16", "--quiet", *options]
    output.mkdir(exist_ok=True)
    done = subprocess.run(
        [*command, "--output", f"{output}/{{dataset}}.json"], capture_output=True, text=True, cwd=output
    )
    assert done.returncode == 0, done.stderr
    return {name: json.loads((output / f"tiny_{name}.json").read_text())["metrics"] for name in names}


@pytest.mark.slow
def test_the_commands_agree(model_dir, tasks, tmp_path):
    """Classes below and above five, several labels, and retrieval with five captions, as a user would call both."""
    task = "zeroshot_classification"
    theirs = _command(model_dir, tasks, tmp_path / "theirs", ["val", "few", "labels"], "--task", task)
    recalls = ["--task", "zeroshot_retrieval", "--recall_k", "1", "5", "10"]
    theirs |= _command(model_dir, tasks, tmp_path / "theirs", ["retrieval"], *recalls)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"tasks": [CLASSIFY, FEW, LABELS, RETRIEVE], "batch_size": 16}))
    command = [sys.executable, "-m", "clipdr.evaluate", "suite", "--model", model_dir, "--tasks", tasks]
    command += ["--settings", settings, "--output", tmp_path / "ours"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "ours/records.jsonl").read_text().splitlines()
    ours = {record["key"].removeprefix("tiny/"): record["metrics"] for record in map(json.loads, lines)}
    for name in ("val", "few"):  # exactly; they write NaN where there is no value, and we null
        expected = {key: None if np.isnan(value) else value for key, value in theirs[name].items()}
        assert {key: ours[name][key] for key in expected} == expected
    for name in ("labels", "retrieval"):
        assert {key: ours[name][key] for key in theirs[name]} == pytest.approx(theirs[name], abs=1e-6)
    assert len(theirs["retrieval"]) == 6
