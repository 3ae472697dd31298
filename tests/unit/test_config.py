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
TABLES = {path.stem: config.load_yaml(path) for path in sorted((REPO / "config/experiments").glob("*.yaml"))}
KINDS = ("config", "scale", "experiment", "suite")
SCALE = config.load_scale(REPO, "mini")
EXPERIMENT = config.load_experiment(REPO, "table2")
SUITE = config.load_suite(REPO, "emoji")
MEMBERS = [*SCALE["zoo"]["teachers"].values(), SCALE["zoo"]["captioner"]]
MODELS = {name: {"model_cfg": {}} for name in [*SCALE["models"].values(), *(member["model"] for member in MEMBERS)]}


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


def test_tables_1_and_5_hold_the_published_values():
    """Typed again: latency of the encoder that the row is about, IN-val; and parameters, latency, IN-val."""
    cells = [list(row["published"].items()) for row in TABLES["table1"]["rows"]]
    assert cells == [
        [("Latency txt (ms)", 3.3), ("IN-val", 53.4)],
        [("Latency txt (ms)", 1.6), ("IN-val", 53.6)],
        [("Latency img (ms)", 4.3), ("IN-val", 58.9)],
        [("Latency img (ms)", 3.6), ("IN-val", 60.0)],
    ]
    rows = TABLES["table5"]["rows"]
    assert [row["network"][-1] for row in rows] == [row["name"][0] for row in rows] == list("64210")
    columns = zip(*(row["published"].values() for row in rows), strict=True)
    assert [*columns] == [(44.5, 42.4, 40.4, 39.3, 38.3), (1.9, 1.6, 1.4, 1.3, 1.2), (60.9, 60.8, 60.2, 60.0, 57.9)]


def test_table6_holds_the_published_values():
    """IN-val from top to bottom, typed again; latencies by what the encoders are."""
    rows = TABLES["table6"]["rows"]
    assert [row["published"]["IN-val"] for row in rows] == [
        *(36.5, 37.6, 38.1, 40.7, 42.8, 50.1, 65.3, 32.8, 34.3, 39.5, 43.2, 45.0, 45.0),
        *(41.1, 44.1, 53.5, 59.1, 63.5, 64.6, 69.1, 45.0, 55.7, 71.7, 63.2),
    ]
    by_network = {}
    for row in rows:
        *latency, _ = row["published"].values()
        by_network.setdefault(row.get("network", row["name"]), set()).add(tuple(latency))
    assert by_network == {
        **{"ViT-B-16": {(11.5, 3.3)}, "CLIPA-B/16": {(11.5, 3.3)}, "MobileCLIP-B": {(10.4, 3.3)}},
        **{"ViT-B-32": {(5.9, 3.3)}, "TinyCLIP-8M/16": {(2.0, 0.6)}, "TinyCLIP-39M/16": {(5.2, 1.9)}},
        **{"MobileCLIP-S0": {(1.5, 1.6)}, "MobileCLIP-S2": {(3.6, 3.3)}},
    }


TABLE7 = """
Ensemble Teacher  - - - - 80.1 69.6 74.5 92.3 46.7 66.5 67.3
TinyCLIP-RN19M  18.6 44.8 1.9 1.9 56.3 43.6 58.0 75.4 30.9 47.8 48.3
TinyCLIP-RN30M  29.6 54.2 2.6 2.6 59.1 45.7 61.5 80.1 33.8 51.6 50.2
TinyCLIP-40M/32  39.7 44.5 3.0 1.9 59.8 46.5 59.1 76.1 33.5 48.7 51.2
MobileCLIP-S0  11.4 42.4 1.5 1.6 67.8 55.1 67.7 85.9 40.4 58.7 58.1
OpenAI-RN50  38.3 63.4 3.3 3.3 59.8 45.1 57.4 80.0 28.5 48.8 48.1
TinyCLIP-61M/32  61.4 54.0 4.3 2.6 62.4 48.7 62.6 78.7 36.5 52.8 53.0
TinyCLIP-63M/32  - - - - 64.5 - 66.0 84.9 38.5 56.9 -
MobileCLIP-S1  21.5 63.4 2.5 3.3 72.6 60.7 71.0 89.2 44.0 62.2 61.3
OpenAI-RN101  56.3 63.4 4.3 3.3 62.3 48.5 58.0 79.0 30.7 49.8 50.3
OpenAI-B/32  86.2 63.4 5.9 3.3 63.3 48.5 58.8 78.9 30.4 50.1 52.5
LAION-B/32  86.2 63.4 5.9 3.3 65.7 51.9 66.4 84.4 39.1 56.2 54.8
DataComp-B/32  86.2 63.4 5.9 3.3 69.2 55.2 61.1 79.0 37.1 53.5 58.0
DataComp-B/32-256  86.2 63.4 6.2 3.3 72.8 58.7 64.9 84.8 39.9 57.9 60.9
MobileCLIP-S2  35.7 63.4 3.6 3.3 74.4 63.1 73.4 90.3 45.4 63.4 63.7
VeCLIP-B/16  86.2 63.4 11.5 3.3 64.6 - 76.3 91.1 48.4 67.2 -
OpenAI-B/16  86.2 63.4 11.5 3.3 68.3 55.9 - - - - -
LAION-B/16  86.2 63.4 11.5 3.3 70.2 56.6 69.8 86.3 42.3 59.4 58.7
EVA02-B/16  86.2 63.4 - - 74.7 59.6 71.5 86.0 42.2 58.7 58.9
DFN-B/16  86.2 63.4 11.5 3.3 76.2 62.3 69.1 85.4 43.4 60.4 60.9
DataComp-B/16  86.2 63.4 11.5 3.3 73.5 60.8 - - - - 61.5
SigLIP-B/16  92.9 110.3 9.9 5.8 76.0 61.0 74.7 89.1 47.8 65.7 62.3
MobileCLIP-B  86.3 63.4 10.4 3.3 76.8 65.6 77.3 91.4 50.6 68.8 65.2
MobileCLIP-B (LT)  86.3 63.4 10.4 3.3 77.2 66.1 76.9 92.3 50.0 68.7 65.8
"""


def test_table7_holds_the_published_values():
    """Typed again; where our text of the paper is wrong, a note says so instead of a value."""
    table = TABLES["table7"]
    lines = [line.rsplit("  ", 1) for line in TABLE7.strip().splitlines()]
    assert [row["name"] for row in table["rows"]] == [name for name, _ in lines]
    for row, (_, cells) in zip(table["rows"], lines, strict=True):
        published = [row["published"][column] for column in table["columns"]]
        assert published == [None if cell == "-" else float(cell) for cell in cells.split()], row["name"]
    assert [row["name"] for row in table["rows"] if "note" in row] == ["OpenAI-B/16", "DataComp-B/16"]


@pytest.mark.parametrize("name", ["table1", "table5", "table6", "table7"])
def test_the_other_tables_are_consistent_and_claim_what_was_published(name):
    experiment = TABLES[name]
    defined = {**SCALE["models"], **{row["network"]: "mini-student" for row in experiment["rows"] if "network" in row}}
    known = {**MODELS, **dict.fromkeys(defined, {"model_cfg": {}})}
    check(experiment, {**SCALE, "models": defined}, known)
    published = {row["name"]: row["published"] for row in experiment["rows"]}
    for claim in experiment.get("comparisons", []):
        better, than = (published[claim[key]][claim["column"]] for key in ("better", "than"))
        if claim.get("similar"):
            assert abs(better - than) < 0.5, claim
        else:
            assert better < than if "(" in claim["column"] else better > than, claim


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
    [("scale", SCALE), ("experiment", EXPERIMENT), ("experiment", TABLES["table1"]), ("suite", SUITE)],
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
        "config/experiments/tabel2.yaml does not exist; did you mean table2? "
        "(known: table1, table2, table5, table6, table7)"
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


def test_models_are_two_towers_put_together(root):
    folder = root / "config/models"
    assert config.load_models(root) == {}
    folder.mkdir()
    data = {
        "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear"},
        "text_cfg": {"context_length": 16, "width": 64},
        "image": {"vit": {"layers": 2}},
        "text": {"wide": {"width": 96}},
        "models": {"a/b:c": {"image": "vit", "text": "wide", "embed_dim": 32}},
    }
    (folder / "a.yaml").write_text(yaml.safe_dump(data))
    (model,) = config.load_models(root).items()
    assert model[0] == "a/b:c" and model[1]["preprocess_cfg"] == data["preprocess_cfg"]
    towers = {"vision_cfg": {"layers": 2}, "text_cfg": {"context_length": 16, "width": 96}, "embed_dim": 32}
    assert model[1]["model_cfg"].items() >= towers.items()
    (folder / "b.yaml").write_text(yaml.safe_dump(data))
    assert "config/models/b.yaml: models: 'a/b:c' stands in another file" in refused(config.load_models, root)
    (folder / "b.yaml").unlink()
    (folder / "a.yaml").write_text(yaml.safe_dump(edited(data, "models//a/b:c//text", "wid")))
    assert "models.a/b:c.text: 'wid' is not in text; did you mean 'wide'?" in refused(config.load_models, root)


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
    models = {**MODELS, "ViT-B/16:MCt-2": {"model_cfg": {}}}
    check(experiment, models=models)
    changed = edited(experiment, path, value)
    config.validate(changed, "experiment", "x")
    if expected is None:
        check(changed, models=models)
    else:
        assert refused(check, changed, SCALE, models).startswith(f"config/experiments/table2.yaml: {expected}")


def test_trained_rows_need_seeds_and_a_column_to_score():
    assert "seeds is missing" in refused(check, edited(EXPERIMENT, "seeds", None))
    rows = [{**row, "network": "RN50", "published": {}} for row in EXPERIMENT["rows"]]
    experiment = {**EXPERIMENT, "columns": ["Params img (M)"], "rows": rows, "comparisons": []}
    assert "columns has no accuracy" in refused(check, experiment)


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
    for name in names if path != "models" else [EXPERIMENT["settings"]["model"]]:
        wrong = name + name[-1]
        renamed = {wrong if key == name else key: value for key, value in names.items()}
        message = refused(check, EXPERIMENT, edited(SCALE, path, renamed))
        assert repr(name) in message and f"did you mean {wrong!r}?" in message
