"""Mixtures of experts in the run language: what a row may say of them, and where their weights may start."""

import pytest
from refusals import edited, refused
from shipped import REPO, SHIPPED

from clipdr import config
from clipdr.artifacts import all_of
from clipdr.checks import check
from clipdr.experiments import at_scale, for_paper, work
from clipdr.model_files import load_models
from clipdr.schema import defaults, load, load_yaml, validate
from clipdr.words import columns_of

SEEN, MODELS, OBJECTIVES = for_paper(SHIPPED, "clipup"), config.load_models(REPO), config.load_objectives(REPO)
SEEN["mixture"] = defaults("mixture") | SEEN.get("mixture", {})
SUITE = config.with_suites(SEEN, REPO, "x")[1]
COMMON = load(REPO, "config/experiments/clipup/towers.yaml", "experiment")["settings"]


def runs(*rows: dict, scale: dict = SEEN) -> dict:
    """Row -> run of the first seed, of a table with a dense row and others."""
    named = [{"name": f"row {number}", "settings": settings} for number, settings in enumerate(rows)]
    dense = {"name": "dense", "settings": {"recipe": "dense"}}
    experiment = {"title": "t", "source": "s", "seeds": [0], "columns": ["IN-val"], "settings": COMMON}
    experiment |= {"rows": [dense, *named]}
    validate(experiment, "experiment", "experiment")
    seen = config.with_suites(scale, REPO, "scale")[0]
    return {run.row: run for run in check(experiment, seen, MODELS, SUITE, OBJECTIVES, "experiment", "scale")}


def test_a_mixture_changes_the_model_and_no_other_row():
    dense, scratch, upcycled = runs({"mixture": {}}, {"init": {"row": "dense"}, "mixture": {"experts": 4}}).values()
    towers = {
        key: cfg.pop("moe")
        for key in ("vision_cfg", "text_cfg")
        for cfg in [scratch.settings["model"]["config"]["model_cfg"][key]]
    }
    assert scratch.settings["model"] == dense.settings["model"] and "mixture" not in dense.settings
    assert towers["vision_cfg"] == towers["text_cfg"] == {
        **{"experts": 8, "top_k": 2, "capacity": 2.0, "renormalise": True, "priority": "order"},
        **{"first": 1, "every": 2},
    }  # fmt: skip
    assert scratch.settings["mixture"] == {"balance": 0.01, "z": 0.001, "entropy": 0.0}
    assert upcycled.settings["init"] == {"run": dense.name} and upcycled.artifact.inputs["init"] == dense.artifact
    assert "_init_4experts2_seed0-" in upcycled.name and "_8experts2_seed0-" in scratch.name


def test_what_is_said_and_what_is_left_out_is_the_same_run():
    said = {
        "init": {"row": "dense", "noise": 0, "optimizer": False},
        "mixture": {"top_k": 2, "towers": ["image", "text"]},
    }
    _, first, second = runs({"init": {"row": "dense"}, "mixture": {}}, said).values()
    assert first.name == second.name
    other = {**SEEN, "mixture": SEEN["mixture"] | {"experts": 3}}
    assert runs({"mixture": {}}, scale=other)["row 0"].name != runs({"mixture": {}})["row 0"].name
    assert runs(scale=other)["dense"].name == runs()["dense"].name


def test_weights_may_start_at_a_checkpoint_of_the_scale():
    weights = {"model": "CLIP-KD:ViT-B/16", "pretrained": "openai"}
    entries = {
        "published": {"weights": [weights]},
        "of the zoo": {"zoo": "single"},
        "trained": {"settings": {**COMMON, "recipe": "dense"}},
        "two": {"weights": [weights, weights]},
    }
    scale = {**SEEN, "checkpoints": entries}
    found = runs({"init": {"checkpoint": "published"}, "mixture": {}}, {"init": {"checkpoint": "trained"}}, scale=scale)
    published, trained = (found[f"row {number}"].artifact.inputs["init"] for number in range(2))
    assert published.stage == "zoo" and published.settings == weights
    assert trained == found["dense"].artifact
    for name, says in [
        ("two", "'two' stands for 2 models together; name one model"),
        ("of the zoo", "init: starts from a run of model 'mini-teacher-resnet', but is 'mini-vit-clipup'"),
        ("publisht", "init.checkpoint 'publisht' is not defined; did you mean 'published'?"),
    ]:
        assert says in refused(runs, {"init": {"checkpoint": name}}, scale=scale)


@pytest.mark.parametrize(
    "settings, says",
    [
        ({"mixture": {"experts": 1}}, "experiment: row 'row 0': mixture: experts is 1; it must be at least 2"),
        ({"mixture": {"expert": 4}}, "mixture: expert is not a key; did you mean 'experts'?"),
        ({"mixture": {"capacity": 0}}, "mixture: capacity is 0; it must be more than 0"),
        ({"mixture": {"top_k": 9}}, "row 'row 0': mixture.top_k is 9; it must be between 1 and experts (8)"),
        ({"mixture": {"top_k": 1}}, "mixture: with top_k 1 renormalised gates are all 1"),
        ({"init": {"noise": 0.1}}, "row 'row 0': init needs row or checkpoint; give one of the two"),
        ({"init": {"row": "dense", "noise": 0.1}}, "init: noise and renewed are for experts that are copied"),
        (
            {"init": {"row": "row 1", "optimizer": True}},
            "init.optimizer: the run that this one starts from does not keep",
        ),
        (
            {"init": {"row": "row 2"}, "mixture": {"experts": 4}},
            "init: starts from a mixture of other experts; name a row",
        ),
        ({"init": {"row": "row 2"}}, "init: starts from a mixture of other experts; name a row of the same model"),
    ],
)
def test_mixtures_that_make_no_sense(settings, says):
    assert says in refused(runs, settings, {}, {"mixture": {}})


def test_a_mixture_may_go_on_as_it_is():
    found = runs({"mixture": {}}, {"init": {"row": "row 0"}, "mixture": {}})
    assert found["row 1"].artifact.inputs["init"] == found["row 0"].artifact


def test_a_model_of_the_configuration_may_be_a_mixture(tmp_path):
    folder = tmp_path / "config/models"
    folder.mkdir(parents=True)
    (tmp_path / "workflow").symlink_to(REPO / "workflow")
    text = (REPO / "config/models/clipup.yaml").read_text()
    (folder / "clipup.yaml").write_text(text)
    models = load_models(tmp_path)
    assert models["CLIP-UP:B/16:upcycled"]["model_cfg"]["text_cfg"]["moe"]["experts"] == 8
    assert "moe" not in models["CLIP-UP:B/16"]["model_cfg"]["vision_cfg"]
    (folder / "clipup.yaml").write_text(text.replace("mixture: {}", "mixture: {top_k: 9}", 1))
    assert "clipup.yaml: models.CLIP-UP:B/32:upcycled.mixture.top_k is 9" in refused(load_models, tmp_path)


def test_work_is_counted_once_for_a_row_and_where_a_table_shows_it():
    headline = load_yaml(REPO / "config/experiments/clipup/headline.yaml")
    planned = config.load_experiments(REPO, config.load_config(REPO, {"experiments": ["clipup-headline"]}))[0]
    one = planned["clipup-headline"]
    assert [row["row"] for row in one.work.settings["rows"]] == [
        "dense, before", "dense, continued", "mixture from scratch", "upcycled"
    ]  # fmt: skip
    assert one.work.path in all_of([one.work]) and planned["clipup-losses"].work is None
    assert planned["clipup-cost"].work.settings["rows"][0]["texts"] == 1
    assert work("x", {**headline, "columns": ["IN-val"]}, one.runs) is None
    assert at_scale(headline, one.scale)["columns"] == [
        "IN-val",
        "Flickr30k T→I",
        "Flickr30k I→T",
        "GMACs",
        "training GMACs",
    ]


def test_settings_of_a_start_and_of_a_mixture_are_columns():
    settings = {"init": {"row": "dense", "noise": 0.1}, "mixture": {"experts": 4}, "recipe": "x"}
    assert columns_of(settings) == {"recipe": "x", "init": "dense", "noise": 0.1, "experts": 4}
    assert columns_of({"init": {"checkpoint": "B/16"}}) == {"init": "B/16"}


@pytest.mark.parametrize("change", [("balance", -1), ("z", "much"), ("towers", ["images"]), ("every", 0)])
def test_defaults_are_what_the_schema_allows(change):
    validate(defaults("mixture"), "mixture", "x")
    assert f"x: {change[0]}" in refused(validate, edited(defaults("mixture"), *change), "mixture", "x")
