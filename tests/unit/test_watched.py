"""Scores on the way: those of a finished run with the same weights, and nothing that a run learns depends on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from held_out import opened
from PIL import Image
from small import run_settings

from clipdr import config, experiments
from clipdr.evaluate.suite import evaluate_suite
from clipdr.models.folder import random_model
from clipdr.pool.layout import as_webp, write_classification
from clipdr.train import watched
from clipdr.train.run import train

REPO = Path(__file__).parents[2]
WEIGHTS = "open_clip_pytorch_model.bin"
TASK = {"key": "t/val", "title": "Val", "kind": "classification", "main_metric": "acc1"}


def settings(model_config: dict, **changes) -> dict:
    run = run_settings(model_config)
    return {**run, "training": {**run["training"], "ema": 0.5, "ladder": 1}, **changes}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    samples = [{**as_webp(Image.fromarray(p)), "cls": str(n % 3).encode()} for n, p in enumerate(pixels)]
    write_classification(folder / "wds_t-val", samples, ["dog", "cat", "tree"], ["{c}"])
    assert opened(folder, "t/val", "classification")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, model_config, views_dir, tokenizer, tasks):
    """The same run with and without scores on the way."""
    folder = tmp_path_factory.mktemp("runs")
    scored = {"watched": {"every": 4, "tasks": [TASK], "batch_size": 5}}
    train(settings(model_config), views_dir, folder / "plain/model", tokenizer)
    train(settings(model_config, **scored), views_dir, folder / "watched/model", tokenizer, tasks=tasks)
    return folder


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_what_is_learned_does_not_depend_on_it(runs):
    plain, scored = (torch.load(runs / name / "model" / WEIGHTS, weights_only=True) for name in ("plain", "watched"))
    assert plain.keys() == scored.keys() and all(torch.equal(plain[name], scored[name]) for name in plain)
    assert not (runs / "plain/model/evaluations").exists()
    assert {path.name for path in (runs / "watched/model/evaluations").iterdir()} == {"0000004", "0000008"}


def test_scores_are_those_of_the_weights_of_the_step(runs, tasks, tmp_path):
    """The ladder has the weights of step 4, averaged as the run's are; the run itself those of step 8."""
    model = runs / "watched/model"
    shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("evaluations", "ladder"))
    suite = {"tasks": [TASK], "batch_size": 5}
    assert evaluate_suite([tmp_path / "model"], tasks, suite, tmp_path / "last") == records(
        model / "evaluations/0000008"
    )
    shutil.copy(model / "ladder/0000004.pt", tmp_path / "model" / WEIGHTS)
    assert evaluate_suite([tmp_path / "model"], tasks, suite, tmp_path / "half") == records(
        model / "evaluations/0000004"
    )


def test_a_run_says_what_it_is_scored_on():
    scale = config.load_scale(REPO, "ci")
    scale["evaluation"]["evaluate_every"] = {"steps": 3, "suite": "emoji-dev"}
    scale, _ = config.with_suites(scale, REPO, "ci")
    experiment, models = (
        config.load(REPO, "config/experiments/mobileclip/table2.yaml", "experiment"),
        config.load_models(REPO),
    )
    (run, *_) = experiments.plan(experiment, scale, models, config.load_objectives(REPO))
    asked = run.settings["watched"]
    assert asked["every"] == 3 and [task["key"] for task in asked["tasks"]] == ["emoji/dev"]
    assert run.artifact.inputs["pool"].stage == "pool"


def test_training_keeps_its_arithmetic(model_config, tokenizer, tasks, tmp_path, monkeypatch):
    """An evaluation forbids TF32 for the whole process, which the steps after it may have been allowed."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    told = settings(model_config, watched={"every": 2, "tasks": [TASK], "batch_size": 5})
    evaluate = watched.evaluator(told, tokenizer, tasks, tmp_path)
    evaluate(random_model(model_config, 0, "tiny"), 2)
    assert (tmp_path / "evaluations/0000002/records.jsonl").is_file() and torch.backends.cudnn.allow_tf32
