"""What is trained follows from the settings and from nothing else."""

import copy
import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clipdr.errors import UserError
from clipdr.experiments import Run, evaluation_columns, has_runs, nearest, networks, plan, slug, unique_runs

SCALE = {
    "pool": {"name": "emoji"},
    "models": {"ViT-B/16:Base": "small", "MCi0:MCt": "fast"},
    "datasets": {"DataComp-12M": {"name": "12M", "size": 400, "seed": 0}},
    "teachers": {"single": ["conv"], "ensemble": ["conv", "vit"]},
    "augmentations": {"light": {"views": 2}, "strong": {"views": 3}},
    "training": {"steps": 300, "lr": 0.002},
    "seeds": 2,
}
MODELS = {"small": {"model_cfg": {"embed_dim": 64}}, "fast": {"model_cfg": {"embed_dim": 32}}}
EXPERIMENT = {
    "title": "t",
    "seeds": [0, 1, 2],
    "settings": {"model": "ViT-B/16:Base", "dataset": "DataComp-12M"},
    "rows": [
        {
            "name": "plain",
            "settings": {"lambda": 0, "captions": ["real"], "augmentation": "light", "teachers": "none"},
        },
        {
            "name": "distilled",
            "settings": {"lambda": 1, "captions": ["real", "syn"], "augmentation": "strong", "teachers": "ensemble"},
        },
    ],
}


def names(runs: list[Run]) -> list[str]:
    return [run.name for run in runs]


def with_row(**settings) -> dict:
    """The experiment with the settings of its second row changed; None removes one."""
    experiment = copy.deepcopy(EXPERIMENT)
    row = experiment["rows"][1]["settings"]
    row.update(settings)
    for key in [key for key, value in settings.items() if value is None]:
        del row[key]
    return experiment


def test_settings_are_fully_resolved():
    run = plan(EXPERIMENT, SCALE, MODELS)[2]
    assert (run.row, run.seed) == ("distilled", 0)
    assert run.settings == {
        "model": "small",
        "model_config": {"model_cfg": {"embed_dim": 64}},
        "dataset": "12M",
        "pool": "emoji",
        "augmentation": "strong",
        "captions": ["real", "syn"],
        "teachers": ["conv", "vit"],
        "lambda": 1.0,
        "training": {"steps": 300, "lr": 0.002},
        "seed": 0,
    }


def test_names_are_a_readable_slug_and_a_hash_of_the_settings():
    run = plan(EXPERIMENT, SCALE, MODELS)[2]
    digest = hashlib.sha256(json.dumps(run.settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:8]
    assert run.name == f"small_12M_strong_real+syn_conv+vit_lambda1_seed0-{digest}"
    assert plan(EXPERIMENT, SCALE, MODELS)[0].name.startswith("small_12M_light_real_none_lambda0_seed0-")


def test_names_are_the_same_in_every_process():
    code = "import json,sys; from clipdr.experiments import plan; print([r.name for r in plan(*json.load(sys.stdin))])"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([EXPERIMENT, SCALE, MODELS]),
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == str(names(plan(EXPERIMENT, SCALE, MODELS)))


def test_runs_go_row_by_row_and_a_scale_takes_the_first_seeds():
    runs = plan(EXPERIMENT, SCALE, MODELS)
    assert [(run.row, run.seed) for run in runs] == [("plain", 0), ("plain", 1), ("distilled", 0), ("distilled", 1)]
    every = {key: value for key, value in SCALE.items() if key != "seeds"}
    assert [run.seed for run in plan(EXPERIMENT, every, MODELS)] == [0, 1, 2, 0, 1, 2]
    assert len(plan(EXPERIMENT, {**SCALE, "seeds": 99}, MODELS)) == 6


def test_names_fit_in_a_path():
    for run in plan(EXPERIMENT, SCALE, MODELS):
        assert re.fullmatch(r"[A-Za-z0-9._+-]{1,200}", run.name)


@pytest.mark.parametrize(
    "change", [{"lambda": 0.7}, {"captions": ["syn"]}, {"augmentation": "light"}, {"teachers": "single"}]
)
def test_a_changed_setting_renames_the_runs_of_its_row_only(change):
    before, after = plan(EXPERIMENT, SCALE, MODELS), plan(with_row(**change), SCALE, MODELS)
    changed = [old.row for old, new in zip(before, after, strict=True) if old.name != new.name]
    assert changed == ["distilled", "distilled"]


def test_a_changed_model_training_or_pool_renames_every_run_and_a_subset_size_none():
    before = names(plan(EXPERIMENT, SCALE, MODELS))
    wider = {**MODELS, "small": {"model_cfg": {"embed_dim": 65}}}
    longer = {**SCALE, "training": {"steps": 301, "lr": 0.002}}
    other = {**SCALE, "pool": {"name": "clipart"}}
    for after in (plan(EXPERIMENT, SCALE, wider), plan(EXPERIMENT, longer, MODELS), plan(EXPERIMENT, other, MODELS)):
        assert not set(before) & set(names(after))
    bigger = {**SCALE, "datasets": {"DataComp-12M": {"name": "12M", "size": 800, "seed": 0}}}
    assert names(plan(EXPERIMENT, bigger, MODELS)) == before
    assert names(plan(EXPERIMENT, SCALE, {**MODELS, "fast": {}})) == before  # a model that no run uses


def test_rows_and_tables_with_equal_settings_share_their_runs():
    other = copy.deepcopy(EXPERIMENT)
    other["title"], other["rows"][0]["name"] = "another table", "baseline"
    other["rows"][1]["settings"]["lambda"] = 0.5
    other["rows"].append({"name": "again", "settings": EXPERIMENT["rows"][1]["settings"]})
    runs = plan(EXPERIMENT, SCALE, MODELS) + plan(other, SCALE, MODELS)
    unique = unique_runs(runs)
    assert len(runs) == 10 and len(unique) == 6
    assert all(unique[run.name] == run.settings for run in runs)
    assert list(unique)[:4] == names(runs)[:4]


def test_the_same_setting_written_otherwise_is_the_same_run():
    before = names(plan(EXPERIMENT, SCALE, MODELS))
    assert names(plan(with_row(**{"lambda": 1.0}), SCALE, MODELS)) == before
    assert names(plan(with_row(captions=["syn", "real"]), SCALE, MODELS)) == before
    moved = with_row(model="ViT-B/16:Base")  # said in the row as well as for all rows
    assert names(plan(moved, SCALE, MODELS)) == before
    shuffled = {**SCALE, "training": {"lr": 0.002, "steps": 300}}
    assert names(plan(EXPERIMENT, shuffled, MODELS)) == before


def test_without_distillation_no_teacher_is_in_the_settings():
    runs = plan(with_row(**{"lambda": 0}), SCALE, MODELS)
    assert runs[2].settings["teachers"] == [] and "none" in runs[2].name
    assert names(runs) == names(plan(with_row(**{"lambda": 0, "teachers": "none"}), SCALE, MODELS))


def test_a_row_without_settings_is_not_trained():
    published = {"name": "of others", "network": "RN50", "published": {"IN-val": 60.0}}
    more = {**EXPERIMENT, "rows": [published, *EXPERIMENT["rows"]]}
    assert plan(more, SCALE, MODELS) == plan(EXPERIMENT, SCALE, MODELS)
    assert has_runs(more) and has_runs({**EXPERIMENT, "rows": [{"name": "common settings alone", "settings": {}}]})
    assert not has_runs({"rows": [published]})
    assert plan({"rows": [published]}, SCALE, MODELS) == []  # nor are seeds needed


def test_networks_are_those_of_the_rows_if_the_table_has_a_column_of_them():
    rows = [{"name": str(i), "network": name} for i, name in enumerate(("RN50", "ViT-B/16:MCt-2", "RN50"))]
    table = {"columns": ["Latency txt (ms)", "IN-val"], "rows": [*rows, {"name": "published only"}]}
    assert networks(table, "latency") == ["RN50", "ViT-B/16:MCt-2"]
    assert networks(table, "params") == []
    assert networks({**table, "columns": ["Params img (M)"]}, "params") == ["RN50", "ViT-B/16:MCt-2"]
    assert evaluation_columns(table) == ["IN-val"]


def test_a_network_has_one_file_name():
    assert slug("ViT-B/16:MCt-2") == "ViT-B-16+MCt-2"
    assert slug("open_clip:MobileCLIP-B") == "open_clip+MobileCLIP-B"
    assert slug("RN50") == "RN50"


def test_runs_own_their_settings():
    runs = plan(EXPERIMENT, SCALE, MODELS)
    runs[0].settings["training"]["steps"] = 1
    runs[0].settings["model_config"]["model_cfg"]["embed_dim"] = 1
    assert runs[1].settings["training"]["steps"] == SCALE["training"]["steps"] == 300
    assert MODELS["small"]["model_cfg"]["embed_dim"] == 64
    with pytest.raises(dataclasses.FrozenInstanceError):
        runs[0].name = "x"


def test_planning_changes_none_of_its_arguments():
    arguments = (EXPERIMENT, SCALE, MODELS)
    before = copy.deepcopy(arguments)
    plan(*arguments)
    assert before == arguments


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"lambda": 1.5}, "lambda is 1.5; it must lie between 0 and 1"),
        ({"lambda": -0.1}, "lambda is -0.1"),
        ({"lambda": float("nan")}, "lambda is nan"),
        ({"lambda": 0.1, "teachers": "none"}, "lambda is 0.1 but teachers is 'none'"),
        ({"captions": []}, "captions is empty"),
        ({"captions": ["real", "sin"]}, "captions 'sin' is not defined; did you mean 'syn'?"),
        ({"teachers": "singel"}, "teachers 'singel' is not defined; did you mean 'single'?"),
        ({"augmentation": "Strong"}, "augmentation 'Strong' is not defined; did you mean 'strong'?"),
        ({"dataset": "COCO"}, "dataset 'COCO' is not defined (datasets has DataComp-12M)"),
        ({"model": "MCi0"}, "model 'MCi0' is not defined; did you mean 'MCi0:MCt'?"),
        ({"teachers": None}, "settings.teachers is missing"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_row(change, expected):
    with pytest.raises(UserError) as caught:
        plan(with_row(**change), SCALE, MODELS)
    assert str(caught.value).startswith(f"row 'distilled': {expected}")


def test_a_model_without_configuration_is_refused():
    with pytest.raises(UserError, match="model 'small' is not defined"):
        plan(EXPERIMENT, SCALE, {"smaller": {}, "fast": {}})


def test_nearest_ignores_case_and_keeps_silent_when_nothing_is_like_it():
    assert nearest("TABLE2", ["table2", "figure6a"]) == "; did you mean 'table2'?"
    assert nearest("xyz", ["table2"]) == "" and nearest("x", []) == ""


def test_planning_imports_no_heavy_package():
    code = "import sys, clipdr.experiments, clipdr.config, clipdr.fingerprint; print(*sys.modules)"
    env = {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "open_clip", "timm", "pandas", "numpy", "snakemake"} & set(loaded.split())
