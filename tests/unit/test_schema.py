"""A file of config/ that says something wrong is refused in one line that names the file, the key and the fix."""

import copy
import random
import shutil
from pathlib import Path

import pytest
from refusals import edited, refused

from clipdr.evaluate.kinds import schemas
from clipdr.schema import defaults, load, load_yaml, validate

REPO = Path(__file__).parents[2]
SCHEMAS = REPO / "workflow/schemas"
KINDS = [path.relative_to(SCHEMAS).as_posix().removesuffix(".schema.yaml") for path in SCHEMAS.rglob("*.schema.yaml")]
KINDS = sorted(set(KINDS) - {"models"}) + [f"tasks/{kind}" for kind in schemas()]  # open_clip knows keys of towers
# Objects whose keys have a schema elsewhere.
# Keys of these are those of other schemas, too.
FREE = (
    "settings.objective",
    "settings.training",
    "settings.mixture",
    "scale.mixture",
    "^.+$.mixture",
    "scale.training",
    "scale.recipes.^.+$",
    "scale.pool",
    "scale.zoo",
    "checkpoints.^.+$.settings",
)
FREE += ("suite.tasks.items",)
SCALE = load_yaml(REPO / "config/scales/mini.yaml")
EXPERIMENT = load_yaml(REPO / "config/experiments/mobileclip/table2.yaml")
TABLE1 = load_yaml(REPO / "config/experiments/mobileclip/table1.yaml")
PARTS = [(f"{part}s/{SCALE[part]['kind']}", SCALE[part]) for part in ("pool", "zoo") if "kind" in SCALE[part]]
FILES = [("scale", SCALE), ("training", SCALE["training"]), ("experiment", EXPERIMENT), ("experiment", TABLE1)]
FILES += PARTS


def schema(kind: str) -> dict:
    if kind.startswith("tasks/"):
        return schemas()[kind.removeprefix("tasks/")]
    return load_yaml(REPO / f"workflow/schemas/{kind}.schema.yaml")


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
        if node.get("type") == "object" and not path.endswith(FREE) and "scale.papers." not in path:
            assert node.get("additionalProperties") is False, f"{path} accepts unknown keys"
            assert set(node.get("required", [])) <= set(node.get("properties", {})), path
        for key, inner in node.items():
            if key in ("properties", "patternProperties"):
                for name, documented in inner.items():
                    assert len(documented.get("description", "")) > 5, f"{path}.{name} has no description"
                    walk(documented, f"{path}.{name}")
            elif key not in ("if", "then", "else"):  # conditions, which repeat keys
                walk(inner, f"{path}.{key}")

    walk(schema(kind), kind)


def fixed_keys(data: object, node: dict, defs: dict, path: tuple = ()) -> list[tuple]:
    """Paths of the keys in `data` that the schema names (as against free names such as those of teachers)."""
    node = defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
    found = []
    if isinstance(data, dict) and node.get("additionalProperties") is False:
        pattern = next(iter(node.get("patternProperties", {}).values()), {})
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


@pytest.mark.parametrize(("kind", "data"), FILES)
@pytest.mark.parametrize("seed", range(3))
def test_every_misspelt_key_is_named_with_the_key_that_was_meant(kind, data, seed):
    rules, rng = schema(kind), random.Random(seed)
    paths = fixed_keys(data, rules, rules.get("$defs", {}))
    assert len(paths) >= 8
    for path in paths:
        broken = copy.deepcopy(data)
        inner = broken
        for key in path[:-1]:
            inner = inner[key]
        wrong = misspelt(path[-1], rng, set(inner))
        inner[wrong] = inner.pop(path[-1])
        message = refused(validate, broken, kind, "config/x.yaml")
        dotted = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in (*path[:-1], wrong))[1:]
        assert message.startswith(f"config/x.yaml: {dotted} is not a key; did you mean {path[-1]!r}?"), message


@pytest.mark.parametrize(("kind", "data"), [("scale", SCALE), *PARTS])
def test_required_keys_are_the_ones_of_the_shipped_scale(kind, data):
    """A reader of a validated scale may index without defaults, but for a few keys and the extras of the zoo."""
    rules, extras = schema(kind), {"weight_decay", "augmentation", "seed"}
    for path in fixed_keys(data, rules, rules.get("$defs", {})):
        broken = edited(data, "//".join(map(str, path)), None)
        if path[0] == "checkpoints":  # of each exactly one key, see test_checkpoints.py
            continue
        member = {"teachers", "captioner"} & set(path[:-1]) and "augmentation" not in path[:-1]
        if (
            path[0] in ("experiments", "seeds", "recipes", "papers")
            or path[-1] in ("ops", "min_tokens", "redraws", "flip", "erase", "leave_out_chance")
            or (member and path[-1] in extras)
        ):
            validate(broken, kind, "x")
        else:
            assert f"{'.'.join(map(str, path))} is missing" in refused(validate, broken, kind, "x")


def test_optional_keys_of_the_zoo_are_accepted():
    augmentation = {"views": 4, "crop_scale": [0.5, 1.0], "num_ops": 1, "magnitude": 3, "seed": 2}
    extra = {"weight_decay": 0.1, "seed": 2, "augmentation": augmentation}
    for path in ("zoo//captioner", "zoo//teachers//resnet"):
        entry = {"model": "mini-student", "steps": 1, "batch_size": 2, "lr": 0.1, **extra}
        validate(edited(SCALE, path, entry), "scale", "x")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("lr", "fast", "lr is the text 'fast'; it must be a number"),
        ("lr", 0, "lr is 0; it must be more than 0"),
        ("steps", 300.0, "steps is 300.0; it must be a whole number"),
        ("steps", True, "steps is True; it must be a whole number"),
        ("betas", [0.9, 1], "betas[1] is 1; it must be less than 1"),
        ("betas", [0.9], "betas has length 1; it must be at least 2"),
        ("steps", None, "steps is missing; add it"),
    ],
)
def test_wrong_values_of_a_recipe_are_named_with_their_limits(path, value, expected):
    validate(SCALE["training"], "training", "x")
    message = refused(validate, edited(SCALE["training"], path, value), "training", "config/x.yaml: training")
    assert message.startswith(f"config/x.yaml: training: {expected}")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("captions//top_p", 1.5, "captions.top_p is 1.5; it must be at most 1"),
        ("teachers//single", "vit", "teachers.single is the text 'vit'; it must be a list"),
        ("teachers//single", ["vit", "vit"], "teachers.single has an entry twice"),
        ("evaluation//suite", "../emoji", "evaluation.suite is '../emoji'; only letters"),
        ("augmentations//very strong", {}, "augmentations.very strong is no name; only letters"),
        ("evaluation//batch_size", 0, "evaluation.batch_size is 0; it must be at least 1"),
        ("teachers//single", [], "teachers.single has length 0; it must be at least 1"),
    ],
)
def test_wrong_values_are_named_with_their_limits(path, value, expected):
    message = refused(validate, edited(SCALE, path, value), "scale", "config/scales/mini.yaml")
    assert message.startswith(f"config/scales/mini.yaml: {expected}")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("rows//0//settings//data//captions", [], "rows[0].settings.data.captions has length 0"),
        (
            "rows//0//settings//data//captions",
            ["reel"],
            "rows[0].settings.data.captions[0] is 'reel'; did you mean 'real'?",
        ),
        ("rows//0//settings//lambda", 1, "rows[0].settings.lambda is not a key"),
        ("rows//0//settings//init", "plain", "rows[0].settings.init is the text 'plain'; it must be keys with values"),
        ("rows//0//settings//init", {}, "rows[0].settings.init has length 0"),
        ("rows//5//published//IN-val", "61", "rows[5].published.IN-val is the text '61'; it must be a number or null"),
        ("settings//batch_size", 8192, "settings.batch_size is not a key"),
    ],
)
def test_an_experiment_keeps_to_the_words_of_the_paper(path, value, expected):
    message = refused(validate, edited(EXPERIMENT, path, value), "experiment", "config/x.yaml")
    assert message.startswith(f"config/x.yaml: {expected}")


REINFORCED = {"name": "reinforced", "lambda": 0.5, "teachers": "single"}


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("clip", {"name": "clip"}, None),
        ("clip", {"name": "clip", "lambda": 0}, "lambda is not a key"),
        ("reinforced", REINFORCED, None),
        ("reinforced", {"name": "reinforced", "lambda": 0}, None),
        ("reinforced", {**REINFORCED, "lambda": 1}, None),
        ("reinforced", {**REINFORCED, "lambda": 0}, "teachers is not read beside what else stands there; take it out"),
        ("reinforced", {**REINFORCED, "lambda": 0.0}, "teachers is not read"),
        ("reinforced", {**REINFORCED, "lambda": 2}, "lambda is 2; it must be at most 1"),
        ("reinforced", {**REINFORCED, "lambda": -0.1}, "lambda is -0.1; it must be at least 0"),
        ("reinforced", {"name": "reinforced", "lambda": 1}, "teachers is missing; add it"),
        ("reinforced", {"name": "reinforced"}, "lambda is missing; add it"),
        ("reinforced", {**REINFORCED, "teachers": ["single"]}, "teachers is a list; it must be text"),
        ("reinforced", {**REINFORCED, "lamda": 1}, "lamda is not a key; did you mean 'lambda'?"),
    ],
)
def test_an_objective_says_what_is_read_and_nothing_else(kind, data, expected):
    if expected is None:
        validate(data, f"objectives/{kind}", "x")
    else:
        assert refused(validate, data, f"objectives/{kind}", "x").startswith(f"x: {expected}")


@pytest.mark.parametrize("kind", ["training", "objectives/reinforced"])
def test_defaults_are_valid_values_of_keys_that_may_be_left_out(kind):
    rules, found = schema(kind), defaults(kind)
    assert not found.keys() & set(rules["required"])
    known = SCALE["training"] if kind == "training" else REINFORCED
    validate({**known, **found}, kind, "x")
    assert found == {
        key: rules["properties"][key]["default"]
        for key in rules["properties"].keys() - set(rules["required"])
        if "default" in rules["properties"][key]
    }


# ---- files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: the key 'c' stands twice; keep one"),
        ("a: [1, 2\nb: 3\n", "line 2: this is not YAML"),
        ("a: 1\n12: 1\n", ": 12: the key is no text; put it in quotes"),
        ("a: {b: [{true: 1}]}\n", ": a.b[0].True: the key is no text"),
        ("a: .nan\n", ": a is nan, no finite number"),
        ("a: {b: [1, -.inf]}\n", ": a.b[1] is -inf, no finite number"),
        ("a: {b: 2024-01-31}\n", ": a.b is a date, which JSON does not have; put it in quotes"),
        ("a: 2024-13-31\n", ": this is not YAML (month must be in 1..12)"),
        ("a: !!set {x}\n", ": a is a set, which JSON does not have"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: this is not YAML (could not determine a constructor"),
        ("", "holds empty, not keys"),
        ("- a\n", "holds a list, not keys"),
        ("a: \x01\n", "this is not YAML"),
    ],
)
def test_yaml_that_would_be_misread_is_refused_with_its_line(tmp_path, text, expected):
    file = tmp_path / "x.yaml"
    file.write_text(text)
    message = refused(load_yaml, file, "config/x.yaml")
    assert message.startswith("config/x.yaml") and expected in message


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    assert "cannot be read as UTF-8" in refused(load_yaml, tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{a: 1e-3, b: 1.0e-3, c: 3, d: e-3, e: '1e-3', f: λ}",
            {"a": 1e-3, "b": 1e-3, "c": 3, "d": "e-3", "e": "1e-3", "f": "λ"},
        ),
        ("{on: no, y: off, t: true, n: null, o: 010}", {"on": "no", "y": "off", "t": True, "n": None, "o": 10}),
        ("a: &x {b: 1, d: 2}\nc: {<<: *x, b: 3}\n", {"a": {"b": 1, "d": 2}, "c": {"b": 3, "d": 2}}),
    ],
)
def test_values_are_what_people_expect(tmp_path, text, expected):
    (tmp_path / "x.yaml").write_text(text)
    assert load_yaml(tmp_path / "x.yaml") == expected


def test_a_number_with_an_exponent_is_no_whole_number(tmp_path):
    (tmp_path / "x.yaml").write_text("steps: 2E5")
    assert isinstance(load_yaml(tmp_path / "x.yaml")["steps"], float)


def test_a_file_is_loaded_from_the_repository_and_called_by_its_path_in_it(tmp_path):
    source = "config/experiments/mobileclip/table2.yaml"
    assert load(REPO, source, "experiment") == EXPERIMENT
    shutil.copytree(REPO / "workflow/schemas", tmp_path / "workflow/schemas")
    (tmp_path / "config.yaml").write_text("scael: mini")
    assert refused(load, tmp_path, "config.yaml", "config").startswith("config.yaml: scael is not a key")
    assert refused(load, tmp_path, "confgi.yaml", "config") == (
        "confgi.yaml does not exist; did you mean config? (known: config)"
    )
