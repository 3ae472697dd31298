"""What is trained follows from the settings and from nothing else."""

import copy
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import edited, refused

from clipdr.artifacts import all_of
from clipdr.chain import captions, evaluation, suite_of
from clipdr.errors import nearest
from clipdr.experiments import Run, costs, for_paper, plan
from clipdr.words import columns_of, evaluation_columns, has_runs, has_scores, networks, slug, words_of

SOURCES = str(Path(__file__).parents[2] / "src")
MEMBER = {"model": "small", "lr": 0.1}
SCALE = {
    "title": "t",
    "pool": {"kind": "emoji", "name": "emoji", "seed": 0},
    "zoo": {
        "kind": "trained",
        "vocab_size": 300,
        "seed": 7,
        "augmentation": {"views": 2},
        "teachers": {"conv": {**MEMBER}, "vit": {**MEMBER, "seed": 8}},
        "captioner": {**MEMBER},
    },
    "models": {"ViT-B/16:Base": "small", "MCi0:MCt": "fast"},
    "datasets": {"DataComp-12M": {"name": "12M", "size": 400, "seed": 0}},
    "teachers": {"single": ["conv"], "ensemble": ["conv", "vit"]},
    "captions": {"number": 5, "top_p": 0.9},
    "augmentations": {"light": {"views": 2}, "strong": {"views": 3}},
    "training": {"steps": 300, "lr": 0.002, "weight_decay": 0.1, "source": "memory"},
    "seeds": 2,
    "evaluation": {"suite": "tiny", "batch_size": 4, "columns": {"IN-val": ["x"]}},
}
MODELS = {
    name: {"model_cfg": {"embed_dim": width, "vision_cfg": {"image_size": 32}}}
    for name, width in [("small", 64), ("fast", 8)]
}
OBJECTIVES = {
    "reinforced": {
        "properties": {
            "name": {"const": "reinforced"},
            "lambda": {"type": "number"},
            "teachers": {"type": "string", "words": "teachers"},
            "gain": {"type": "number", "default": 2},
        }
    },
    "clip": {"properties": {"name": {"const": "clip"}, "margin": {"type": "number"}}},
}
EXPERIMENT = {
    "title": "t",
    "seeds": [0, 1, 2],
    "settings": {"model": "ViT-B/16:Base", "data": {"dataset": "DataComp-12M"}, "objective": {"name": "reinforced"}},
    "rows": [
        {
            "name": "plain",
            "settings": {"objective": {"lambda": 0}, "data": {"captions": ["real"], "augmentation": "light"}},
        },
        {
            "name": "distilled",
            "settings": {
                "objective": {"lambda": 1, "teachers": "ensemble"},
                "data": {"captions": ["real", "syn"], "augmentation": "strong"},
            },
        },
    ],
}


def planned(experiment: dict = EXPERIMENT, scale: dict = SCALE, models: dict = MODELS) -> list[Run]:
    return plan(experiment, scale, models, OBJECTIVES)


def names(*arguments: dict) -> list[str]:
    return [run.name for run in planned(*arguments)]


def row(path: str, value: object) -> dict:
    """The experiment with the settings of its second row changed."""
    return edited(EXPERIMENT, f"rows//1//settings//{path}", value)


# ---- settings


def test_settings_are_fully_resolved():
    run = planned()[2]
    assert (run.row, run.seed) == ("distilled", 0)
    assert run.settings == {
        "model": {"name": "small", "config": MODELS["small"]},
        "data": {"dataset": "12M", "augmentation": "strong", "captions": ["real", "syn"]},
        "objective": {"name": "reinforced", "lambda": 1.0, "teachers": ["conv", "vit"], "gain": 2.0},
        "training": SCALE["training"],
        "seed": 0,
    }
    assert planned()[0].settings["objective"] == {"name": "reinforced", "lambda": 0.0, "gain": 2.0}


def test_a_name_tells_what_the_run_is():
    first, *_, last = planned()
    assert re.fullmatch(r"small_12M-light_real_reinforced-lambda0_seed0-[0-9a-f]{8}", first.name)
    assert re.fullmatch(r"small_12M-strong_real\+syn_reinforced-lambda1-conv\+vit_seed1-[0-9a-f]{8}", last.name)
    assert last.artifact.path == f"runs/{last.name}"


def test_names_are_the_same_in_every_process():
    code = "import json,sys; from clipdr.experiments import plan; print([r.name for r in plan(*json.load(sys.stdin))])"
    printed = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([EXPERIMENT, SCALE, MODELS, OBJECTIVES]),
        env={"PYTHONPATH": SOURCES, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed.strip() == str(names())


def test_runs_go_row_by_row_and_a_scale_takes_the_first_seeds():
    assert [(run.row, run.seed) for run in planned()] == [
        ("plain", 0),
        ("plain", 1),
        ("distilled", 0),
        ("distilled", 1),
    ]
    assert [run.seed for run in planned(EXPERIMENT, edited(SCALE, "seeds", None))] == [0, 1, 2, 0, 1, 2]
    assert len(planned(EXPERIMENT, {**SCALE, "seeds": 99})) == 6


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("objective//lambda", 0.7),
        ("objective//teachers", "single"),
        ("objective//gain", 3),
        ("data//captions", ["syn"]),
        ("data//augmentation", "light"),
        ("training", {"steps": 5}),
        ("model", "MCi0:MCt"),
    ],
)
def test_a_changed_setting_renames_the_runs_of_its_row_only(path, value):
    changed = [old.row for old, new in zip(planned(), planned(row(path, value)), strict=True) if old.name != new.name]
    assert changed == ["distilled", "distilled"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("objective//lambda", 1.0),
        ("objective//gain", 2),  # the default
        ("data//captions", ["syn", "real"]),
        ("data//dataset", "DataComp-12M"),  # said in the row as well as for all rows
        ("training", {"steps": 300}),  # of the scale
    ],
)
def test_the_same_setting_written_otherwise_is_the_same_run(path, value):
    assert names(row(path, value)) == names()


def test_rows_and_tables_with_equal_settings_share_their_runs():
    other = row("objective//lambda", 0.5)
    other["title"], other["rows"][0]["name"] = "another table", "baseline"
    other["rows"].append({"name": "again", "settings": EXPERIMENT["rows"][1]["settings"]})
    runs = planned() + planned(other)
    unique = {run.name: run.artifact for run in runs}
    assert len(runs) == 10 and len(unique) == 6
    assert all(unique[run.name] == run.artifact for run in runs)


def test_training_is_the_scale_with_what_the_row_says_in_its_place():
    assert planned(row("training", {"steps": 5}))[2].settings["training"] == {**SCALE["training"], "steps": 5}


def test_a_recipe_is_a_word_of_the_scale_and_the_row_has_the_last_word():
    scale = {**SCALE, "recipes": {"long": {"steps": 900, "lr": 0.1}}}
    said = {**row("recipe", "long")["rows"][1]["settings"], "training": {"lr": 0.2}}
    experiment = edited(EXPERIMENT, "rows//1//settings", said)
    assert planned(experiment, scale)[2].settings["training"] == {**SCALE["training"], "steps": 900, "lr": 0.2}
    assert "recipe 'logn' is not defined; did you mean 'long'?" in refused(planned, row("recipe", "logn"), scale)


def test_a_stream_reads_rows_of_the_reinforced_shards_and_no_views():
    streamed, stored = planned(row("training", {"source": "stream"}))[2], planned()[2]
    assert streamed.artifact.inputs["rows"].inputs["reinforced"] == stored.artifact.inputs["views"].inputs["reinforced"]
    assert "views" not in streamed.artifact.inputs


def test_rows_that_draw_from_fewer_views_and_captions_share_one_store():
    whole, few = planned()[2], planned(row("data", EXPERIMENT["rows"][1]["settings"]["data"] | {"synthetic": 2}))[2]
    assert few.artifact.inputs == whole.artifact.inputs
    assert few.settings["data"] == whole.settings["data"] | {"synthetic": 2}
    said = {"views": 4, "synthetic": 5, "stored_views": 4}
    every = planned(row("data", EXPERIMENT["rows"][1]["settings"]["data"] | said))[2]
    assert every.settings == whole.settings  # all of them are as many as are stored
    stored = every.artifact.inputs["views"].inputs["reinforced"]
    assert stored.settings["augmentation"] == SCALE["augmentations"]["strong"] | {"views": 4}
    assert "data.views is 5, but only 4 are stored; lower it" in refused(
        planned, row("data", EXPERIMENT["rows"][1]["settings"]["data"] | said | {"views": 5})
    )


def test_words_of_a_row_win_key_by_key_and_another_objective_brings_its_own_keys():
    common = {"settings": {"model": "a", "data": {"dataset": "d"}, "objective": {"name": "reinforced", "lambda": 1}}}
    merged = words_of(common, {"settings": {"data": {"augmentation": "light"}, "objective": {"lambda": 0}}})
    assert merged["data"] == {"dataset": "d", "augmentation": "light"}
    assert merged["objective"] == {"name": "reinforced", "lambda": 0}
    assert words_of(common, {"settings": {"objective": {"name": "clip"}}})["objective"] == {"name": "clip"}


def test_columns_of_lie_open():
    words = {"model": "m", "init": {"row": "plain"}, "data": {"captions": ["syn"]}, "training": {"lr": 1}}
    words["objective"] = {"name": "reinforced", "lambda": 0.5}
    flat = {"model": "m", "init": "plain", "captions": ["syn"], "lr": 1, "objective": "reinforced", "lambda": 0.5}
    assert columns_of(words) == flat
    assert columns_of({}) == {}


def test_a_row_without_settings_is_not_trained():
    published = {"name": "of others", "network": "RN50", "published": {"IN-val": 60.0}}
    more = {**EXPERIMENT, "rows": [published, *EXPERIMENT["rows"]]}
    assert planned(more) == planned()
    assert has_runs(more) and has_runs({**EXPERIMENT, "rows": [{"name": "common settings alone", "settings": {}}]})
    assert not has_runs({"rows": [published]}) and not has_scores({"rows": [published]})
    assert has_scores({"rows": [{"name": "of the zoo", "zoo": "single"}]})
    assert planned({"rows": [published]}) == []  # nor are seeds needed


def test_runs_own_their_settings_and_planning_changes_none_of_its_arguments():
    arguments = (EXPERIMENT, SCALE, MODELS, OBJECTIVES)
    before = copy.deepcopy(arguments)
    runs = plan(*arguments)
    runs[0].settings["training"]["steps"] = 1
    runs[0].settings["model"]["config"]["model_cfg"]["embed_dim"] = 1
    assert before == arguments and runs[1].settings["training"]["steps"] == 300
    with pytest.raises(dataclasses.FrozenInstanceError):
        runs[0].row = "x"


# ---- what runs are made from


def chain(scale: dict, models: dict = MODELS) -> dict[str, str]:
    """`<stage>/<slug>` -> name, of all that the runs of seed 0 are made from."""
    artifacts = all_of(run.artifact for run in planned(EXPERIMENT, {**scale, "seeds": 1}, models)).values()
    return {f"{one.stage}/{one.name.rpartition('-')[0]}": one.name for one in artifacts}


ZOO = {"zoo/conv", "zoo/vit", "zoo/captioner"}
STRONG = {"reinforced/12M-strong", "views/12M-strong-32px"}
STORED = STRONG | {"reinforced/12M-light-plain", "views/12M-light-plain-32px"}
RUNS = {key for key in chain(SCALE) if key.startswith("runs/")}
DISTILLED = {key for key in RUNS if "strong" in key}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("pool//seed", 1, {"pool/emoji", "tokenizer/emoji", "subset/12M", "captions/12M"} | ZOO | STORED | RUNS),
        # The plain run reads neither synthetic captions nor teachers.
        ("zoo//vocab_size", 301, {"tokenizer/emoji", "captions/12M"} | ZOO | STRONG | RUNS),
        ("zoo//captioner//steps", 9, {"zoo/captioner", "captions/12M"} | STRONG | DISTILLED),
        ("zoo//teachers//vit//lr", 0.2, {"zoo/vit"} | STRONG | DISTILLED),
        ("zoo//seed", 9, {"zoo/conv", "zoo/captioner", "captions/12M"} | STRONG | DISTILLED),  # vit has its own
        ("datasets//DataComp-12M//size", 401, {"subset/12M", "captions/12M"} | STORED | RUNS),
        ("captions//top_p", 0.8, {"captions/12M"} | STRONG | DISTILLED),
        ("augmentations//strong//views", 4, STRONG | DISTILLED),
        ("training//weight_decay", 0.2, ZOO | {"captions/12M"} | STRONG | RUNS),
        ("evaluation//columns", {}, set()),
        ("title", "another scale", set()),
    ],
)
def test_a_name_changes_with_anything_upstream_and_with_nothing_else(path, value, expected):
    before, after = chain(SCALE), chain(edited(SCALE, path, value))
    assert before.keys() == after.keys() and len(before) == 13
    assert {key for key in before if before[key] != after[key]} == expected


def test_a_changed_model_renames_what_it_is_in():
    assert chain(SCALE, edited(MODELS, "fast//model_cfg//embed_dim", 9)) == chain(SCALE)  # no run uses it
    changed = chain(SCALE, edited(MODELS, "small//model_cfg//embed_dim", 65))
    assert {key for key, name in chain(SCALE).items() if changed[key] == name} == {
        "pool/emoji",
        "tokenizer/emoji",
        "subset/12M",
        "reinforced/12M-light-plain",
        "views/12M-light-plain-32px",
    }


def test_a_member_of_the_zoo_is_trained_by_the_recipe_with_its_own_words_in_their_place():
    zoo = {one.name.rpartition("-")[0]: one for one in all_of([planned()[2].artifact]).values() if one.stage == "zoo"}
    for name, seed in (("conv", 7), ("vit", 8), ("captioner", 7)):
        told = zoo[name].settings
        assert (told["seed"], told["lr"], told["weight_decay"], told["steps"]) == (seed, 0.1, 0.1, 300)
        assert (told["config"], told["augmentation"]) == (MODELS["small"], {"views": 2})


def test_captions_of_a_dataset_are_those_of_its_runs():
    alone = captions(SCALE, MODELS, SCALE["datasets"]["DataComp-12M"])
    assert all_of([planned()[2].artifact])[alone.path] == alone


@pytest.mark.parametrize(
    ("captions_of_row", "objective", "online", "stored"),
    [
        (["real"], {"lambda": 0}, [], "plain"),
        (["real", "syn"], {"lambda": 0}, [], "captions"),
        (["real-or-syn"], {"lambda": 0}, [], "captions"),
        (["real"], {"lambda": 1, "teachers": "single"}, [], "all"),
        (["real", "syn"], {"lambda": 1, "teachers": "single"}, ["teachers"], "captions"),
        (["real", "syn"], {"lambda": 1, "teachers": "single"}, ["captions", "teachers"], "plain"),
        (["real", "syn"], {"lambda": 1, "teachers": "single"}, ["captions"], "all"),
    ],
)
def test_a_run_waits_for_no_more_than_it_reads(captions_of_row, objective, online, stored):
    data = {"captions": captions_of_row, "augmentation": "strong"} | ({"online": online} if online else {})
    experiment = edited(EXPERIMENT, "rows//1//settings", {"data": data, "objective": objective})
    reinforced = planned(experiment)[2].artifact.inputs["views"].inputs["reinforced"]
    assert ("captions" in reinforced.inputs, bool(reinforced.inputs["teachers"])) == {
        "plain": (False, False),
        "captions": (True, False),
        "all": (True, True),
    }[stored]


def test_what_students_alone_see_is_a_setting_of_the_run_and_not_of_its_data():
    scale = edited(SCALE, "augmentations//strong", {"views": 3, "num_ops": 2, "magnitude": 9, "crop_scale": [0.1, 1]})
    plain, run = (planned(one, scale)[2] for one in (EXPERIMENT, row("data//student", "strong")))
    assert run.settings["data"] == plain.settings["data"] | {"student": {"num_ops": 2, "magnitude": 9}}
    assert run.name != plain.name and run.artifact.inputs == plain.artifact.inputs
    both = edited(row("data//student", "strong"), "rows//1//settings//data//online", ["teachers"])
    assert refused(planned, both, scale).startswith("row 'distilled': data.student: teachers that are asked online")


THREE = edited(edited(SCALE, "zoo//teachers//third", {**MEMBER}), "teachers//third", ["third"])


def test_a_teacher_that_few_rows_read_changes_no_other_run():
    """Datasets store the ensemble's embeddings, unless a row names another word."""
    assert [run.name for run in planned(scale=THREE)] == [run.name for run in planned()]
    objective = {"lambda": 1, "teachers": "third"}
    words = {"captions": ["real"], "augmentation": "strong", "stored_teachers": "third"}
    row = edited(EXPERIMENT, "rows//1//settings", {"data": words, "objective": objective})
    reinforced = planned(row, THREE)[2].artifact.inputs["views"].inputs["reinforced"]
    assert reinforced.settings["teachers"] == ["third"]
    assert [member.settings for member in reinforced.inputs["teachers"]] == [
        {**planned()[2].artifact.inputs["views"].inputs["reinforced"].inputs["teachers"][0].settings}
    ]
    del words["stored_teachers"]
    said = refused(planned, row, THREE)
    assert "objective.teachers: third is not stored, but conv, vit; name a word with all of them" in said


def test_rows_of_the_zoo_are_scored_and_not_trained():
    rows = [{"name": "one", "zoo": "single"}, {"name": "two", "zoo": "ensemble"}]
    one, two = planned({"title": "t", "rows": rows})
    zoo = planned()[2].artifact.inputs["views"].inputs["reinforced"].inputs["teachers"]
    assert [one.artifact, two.artifact, *two.others] == [zoo[0], *zoo] and (one.row, two.row) == ("one", "two")
    suite = suite_of(SCALE, MODELS, {"tasks": [{"key": "x"}]})
    assert evaluation([one.artifact], suite).inputs["run"] == zoo[0]
    assert evaluation([two.artifact, *two.others], suite).inputs["run"] == zoo
    assert "row 'one': zoo 'triple' is not defined" in refused(planned, {"rows": [{"name": "one", "zoo": "triple"}]})


def test_an_evaluation_is_of_a_run_and_of_the_tasks_not_of_the_columns():
    run, tasks = planned()[0].artifact, {"tasks": [{"key": "x"}]}
    suite = suite_of(SCALE, MODELS, tasks)
    made = evaluation([run], suite)
    assert re.fullmatch(rf"eval/{re.escape(run.name)}/tiny-[0-9a-f]{{8}}", made.path)
    assert suite.settings == {**tasks, "batch_size": 4} and made.inputs == {"run": run, "suite": suite}
    assert suite_of(edited(SCALE, "evaluation//columns", {}), MODELS, tasks) == suite
    assert evaluation([run], suite_of(SCALE, MODELS, {"tasks": [{"key": "y"}]})) != made
    assert evaluation([planned()[1].artifact], suite) != made


# ---- init


def test_init_makes_the_run_of_the_same_seed_an_input():
    runs = {(run.row, run.seed): run for run in planned(row("init", {"row": "plain"}))}
    for seed in (0, 1):
        start, run = runs["plain", seed], runs["distilled", seed]
        assert run.artifact.inputs["init"] == start.artifact
        assert run.settings["init"] == {"run": start.name} and f"_init_seed{seed}-" in run.name
        assert "init" not in start.settings
    longer = edited(row("init", {"row": "plain"}), "rows//0//settings//objective//gain", 3)
    assert not set(names(longer)) & set(names(row("init", {"row": "plain"})))


def test_a_row_may_start_from_one_that_stands_below_it():
    below = edited(EXPERIMENT, "rows//0//settings//init", {"row": "distilled"})
    first, *_, last = planned(below)
    assert first.row == "plain" and first.artifact.inputs["init"].settings["objective"] == last.settings["objective"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"init": {"row": "plian"}},
            "row 'distilled': init.row: 'plian' is no row with settings; did you mean 'plain'?",
        ),
        ({"init": {"row": "published"}}, "row 'distilled': init.row: 'published' is no row with settings"),
        ({"init": {"row": "distilled"}}, "init: distilled starts from distilled; break the circle"),
        ({"init": {"row": "last"}}, "init: distilled starts from last starts from distilled; break the circle"),
        (
            {"init": {"row": "plain"}, "model": "MCi0:MCt"},
            "row 'distilled': init: starts from a run of model 'small', but is 'fast'; name a row of the same model",
        ),
    ],
)
def test_an_init_that_leads_nowhere_is_refused(settings, expected):
    experiment = copy.deepcopy(EXPERIMENT)
    experiment["rows"][1]["settings"] |= settings
    last = {**EXPERIMENT["rows"][1]["settings"], "init": {"row": "distilled"}}
    experiment["rows"] += [{"name": "published"}, {"name": "last", "settings": last}]
    assert refused(planned, experiment).startswith(expected)


# ---- what cannot be planned


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("data//captions", [], "data.captions is empty"),
        ("data//captions", ["real", "sin"], "data.captions 'sin' is not defined; did you mean 'syn'?"),
        ("data//captions", None, "settings.data.captions is missing; give it in the row or in the settings common"),
        ("data", {"captions": ["real"]}, "settings.data.augmentation is missing"),
        ("data//augmentation", "Strong", "data.augmentation 'Strong' is not defined; did you mean 'strong'?"),
        ("data//dataset", "COCO", "data.dataset 'COCO' is not defined (datasets has DataComp-12M)"),
        ("model", "MCi0", "model 'MCi0' is not defined; did you mean 'MCi0:MCt'?"),
        ("objective//teachers", "singel", "objective.teachers 'singel' is not defined; did you mean 'single'?"),
        ("objective//name", "reinforcd", "objective.name 'reinforcd' is not defined; did you mean 'reinforced'?"),
        ("data//online", ["captions", "weights"], "data.online 'weights' is not defined"),
        ("data", {"captions": ["real"], "augmentation": "strong", "online": ["captions"]}, "data.online: captions are"),
        ("data//student", "Strong", "data.student 'Strong' is not defined; did you mean 'strong'?"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_row(path, value, expected):
    assert refused(planned, row(path, value)).startswith(f"row 'distilled': {expected}")


ONLINE = row("data//online", ["teachers", "captions"])


def test_what_is_asked_online_is_an_input_of_the_run():
    stored, online = planned()[2], planned(ONLINE)[2]
    assert online.settings["online"] == {"captions": SCALE["captions"], "teachers": ["conv", "vit"]}
    assert {key: value for key, value in online.settings.items() if key != "online"} == stored.settings
    (theirs, ours) = (run.artifact.inputs["views"].inputs["reinforced"].settings for run in (stored, online))
    assert theirs["teachers"] == ["conv", "vit"] and ours == {**theirs, "teachers": []}
    assert [made.name.split("-")[0] for made in online.artifact.inputs["teachers"]] == ["conv", "vit"]
    assert (
        online.artifact.inputs["captioner"]
        == captions(SCALE, MODELS, SCALE["datasets"]["DataComp-12M"]).inputs["captioner"]
    )
    assert "_online-captions+teachers_" in online.name


def test_costs_are_measured_on_the_first_seed_of_each_row():
    experiment = {**ONLINE, "cost": {"steps": 3, "rounds": 4}}
    runs = planned(experiment)
    made = costs("table", experiment, runs)
    told = [{"row": run.row, "settings": run.settings} for run in runs if run.seed == 0]
    assert made.settings == {"steps": 3, "rounds": 4, "runs": told} and len(told) == 2
    assert made.inputs["data"] == [run.artifact.inputs["views"] for run in runs if run.seed == 0]
    assert made.inputs["teachers"] == runs[2].artifact.inputs["teachers"]


def test_a_model_without_configuration_is_refused():
    assert "model 'small' is not defined" in refused(planned, EXPERIMENT, SCALE, {"smaller": {}})


# ---- papers, networks


def test_a_paper_sees_the_scale_with_its_own_words_in_their_place():
    scale = {**SCALE, "papers": {"other": {"training": {"steps": 5}, "seeds": 1, "models": {"RN50": "fast"}}}}
    seen = for_paper(scale, "other")
    assert seen["training"] == {**SCALE["training"], "steps": 5} and seen["seeds"] == 1
    assert seen["models"] == {**SCALE["models"], "RN50": "fast"}
    assert {key for key in SCALE if seen[key] != SCALE[key]} == {"training", "seeds", "models"} and "papers" not in seen
    assert for_paper(scale, "mobileclip") == SCALE == for_paper(SCALE, "other")


def test_networks_are_those_of_the_rows_if_the_table_has_a_column_of_them():
    rows = [{"name": str(i), "network": name} for i, name in enumerate(("RN50", "ViT-B/16:MCt-2", "RN50"))]
    table = {"columns": ["Latency txt (ms)", "IN-val"], "rows": [*rows, {"name": "published only"}]}
    assert networks(table, "latency") == ["RN50", "ViT-B/16:MCt-2"]
    assert networks(table, "params") == []
    assert evaluation_columns(table) == ["IN-val"]
    assert [slug(name) for name in ("ViT-B/16:MCt-2", "open_clip:RN50")] == ["ViT-B-16+MCt-2", "open_clip+RN50"]


def test_nearest_ignores_case_and_keeps_silent_when_nothing_is_like_it():
    assert nearest("TABLE2", ["table2", "figure6a"]) == "; did you mean 'table2'?"
    assert nearest("xyz", ["table2"]) == "" and nearest("x", []) == ""


def test_planning_imports_no_heavy_package():
    code = "import sys, clipdr.experiments, clipdr.config, clipdr.fingerprint; print(*sys.modules)"
    env = {"PYTHONPATH": SOURCES}
    loaded = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert not {"torch", "open_clip", "timm", "pandas", "numpy", "snakemake"} & set(loaded.split())
