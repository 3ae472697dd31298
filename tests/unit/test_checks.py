"""What the files of config/ must say together: the first contradiction is one line."""

import pytest
from refusals import edited, refused
from shipped import EXPERIMENT, MEMBERS, MINI, MODEL, MODELS, SCALE, TABLE2, check

from clipdr.schema import validate
from clipdr.words import COST, SIZE


def test_an_unknown_published_value_may_be_null():
    experiment = edited(EXPERIMENT, "rows//0//published", {"Coarse": 1.0, "IN-val": 44.5})
    experiment["rows"][0]["published"]["Coarse"] = None
    validate(experiment, "experiment", "x")
    check(experiment)


@pytest.mark.parametrize(
    ("key", "word", "meant"),
    [
        ("model", "ViT-B-16:Base", "ViT-B/16:Base"),
        ("data.dataset", "DataComp-12", "DataComp-12M"),
        ("data.augmentation", "srtong", "strong"),
        ("objective.teachers", "ensembel", "ensemble"),
    ],
)
def test_every_word_of_an_experiment_is_defined_by_the_scale(key, word, meant):
    message = refused(check, edited(EXPERIMENT, f"rows//4//settings//{key.replace('.', '//')}", word))
    expected = f"{TABLE2} with {MINI}: row '+ ensemble teacher': {key} {word!r} is not defined; did you mean {meant!r}?"
    assert message.startswith(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"objective": {"lambda": 0}}, "objective: teachers is not read beside what else stands there; take it out"),
        ({"objective": {"lambda": 0.0}}, "objective: teachers is not read"),
        ({"objective": {"lambda": 2}}, "objective: lambda is 2; it must be at most 1"),
        ({"objective": {"lambda": -0.1}}, "objective: lambda is -0.1; it must be at least 0"),
        ({"objective": {"lambda": "all"}}, "objective: lambda is the text 'all'; it must be a number"),
        ({"objective": {"lamda": 1}}, "objective: lamda is not a key; did you mean 'lambda'?"),
        ({"objective": {"name": "clip", "lambda": 1}}, "objective: lambda is not a key"),
        ({"training": {"stepz": 5}}, "training: stepz is not a key; did you mean 'steps'?"),
        ({"training": {"steps": 5.0}}, "training: steps is 5.0; it must be a whole number"),
        ({"training": {"steps": 1}}, "training.warmup is 60; it must be at most steps (1)"),
        ({"training": {"min_lr": 0.01}}, "training.min_lr is 0.01; it must be at most lr (0.002)"),
    ],
)
def test_merged_settings_of_a_row_keep_to_the_schemas_of_objective_and_training(settings, expected):
    """Of the row with the ensemble, whose objective is reinforced with lambda 1."""
    experiment = edited(EXPERIMENT, "comparisons", None)
    own = experiment["rows"][4]["settings"]
    for part, changes in settings.items():
        own[part] = {**own.get(part, {}), **changes}
    validate(experiment, "experiment", "x")
    assert refused(check, experiment).startswith(f"{TABLE2}: row '+ ensemble teacher': {expected}")


def test_distillation_needs_teachers_and_an_objective_a_name_that_is_known():
    missing = edited(EXPERIMENT, "rows//4//settings//objective//teachers", None)
    assert "row '+ ensemble teacher': objective: teachers is missing; add it" in refused(check, missing)
    message = refused(check, edited(EXPERIMENT, "settings//objective//name", "reinforcd"))
    assert "row 'real captions only': objective.name 'reinforcd' is not defined; did you mean 'reinforced'?" in message
    unnamed = refused(check, edited(EXPERIMENT, "settings//objective", {}))
    assert "row 'real captions only': settings.objective.name is missing" in unnamed


def test_a_training_word_of_a_row_reaches_its_runs_alone():
    runs = check(edited(EXPERIMENT, "rows//4//settings//training", {"lr": 0.001}))
    assert {run.row for run in runs if run.settings["training"]["lr"] == 0.001} == {"+ ensemble teacher"}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("columns//0", "IN_val", f"columns: 'IN_val' is not in evaluation.columns of {MINI}; did you mean"),
        ("rows//0//published//Flickr", 1.0, "rows[0].published: 'Flickr' is not in columns; did you mean 'Flickr30k'?"),
        (
            "comparisons//0//than",
            "real caption only",
            "comparisons[0].than: 'real caption only' is not in rows; did you",
        ),
        ("comparisons//0//column", "IN", "comparisons[0].column: 'IN' is not in columns"),
        ("rows//1//name", "+ Synthetic", "comparisons[0].better: '+ synthetic captions' is not in rows; did you mean"),
        ("rows//1//name", "λ = 0.7", "rows: the name 'λ = 0.7' stands twice; rename one"),
    ],
)
def test_columns_and_rows_that_are_used_exist_and_have_one_name(path, value, expected):
    assert refused(check, edited(EXPERIMENT, path, value)).startswith(f"{TABLE2}: {expected}")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "columns//2",
            "Latency img",
            "columns: 'Latency img' is not in the network columns; did you mean 'Latency img (ms",
        ),
        ("columns//2", "FLOPs", "columns: 'FLOPs' would be empty; give a row settings or a published value"),
        ("columns//2", "Params img (M)", None),
        ("rows//0//network", "ViT-X", None),  # may be open_clip's
        ("rows//0//network", "open_clip:RN50", None),
        (
            "rows//0//network",
            "ViT-B/16:MCt-3",
            "rows[0].network: 'ViT-B/16:MCt-3' is not in config/models; did you mean",
        ),
        ("rows//1//published//Accuracy", 100.5, "rows[1].published.Accuracy is 100.5; it must be at most 100 percent"),
        ("rows//1//published//Latency img (ms)", 100.5, None),
        ("rows//1//labels", {"Accuracy": "x"}, "rows[1].labels.Accuracy: the table has such a column; rename"),
        ("rows//1//labels", {"dataset": "x"}, None),
        ("latency_device", None, "latency_device is missing; say on what device"),
        ("rows//1//settings", {}, "columns: 'Accuracy' is not in evaluation.columns of config/scales/mini.yaml"),
        ("comparisons//0//than", "published", "comparisons[0].than: 'published' is not in the rows with network"),
        ("comparisons//0//column", "Accuracy", "comparisons[0].better: 'fast' is not in the rows with settings"),
    ],
)
def test_network_columns_are_known_to_every_scale(path, value, expected):
    """A table without trained rows, whose accuracy no scale has to define, and what may be changed in it."""
    experiment = {
        **{"title": "t", "source": "s", "latency_device": "a telephone"},
        "columns": ["Latency img (ms)", "Accuracy", "Latency txt (ms)"],
        "rows": [
            {"name": "fast", "network": "ViT-B/16:MCt-2", "published": {"Accuracy": 50.0}},
            {"name": "slow", "network": "RN50", "published": {"Latency img (ms)": 2.0, "Accuracy": None}},
            {"name": "published", "published": {"Latency img (ms)": 3.0}},
        ],
        "comparisons": [{"better": "fast", "than": "slow", "column": "Latency img (ms)", "claim": "c"}],
    }
    models = {**MODELS, "ViT-B/16:MCt-2": MODEL}
    check(experiment, models=models)
    changed = edited(experiment, path, value)
    validate(changed, "experiment", "x")
    if expected is None:
        check(changed, models=models)
    else:
        assert refused(check, changed, SCALE, models).startswith(f"{TABLE2}: {expected}")


def test_trained_rows_need_seeds_and_a_column_to_score():
    assert "seeds is missing" in refused(check, edited(EXPERIMENT, "seeds", None))
    rows = [{**row, "network": "RN50", "published": {}} for row in EXPERIMENT["rows"]]
    experiment = {**EXPERIMENT, "columns": ["Params img (M)"], "rows": rows, "comparisons": []}
    assert "columns has no accuracy" in refused(check, experiment)


@pytest.mark.parametrize(
    ("path", "value"),
    [("cost", {"steps": 2, "rounds": 3}), ("columns", [COST]), ("columns", ["IN-val", COST])],
)
def test_costs_are_a_table_of_their_own(path, value):
    experiment = {**EXPERIMENT, "comparisons": [], "rows": [{**row, "published": {}} for row in EXPERIMENT["rows"]]}
    assert f"cost and columns: [{COST}] go together" in refused(check, {**experiment, path: value})
    assert check({**experiment, "columns": [COST], "cost": {"steps": 2, "rounds": 3}})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "rows//1//stores//on",
            "plane",
            "rows[1].stores.on: 'plane' is not in the rows without reinforcements; did you mean 'plain'?",
        ),
        (
            "rows//1//stores//on",
            "reinforced",
            "rows[1].stores.on: 'reinforced' is not in the rows without reinforcements",
        ),
        ("rows//0//stores", None, "rows[0]: rows of a table with storage, and no others, have stores"),
        ("storage", None, f"storage and columns: [{SIZE}] go together"),
        ("columns", ["Params img (M)", SIZE], "columns: 'Params img (M)' would be empty"),
    ],
)
def test_a_table_of_storage_says_what_its_rows_store(path, value, message):
    rows = [{"name": "plain", "stores": {"samples": 9}, "published": {SIZE: 140}}]
    rows += [{"name": "reinforced", "stores": {"samples": 9, "on": "plain", "views": 2}}]
    asked = {"dataset": "DataComp-12M", "augmentation": "strong", "widths": [768]}
    experiment = {"title": "x", "source": "y", "columns": [SIZE], "storage": asked, "rows": rows}
    validate(experiment, "experiment", "x")
    assert check(experiment) == []
    assert message in refused(check, edited(experiment, path, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "models//ViT-B/16:Base",
            "mini-studnt",
            "models.ViT-B/16:Base: 'mini-studnt' is not in config/models; did you mean",
        ),
        (
            "zoo//teachers//efficientnet//model",
            "mini-teacher",
            "zoo.teachers.efficientnet.model: 'mini-teacher' is not in config/models; did",
        ),
        (
            "zoo//captioner//model",
            "captioner",
            "zoo.captioner.model: 'captioner' is not in config/models; did you mean",
        ),
        ("teachers//ensemble//1", "resnett", "teachers.ensemble: 'resnett' is not in zoo.teachers; did you mean"),
        (
            "evaluation//columns//Coarse//0",
            "emoji/corse",
            "evaluation.columns.Coarse: 'emoji/corse' is not in config/suites",
        ),
        ("pool//required_styles//0", "b-and-w", "pool.required_styles: 'b-and-w' is not in pool.styles"),
        ("pool//styles//sketch", "x", "pool.styles: 'sketch' is not in config/suites/emoji.yaml"),
        ("pool//styles//monochrome", "noto", "pool.styles.monochrome is 'noto', a training vendor"),
        ("pool//held_out//dev", SCALE["pool"]["min_vendors"], "pool.min_vendors is"),
        ("pool//min_vendors", len(SCALE["pool"]["vendors"]) + 1, "pool.min_vendors is"),
        ("training//warmup", SCALE["training"]["steps"] + 1, "training.warmup is"),
        (
            "augmentations//strong//crop_scale",
            [1.0, 0.5],
            "augmentations.strong.crop_scale is [1.0, 0.5]; write the smaller",
        ),
        ("zoo//augmentation//crop_scale", [1.0, 0.5], "zoo.augmentation.crop_scale is [1.0, 0.5]; write the smaller"),
        ("training//min_lr", 0.01, "training.min_lr is 0.01; it must be at most lr (0.002)"),
        ("zoo//teachers//captioner", MEMBERS[0], "zoo.teachers.captioner: a teacher cannot have this name; rename it"),
        ("zoo//teachers//tokenizer", MEMBERS[0], "zoo.teachers.tokenizer: a teacher cannot have this name"),
        # 280 concepts, of seven vendors three held out
        (
            "datasets//DataComp-12M//size",
            1121,
            "datasets.DataComp-12M.size is 1121; 280 concepts by 4 vendors make at most",
        ),
        ("datasets//other", {"name": "12M", "size": 9, "seed": 1}, "datasets: the name '12M' stands twice"),
        (
            "resources",
            {"pool": {"processes_per_node": 2}},
            "resources.pool.processes_per_node: only train has processes",
        ),
    ],
)
def test_a_scale_must_agree_with_itself_the_models_and_the_suite(path, value, expected):
    message = refused(check, EXPERIMENT, edited(SCALE, path, value))
    assert message.startswith(f"{MINI}: {expected}")


def test_limits_of_held_out_vendors_are_inclusive_where_they_should_be():
    """Held out < min_vendors <= number of vendors: one drawing is left to train on. Finishes count once."""
    vendors = len(SCALE["pool"]["vendors"]) - len(SCALE["pool"]["finishes"])
    pool = {**SCALE["pool"], "min_vendors": vendors, "held_out": {"val": vendors - 2, "dev": 1}}
    check(EXPERIMENT, edited({**SCALE, "pool": pool}, "datasets//DataComp-12M//size", 280))
    check(EXPERIMENT, edited(SCALE, "datasets//DataComp-12M//size", 1120))


@pytest.mark.parametrize(
    "path", ["zoo//teachers", "teachers", "datasets", "augmentations", "models", "evaluation//columns"]
)
def test_a_misspelt_free_name_is_noticed_where_it_is_used(path):
    """Names that the user chooses are in no schema: the word that is then undefined is named with the misspelt one."""
    names = SCALE
    for key in path.split("//"):
        names = names[key]
    used = {"models": [EXPERIMENT["settings"]["model"]]}  # by Table 2
    used |= {"teachers": ["single", "ensemble"], "augmentations": ["light", "strong"]}
    used |= {"evaluation//columns": EXPERIMENT["columns"]}
    for name in used.get(path, names):
        wrong = name + name[-1]
        renamed = {wrong if key == name else key: value for key, value in names.items()}
        message = refused(check, EXPERIMENT, edited(SCALE, path, renamed))
        assert repr(name) in message and f"did you mean {wrong!r}?" in message


@pytest.mark.parametrize(("processes", "fits"), [(1, True), (2, True), (3, False), (4, True)])
def test_every_node_has_as_many_processes_of_a_training(processes, fits):
    scale = edited(SCALE, "resources", {"train": {"processes_per_node": 2}})
    scale = edited(edited(scale, "training//batch_size", 60), "training//processes", processes)
    if fits:
        assert check(scale=scale)
    else:
        says = f"{MINI}: training.processes is 3; it must be a multiple of resources.train.processes_per_node (2)"
        assert refused(check, EXPERIMENT, scale).startswith(says)
