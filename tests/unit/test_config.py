"""A typing error in config/ is one line that names the file, the key and the fix."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from refusals import edited, refused
from shipped import EXPERIMENT, MINI, REPO, SCALE, SHIPPED

from clipdr import config
from clipdr.checks import check_packages
from clipdr.experiments import for_paper
from clipdr.schema import load_yaml
from clipdr.words import COST

TABLES = {path.stem: load_yaml(path) for path in sorted((REPO / "config/experiments/mobileclip").glob("*.yaml"))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with its own copy of everything that is read, but of a few experiments only."""
    shutil.copytree(REPO / "workflow/schemas", tmp_path / "workflow/schemas")
    shutil.copytree(REPO / "config", tmp_path / "config", ignore=shutil.ignore_patterns("experiments", "README.md"))
    (tmp_path / "config/experiments/mobileclip").mkdir(parents=True)
    for name in ("table1", "table2", "table7"):
        shutil.copy(REPO / f"config/experiments/mobileclip/{name}.yaml", tmp_path / "config/experiments/mobileclip")
    shutil.copy(REPO / "config/experiments/mobileclip/task_scores.csv", tmp_path / "config/experiments/mobileclip")
    for paper in ("clipkd", "clipup", "dimefm"):
        (tmp_path / f"config/experiments/{paper}").mkdir()
        for name in ("losses", "headline"):
            shutil.copy(REPO / f"config/experiments/{paper}/{name}.yaml", tmp_path / f"config/experiments/{paper}")
    return tmp_path


def change(root: Path, file: str, path: str, value: object) -> None:
    """Change one value of a file below `root`."""
    (root / file).write_text(yaml.safe_dump(edited(load_yaml(root / file), path, value), sort_keys=False))


# ---- the files that are there


def test_shipped_configuration_is_valid_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = config.load_config(REPO)
    assert set(chosen["experiments"]) <= config.load_experiments(REPO, chosen)[0].keys()


@pytest.mark.parametrize("scale", sorted(path.stem for path in (REPO / "config/scales").glob("*.yaml")))
def test_every_scale_has_an_experiment_and_says_why_it_lacks_the_others(scale):
    planned, misfits = config.load_experiments(REPO, {"scale": scale, "experiments": []})
    assert planned and planned.keys() | misfits.keys() == config.experiment_files(REPO).keys()


def test_table2_holds_the_published_values():
    """Table 2 of arXiv 2311.17049, typed again: (λ, IN-val, Flickr30k)."""
    cells = [
        (r["settings"]["objective"]["lambda"], r["published"]["IN-val"], r["published"]["Flickr30k"])
        for r in EXPERIMENT["rows"]
    ]
    assert cells == [
        (0, 44.5, 41.8),
        (0, 51.9, 69.3),
        (1, 54.5, 66.1),
        (1, 59.3, 70.5),
        (1, 61.7, 72.0),
        (0.7, 60.7, 74.2),
    ]


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


@pytest.mark.parametrize("name", TABLES)
def test_tables_claim_what_was_published(name):
    published = {row["name"]: row.get("published", {}) for row in TABLES[name]["rows"]}
    for claim in TABLES[name].get("comparisons", []):
        better, than = (published[claim[key]].get(claim["column"]) for key in ("better", "than"))
        if better is None or than is None:
            continue
        if claim.get("similar"):
            assert abs(better - than) < 0.5, claim
        else:
            less = "(" in claim["column"] or claim["column"] == COST
            assert better < than if less else better > than, claim


# ---- files


def test_names_of_experiments_may_leave_out_mobileclip():
    known = ["mobileclip-table2", "mobileclip-table7", "clipkd-table3"]
    assert config.full_name("table2", known) == config.full_name("mobileclip-table2", known) == "mobileclip-table2"
    assert config.full_name("clipkd-table3", known) == "clipkd-table3"
    expected = "no experiment is called 'tabel2'; did you mean 'table2'? (known: table2, table7, clipkd-table3)"
    assert refused(config.full_name, "tabel2", known) == expected
    assert refused(config.full_name, "table3", known).startswith("no experiment is called 'table3'; did you mean")


def test_a_missing_file_names_the_nearest(root):
    assert "config/scales/mni.yaml does not exist; did you mean mini?" in refused(config.load_scale, root, "mni")
    assert "does not exist" in refused(config.load_suite, root, "emojy")


def test_errors_name_the_file_relative_to_the_repository(root):
    file = root / MINI
    file.write_text(file.read_text().replace("datasets:", "datasetz:"))
    message = refused(config.load_scale, root, "mini")
    assert message.startswith(f"{MINI}: datasetz is not a key; did you mean 'datasets'?")


def test_a_suite_names_each_task_once(root):
    file = root / "config/suites/emoji.yaml"
    file.write_text(file.read_text().replace("emoji/coarse", "emoji/val"))
    assert "the name 'emoji/val' stands twice" in refused(config.load_suite, root, "emoji")


@pytest.mark.parametrize(
    "old, new, says",
    [
        (
            "kind: retrieval",
            "kind: retreival",
            "tasks[10].kind: 'retreival' is not in src/clipdr/evaluate/kinds; did you mean",
        ),
        ("main_metric: acc1", "main_metric: acc2", "tasks[0]: main_metric is 'acc2'; did you mean 'acc5'?"),
        ("main_metric: acc1", "main_metric: acc1, group: 0", "tasks[0]: group is not a key"),
        ("kind: classification, main_metric: acc1", "kind: grouped, main_metric: acc_wg", "tasks[0]: group is missing"),
        ("main_metric: acc1}", "main_metric: acc1, size: 0}", "tasks[0].size is 0; it must be at least 1"),
    ],
)
def test_a_task_says_what_its_kind_may_say(root, old, new, says):
    file = root / "config/suites/emoji.yaml"
    file.write_text(file.read_text().replace(old, new, 1))
    assert says in refused(config.load_suite, root, "emoji")


@pytest.mark.parametrize(
    ("suite", "says"),
    [
        (
            {"of": "emoji", "tasks": ["emoji/vall"]},
            "tasks[0]: 'emoji/vall' is not in config/suites/emoji.yaml; did you",
        ),
        ({"of": "emoji", "tasks": ["emoji/val", "emoji/val"]}, "tasks: the name 'emoji/val' stands twice; rename one"),
        ({"of": "part", "tasks": ["emoji/val"]}, "of: part is of another suite itself; name a whole one"),
        ({"tasks": ["emoji/val"]}, "tasks[0] is the text 'emoji/val'; say with `of` which suite has such a task"),
    ],
)
def test_a_part_of_a_suite_names_tasks_of_a_whole_one(root, suite, says):
    whole = config.load_suite(root, "emoji")["tasks"]
    path = root / "config/suites/part.yaml"
    path.write_text(yaml.safe_dump({"of": "emoji", "tasks": ["emoji/val"]}))
    assert config.load_suite(root, "part")["tasks"] == [task for task in whole if task["key"] == "emoji/val"]
    path.write_text(yaml.safe_dump(suite))
    assert refused(config.load_suite, root, "part").startswith(f"config/suites/part.yaml: {says}")
    path.write_text(yaml.safe_dump({"of": "emoji", "tasks": [whole[0]]}))
    assert "is a task of its own; beside `of`, keys alone may stand" in refused(config.load_suite, root, "part")


def test_a_column_names_a_metric_of_its_tasks_kind(root):
    file = root / MINI
    file.write_text(file.read_text().replace("[emoji/retrieval]", '["emoji/retrieval:text_retrieval_recall@1"]'))
    config.load_experiments(root, config.load_config(root))
    file.write_text(file.read_text().replace("text_retrieval_recall@1", "acc1"))
    expected = "evaluation.columns.Flickr30k: 'acc1' is not in the metrics of kind retrieval"
    assert expected in refused(config.load_experiments, root, config.load_config(root))


def test_overrides_replace_keys_of_the_config(root):
    headlines = ["clipkd-headline", "dimefm-headline", "clipup-headline"]
    assert config.load_config(root) == {"scale": "mini", "experiments": ["mobileclip-table2", *headlines]}
    assert config.load_config(root, {"scale": "ci"}) == {"scale": "ci", "experiments": ["mobileclip-table2"]}
    assert config.load_config(root, {"scale": "paper15m"})["experiments"] == ["clipkd-headline"]
    given = config.load_config(root, {"experiments": "table2, mobileclip-table7"})
    assert given["experiments"] == ["mobileclip-table2", "mobileclip-table7"]


def test_more_seeds_keep_the_runs_that_are_there(root):
    runs = {}
    for seeds in ({}, {"seeds": 5}, {"seeds": 1}):
        chosen = config.load_config(root, {"experiments": "table2", **seeds})
        planned = config.load_experiments(root, chosen)[0]["mobileclip-table2"]
        runs[seeds.get("seeds", 3)] = {run.name for run in planned.runs}
    assert {number: len(names) for number, names in runs.items()} == {3: 18, 5: 30, 1: 6}
    assert runs[1] < runs[3] < runs[5]
    assert config.with_seeds({"seeds": [4, 0]}, 4) == {"seeds": [4, 0, 1, 2]}


def test_a_wrong_override_is_blamed_on_the_command_line_and_a_wrong_file_on_the_file(root):
    message = refused(config.load_config, root, {"scael": "mini"})
    assert message.startswith("--config: scael is not a key; did you mean 'scale'?")
    assert refused(config.load_config, root, {"scale": 3}).startswith("--config: scale is 3; it must be text")
    assert refused(config.load_config, root, {"experiments": "tabel2"}).startswith("no experiment is called 'tabel2'")
    (root / "config/config.yaml").write_text("scale: mini\nexperiments: []\n")
    assert refused(config.load_config, root, {"scale": "ci"}).startswith("config/config.yaml: experiments has length 0")


# ---- experiments at a scale


def load_all(root: Path, experiments: str = "table2") -> tuple[dict, dict]:
    return config.load_experiments(root, config.load_config(root, {"experiments": experiments}))


def test_an_experiment_that_the_scale_does_not_have_is_an_error_only_when_asked_for(root):
    change(root, "config/experiments/mobileclip/table1.yaml", "rows//0//settings//model", "ViT-X")
    planned, misfits = load_all(root)
    assert "mobileclip-table2" in planned and "model 'ViT-X' is not defined" in misfits["mobileclip-table1"]
    assert "model 'ViT-X' is not defined" in refused(load_all, root, "table1")


def test_what_a_scale_leaves_undefined_is_said_with_its_reason(root):
    change(root, MINI, "undefined", {"mobileclip-table7": "too large for a laptop"})
    planned, misfits = load_all(root)
    assert "mobileclip-table7" not in planned
    assert misfits["mobileclip-table7"] == (
        "config/experiments/mobileclip/table7.yaml is undefined at scale mini: too large for a laptop"
    )
    assert "too large for a laptop" in refused(load_all, root, "table7")
    change(root, MINI, "undefined", {"mobileclip-table77": "x"})
    expected = f"{MINI}: undefined.mobileclip-table77 is no experiment; did you mean 'mobileclip-table7'?"
    assert refused(load_all, root) == expected


def test_a_paper_has_its_own_words_and_they_are_checked(root):
    change(root, MINI, "papers", {"mobileclip": {"training": {"steps": 77}, "seeds": 1}})
    runs = load_all(root)[0]["mobileclip-table2"].runs
    assert len(runs) == 6 and {run.settings["training"]["steps"] for run in runs} == {77}
    assert for_paper(config.load_scale(root, "mini"), "clipkd")["training"]["steps"] == SHIPPED["training"]["steps"]
    change(root, MINI, "papers", {"mobileclip": {"training": {"stepz": 1}}})
    assert refused(load_all, root).startswith(f"{MINI}: papers.mobileclip: training: stepz is not a key; did you mean")
    change(root, MINI, "papers", {"mobilclip": {"seeds": 1}})
    expected = f"{MINI}: papers.mobilclip is no folder of config/experiments; did you mean 'mobileclip'?"
    assert refused(load_all, root) == expected


def test_every_icon_set_is_in_a_package(root):
    check_packages(root, SCALE, MINI)
    message = refused(check_packages, root, edited(SCALE, "pool//vendors//0", "notto"), MINI)
    assert message.startswith(
        f"{MINI}: pool.vendors: 'notto' is not in config/pools/emoji/package.json; did you mean 'noto'?"
    )
    message = refused(check_packages, root, edited(SCALE, "pool//styles//monochrome", "mono"), MINI)
    assert message.startswith(f"{MINI}: pool.styles.monochrome: 'mono' is not in config/pools/emoji/package.json")
    (root / "config/pools/emoji/package.json").write_text(json.dumps({"name": "x"}))
    assert "has no dependencies" in refused(check_packages, root, SCALE, MINI)
    change(root, MINI, "pool//packages", "config/pools/emojis")
    assert refused(load_all, root).startswith(f"{MINI}: pool.packages: ")
