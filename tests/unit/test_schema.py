"""A file of config/ that says something wrong is refused in one line that names the file, the key and the fix."""

import copy
import random
from pathlib import Path

import pytest
import yaml
from refusals import edited, refused

from clipdr.schema import load_yaml, validate

REPO = Path(__file__).parents[2]
KINDS = ("config", "scale", "experiment", "suite")  # of models, open_clip knows the keys of towers
SCALE = load_yaml(REPO / "config/scales/mini.yaml")
EXPERIMENT = load_yaml(REPO / "config/experiments/table2.yaml")
TABLE1 = load_yaml(REPO / "config/experiments/table1.yaml")
SUITE = load_yaml(REPO / "config/suites/emoji.yaml")


def schema(kind: str) -> dict:
    return yaml.safe_load((REPO / f"workflow/schemas/{kind}.schema.yaml").read_text())


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


@pytest.mark.parametrize(
    ("kind", "data"),
    [("scale", SCALE), ("experiment", EXPERIMENT), ("experiment", TABLE1), ("suite", SUITE)],
)
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
        message = refused(validate, broken, kind, "config/x.yaml")
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
            validate(broken, "scale", "x")
        else:
            assert f"{'.'.join(map(str, path))} is missing" in refused(validate, broken, "scale", "x")


def test_optional_keys_of_the_zoo_are_accepted():
    augmentation = {"views": 4, "crop_scale": [0.5, 1.0], "num_ops": 1, "magnitude": 3, "seed": 2}
    extra = {"weight_decay": 0.1, "seed": 2, "augmentation": augmentation}
    for path in ("zoo//captioner", "zoo//teachers//resnet"):
        entry = {"model": "mini-student", "steps": 1, "batch_size": 2, "lr": 0.1, **extra}
        validate(edited(SCALE, path, entry), "scale", "x")


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
    message = refused(validate, edited(SCALE, path, value), "scale", "config/scales/mini.yaml")
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
    message = refused(validate, edited(EXPERIMENT, path, value), "experiment", "config/experiments/table2.yaml")
    assert message.startswith(f"config/experiments/table2.yaml: {expected}")


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
    message = refused(load_yaml, file, "config/x.yaml")
    assert message.startswith("config/x.yaml") and expected in message


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"a: \xff\xfe")
    assert "cannot be read as UTF-8" in refused(load_yaml, tmp_path / "x.yaml")


def test_numbers_are_what_people_expect(tmp_path):
    (tmp_path / "x.yaml").write_text("{a: 1e-3, b: 1.0e-3, c: 2E5, d: 3, e: e-3, f: '1e-3', g: .5e1, h: λ}")
    expected = {"a": 0.001, "b": 0.001, "c": 200000.0, "d": 3, "e": "e-3", "f": "1e-3", "g": 5.0, "h": "λ"}
    loaded = load_yaml(tmp_path / "x.yaml")
    assert loaded == expected and isinstance(loaded["c"], float)
