"""A typing error in config/ is one line that names the file, the key and the fix."""

import copy
import random
import shutil
from pathlib import Path

import pytest
import yaml

from clipdr import config
from clipdr.errors import UserError

REPO = Path(__file__).parents[2]
KINDS = ("config", "scale", "experiment", "suite")
SCALE = config.load_scale(REPO, "mini")
EXPERIMENT = config.load_experiment(REPO, "table2")
SUITE = config.load_suite(REPO, "emoji")
MODELS = {
    name: {"model_cfg": {}}
    for name in ("mini-student", "mini-teacher-resnet", "mini-teacher-efficientnet", "mini-captioner")
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with its own copy of everything that is read."""
    shutil.copytree(REPO / "workflow/schemas", tmp_path / "workflow/schemas")
    for folder in ("scales", "experiments", "suites"):
        shutil.copytree(REPO / "config" / folder, tmp_path / "config" / folder)
    shutil.copy(REPO / "config/config.yaml", tmp_path / "config/config.yaml")
    return tmp_path


def refused(function, *args) -> str:
    """The message of the UserError that the call raises, which is one line."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def schema(kind: str) -> dict:
    return yaml.safe_load((REPO / f"workflow/schemas/{kind}.schema.yaml").read_text())


def edited(data: dict, path: str, value: object) -> dict:
    """A copy of `data` with the value at a path such as pool/styles/x; None removes it."""
    data = copy.deepcopy(data)
    *parents, last = path.split("//")
    inner = data
    for key in parents:
        inner = inner[int(key) if isinstance(inner, list) else key]
    last = int(last) if isinstance(inner, list) else last
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return data


def check(experiment: dict = EXPERIMENT, scale: dict = SCALE, models: dict = MODELS, suite: dict = SUITE) -> None:
    config.check(experiment, scale, models, suite, "config/experiments/table2.yaml", "config/scales/mini.yaml")


# ---- the files that are there


def test_shipped_configuration_is_valid_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = config.load_config(REPO)
    scale = config.load_scale(REPO, chosen["scale"])
    suite = config.load_suite(REPO, scale["evaluation"]["suite"])
    for name in chosen["experiments"]:
        check(config.load_experiment(REPO, name), scale, MODELS, suite)


def test_table2_holds_the_published_values():
    """Table 2 of arXiv 2311.17049, typed again: (λ, IN-val, Flickr30k)."""
    cells = [
        (r["settings"]["lambda"], r["published"]["IN-val"], r["published"]["Flickr30k"]) for r in EXPERIMENT["rows"]
    ]
    assert cells == [
        (0, 44.5, 41.8),
        (0, 51.9, 69.3),
        (1, 54.5, 66.1),
        (1, 59.3, 70.5),
        (1, 61.7, 72.0),
        (0.7, 60.7, 74.2),
    ]


def test_comparisons_of_table2_hold_in_the_published_values():
    published = {row["name"]: row["published"] for row in EXPERIMENT["rows"]}
    for claim in EXPERIMENT["comparisons"]:
        assert published[claim["better"]][claim["column"]] > published[claim["than"]][claim["column"]], claim["claim"]


# ---- schemas


@pytest.mark.parametrize("kind", KINDS)
def test_schema_is_valid_documents_every_key_and_allows_no_others(kind):
    import jsonschema

    jsonschema.Draft202012Validator.check_schema(schema(kind))

    def walk(node: object, path: str) -> None:
        if isinstance(node, list):
            for inner in node:
                walk(inner, path)
        if not isinstance(node, dict):
            return
        if node.get("type") == "object":
            assert node.get("additionalProperties") is False, f"{path} accepts unknown keys"
            assert set(node.get("required", [])) <= set(node.get("properties", {})), path
        for key, inner in node.items():
            if key in ("properties", "patternProperties"):
                for name, documented in inner.items():
                    assert len(documented.get("description", "")) > 5, f"{path}.{name} has no description"
                    walk(documented, f"{path}.{name}")
            else:
                walk(inner, f"{path}.{key}")

    walk(schema(kind), kind)


def fixed_keys(data: object, node: dict, defs: dict, path: tuple = ()) -> list[tuple]:
    """Paths of the keys in `data` that the schema names (as against free names such as those of teachers)."""
    node = defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    found = []
    if isinstance(data, dict):
        pattern = next(iter(node.get("patternProperties", {}).values()), None)
        for key, inner in data.items():
            named = key in node.get("properties", {})
            found += [(*path, key)] if named else []
            found += fixed_keys(inner, node["properties"][key] if named else pattern, defs, (*path, key))
    elif isinstance(data, list):
        for i, inner in enumerate(data):
            found += fixed_keys(inner, node["items"], defs, (*path, i))
    return found


def misspelt(word: str, rng: random.Random, taken: set[str]) -> str:
    """`word` with one letter doubled, replaced, dropped or swapped with its neighbour."""
    while True:
        i = rng.randrange(len(word))
        options = [word[:i] + word[i] + word[i:], word[:i] + "z" + word[i + 1 :], word[:i] + word[i + 1 :]]
        options += [word[:i] + word[i + 1] + word[i] + word[i + 2 :]] if i + 1 < len(word) else []
        wrong = rng.choice(options)
        if wrong and wrong not in taken and (len(word) > 3 or len(wrong) > len(word)):
            return wrong


@pytest.mark.parametrize(("kind", "data"), [("scale", SCALE), ("experiment", EXPERIMENT), ("suite", SUITE)])
@pytest.mark.parametrize("seed", range(3))
def test_every_misspelt_key_is_named_with_the_key_that_was_meant(kind, data, seed):
    rules, rng = schema(kind), random.Random(seed)
    paths = fixed_keys(data, rules, rules.get("$defs", {}))
    assert len(paths) > 20
    for path in paths:
        broken = copy.deepcopy(data)
        inner = broken
        for key in path[:-1]:
            inner = inner[key]
        wrong = misspelt(path[-1], rng, set(inner))
        inner[wrong] = inner.pop(path[-1])
        message = refused(config.validate, broken, kind, "config/x.yaml")
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in (*path[:-1], wrong))[1:]
        assert message.startswith(f"config/x.yaml: {dotted} is not a key; did you mean {path[-1]!r}?"), message


def test_required_keys_are_the_ones_of_the_shipped_scale():
    """A reader of a validated scale may index without defaults, but for `seeds` and the extras of the zoo."""
    rules = schema("scale")
    extras = set(rules["$defs"]["member"]["properties"]) - {"model", "steps", "batch_size", "lr"}
    for path in fixed_keys(SCALE, rules, rules["$defs"]):
        broken = edited(SCALE, "//".join(map(str, path)), None)
        member = path[:2] in [("zoo", "teachers"), ("zoo", "captioner")] and "augmentation" not in path[:-1]
        if path == ("seeds",) or path[-1] == "ops" or (member and path[-1] in extras):
            config.validate(broken, "scale", "x")
        else:
            assert f"{'.'.join(map(str, path))} is missing" in refused(config.validate, broken, "scale", "x")


def test_optional_keys_of_the_zoo_are_accepted():
    augmentation = {"views": 4, "crop_scale": [0.5, 1.0], "num_ops": 1, "magnitude": 3, "seed": 2}
    extra = {"weight_decay": 0.1, "seed": 2, "augmentation": augmentation}
    for path in ("zoo//captioner", "zoo//teachers//resnet"):
        entry = {"model": "mini-student", "steps": 1, "batch_size": 2, "lr": 0.1, **extra}
        config.validate(edited(SCALE, path, entry), "scale", "x")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("training//lr", "fast", "training.lr is the text 'fast'; it must be a number"),
        ("training//lr", 0, "training.lr is 0; it must be more than 0"),
        ("training//steps", 300.0, "training.steps is 300.0; it must be a whole number"),
        ("training//steps", True, "training.steps is True; it must be a whole number"),
        ("training//betas", [0.9, 1], "training.betas[1] is 1; it must be less than 1"),
        ("training//betas", [0.9], "training.betas has length 1; it must be at least 2"),
        ("captions//top_p", 1.5, "captions.top_p is 1.5; it must be at most 1"),
        ("pool//vendors", "noto", "pool.vendors is the text 'noto'; it must be a list"),
        ("pool//vendors", ["noto", "noto"], "pool.vendors has an entry twice"),
        ("pool//name", "../emoji", "pool.name is '../emoji'; only letters"),
        ("augmentations//very strong", {}, "augmentations.very strong is no name; only letters"),
        ("evaluation//columns//IN-val", [], "evaluation.columns.IN-val has length 0"),
    ],
)
def test_wrong_values_are_named_with_their_limits(path, value, expected):
    message = refused(config.validate, edited(SCALE, path, value), "scale", "config/scales/mini.yaml")
    assert message.startswith(f"config/scales/mini.yaml: {expected}")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("rows//0//settings//captions", [], "rows[0].settings.captions has length 0"),
        ("rows//0//settings//captions", ["reel"], "rows[0].settings.captions[0] is 'reel'; did you mean 'real'?"),
        ("rows//5//settings//lambda", 1.1, "rows[5].settings.lambda is 1.1; it must be at most 1"),
        ("rows//5//published//IN-val", "61", "rows[5].published.IN-val is the text '61'; it must be a number or null"),
        ("settings//batch_size", 8192, "settings.batch_size is not a key"),
    ],
)
def test_an_experiment_keeps_to_the_words_of_the_paper(path, value, expected):
    message = refused(config.validate, edited(EXPERIMENT, path, value), "experiment", "config/experiments/table2.yaml")
    assert message.startswith(f"config/experiments/table2.yaml: {expected}")


def test_an_unknown_published_value_may_be_null():
    experiment = yaml.safe_load(yaml.safe_dump(EXPERIMENT))
    experiment["rows"][0]["published"]["Coarse"] = None
    config.validate(experiment, "experiment", "x")
    check(experiment)


# ---- files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: the key 'c' stands twice; keep one"),
        ("a: [1, 2\nb: 3\n", "line 2: this is not YAML"),
        ("a: 1\n12: 1\n", "line 2: the key 12 is no text; put it in quotes"),
        ("a: 1\non: 1\n", "line 2: the key True is no text"),
        ("a: .nan\n", "line 1: .nan is no finite number"),
        ("a: -.inf\n", "line 1: -.inf is no finite number"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "line 2: merge keys (<<) are not read"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: could not determine a constructor"),
        ("", "holds empty, not keys"),
        ("- a\n", "holds a list, not keys"),
        ("a: \x01\n", "this is not YAML"),
    ],
)
def test_yaml_that_would_be_misread_is_refused_with_its_line(tmp_path, text, expected):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    message = refused(config.load_yaml, file, "config/x.yaml")
    assert message.startswith("config/x.yaml") and expected in message


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    assert "cannot be read as UTF-8" in refused(config.load_yaml, tmp_path / "x.yaml")


def test_numbers_are_what_people_expect(tmp_path):
    (tmp_path / "x.yaml").write_text("{a: 1e-3, b: 1.0e-3, c: 2E5, d: 3, e: e-3, f: '1e-3', g: .5e1, h: λ}")
    expected = {"a": 0.001, "b": 0.001, "c": 200000.0, "d": 3, "e": "e-3", "f": "1e-3", "g": 5.0, "h": "λ"}
    loaded = config.load_yaml(tmp_path / "x.yaml")
    assert loaded == expected and isinstance(loaded["c"], float)


def test_a_missing_file_names_the_nearest(root):
    assert refused(config.load_experiment, root, "tabel2") == (
        "config/experiments/tabel2.yaml does not exist; did you mean table2? (known: table2)"
    )
    assert "config/scales/mni.yaml does not exist; did you mean mini?" in refused(config.load_scale, root, "mni")
    assert "does not exist" in refused(config.load_suite, root, "emojy")


def test_errors_name_the_file_relative_to_the_repository(root):
    file = root / "config/scales/mini.yaml"
    file.write_text(file.read_text().replace("  vendors:", "  vendorz:"))
    message = refused(config.load_scale, root, "mini")
    assert message.startswith("config/scales/mini.yaml: pool.vendorz is not a key; did you mean 'vendors'?")


def test_a_suite_names_each_task_once(root):
    file = root / "config/suites/emoji.yaml"
    file.write_text(file.read_text().replace("emoji/coarse", "emoji/val"))
    assert "the name 'emoji/val' stands twice" in refused(config.load_suite, root, "emoji")


def test_models_are_read_by_file_name(root):
    folder = root / "config/models"
    assert config.load_models(root) == {}
    folder.mkdir()
    (folder / "a.b.json").write_text('{"model_cfg": {"embed_dim": 64}}')
    assert config.load_models(root) == {"a.b": {"model_cfg": {"embed_dim": 64}}}
    (folder / "c.json").write_text('{"model_cfg": \n')
    assert "config/models/c.json line 2" in refused(config.load_models, root)
    (folder / "c.json").write_text("{}")
    assert "config/models/c.json: model_cfg is missing" in refused(config.load_models, root)


def test_overrides_replace_keys_of_the_config(root):
    assert config.load_config(root) == {"scale": "mini", "experiments": ["table2"]}
    assert config.load_config(root, {"scale": "ci"})["scale"] == "ci"
    assert config.load_config(root, {"experiments": "table2, table3b"})["experiments"] == ["table2", "table3b"]


def test_a_wrong_override_is_blamed_on_the_command_line_and_a_wrong_file_on_the_file(root):
    message = refused(config.load_config, root, {"scael": "mini"})
    assert message.startswith("--config: scael is not a key; did you mean 'scale'?")
    assert refused(config.load_config, root, {"scale": 3}).startswith("--config: scale is 3; it must be text")
    (root / "config/config.yaml").write_text("scale: mini\nexperiments: []\n")
    assert refused(config.load_config, root, {"scale": "ci"}).startswith("config/config.yaml: experiments has length 0")


# ---- what files must say together


def test_every_word_of_an_experiment_is_defined_by_the_scale():
    words = {"model": "ViT-B-16:Base", "dataset": "DataComp-12", "augmentation": "srtong", "teachers": "ensembel"}
    meant = {"model": "ViT-B/16:Base", "dataset": "DataComp-12M", "augmentation": "strong", "teachers": "ensemble"}
    for key, word in words.items():
        message = refused(check, edited(EXPERIMENT, f"rows//4//settings//{key}", word))
        assert message.startswith(
            "config/experiments/table2.yaml with config/scales/mini.yaml: row '+ ensemble teacher'"
        )
        assert f"{key} {word!r} is not defined; did you mean {meant[key]!r}?" in message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "columns//0",
            "IN_val",
            "columns: 'IN_val' is not in evaluation.columns of config/scales/mini.yaml; did you mean",
        ),
        ("rows//0//published//Flickr", 1.0, "rows[0].published: 'Flickr' is not in columns; did you mean 'Flickr30k'?"),
        (
            "comparisons//0//than",
            "real caption only",
            "comparisons[0].than: 'real caption only' is not in rows; did you",
        ),
        ("comparisons//0//column", "IN", "comparisons[0].column: 'IN' is not in columns"),
        ("rows//1//name", "λ = 0.7", "comparisons[0].better: '+ synthetic captions' is not in rows"),
    ],
)
def test_columns_and_rows_that_are_used_exist(path, value, expected):
    message = refused(check, edited(EXPERIMENT, path, value))
    assert message.startswith(f"config/experiments/table2.yaml: {expected}")


def test_row_names_are_unique():
    twice = {**EXPERIMENT, "rows": [EXPERIMENT["rows"][0]] * 2, "comparisons": []}
    assert "rows: the name 'real captions only' stands twice" in refused(check, twice)


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
        ("pool//held_out_vendors", SCALE["pool"]["min_vendors"], "pool.min_vendors is"),
        ("pool//min_vendors", len(SCALE["pool"]["vendors"]) + 1, "pool.min_vendors is"),
        ("training//warmup", SCALE["training"]["steps"] + 1, "training.warmup is"),
        (
            "augmentations//strong//crop_scale",
            [1.0, 0.5],
            "augmentations.strong.crop_scale is [1.0, 0.5]; write the smaller",
        ),
        ("zoo//augmentation//crop_scale", [1.0, 0.5], "zoo.augmentation.crop_scale is [1.0, 0.5]; write the smaller"),
        ("datasets//other", {"name": "12M", "size": 9, "seed": 1}, "datasets: the name '12M' stands twice"),
    ],
)
def test_a_scale_must_agree_with_itself_the_models_and_the_suite(path, value, expected):
    message = refused(check, EXPERIMENT, edited(SCALE, path, value))
    assert message.startswith(f"config/scales/mini.yaml: {expected}")


def test_limits_of_held_out_vendors_are_inclusive_where_they_should_be():
    """held_out_vendors < min_vendors <= number of vendors: one drawing is left to train on. Finishes count once."""
    vendors = len(SCALE["pool"]["vendors"]) - len(SCALE["pool"]["finishes"])
    pool = {**SCALE["pool"], "min_vendors": vendors, "held_out_vendors": vendors - 1}
    check(EXPERIMENT, {**SCALE, "pool": pool})


@pytest.mark.parametrize(
    "path", ["zoo//teachers", "teachers", "datasets", "augmentations", "models", "evaluation//columns"]
)
def test_a_misspelt_free_name_is_noticed_where_it_is_used(path):
    """Names that the user chooses are in no schema: the word that is then undefined is named with the misspelt one."""
    names = SCALE
    for key in path.split("//"):
        names = names[key]
    for name in names:
        wrong = name + name[-1]
        renamed = {wrong if key == name else key: value for key, value in names.items()}
        message = refused(check, EXPERIMENT, edited(SCALE, path, renamed))
        assert repr(name) in message and f"did you mean {wrong!r}?" in message
