"""Rows of published models: what a scale says stands for them, and their tasks beside published values."""

import json
import shutil
from pathlib import Path

import pytest
from scored import record, write_scores

from clipdr import config
from clipdr.checkpoints import with_checkpoints, with_tasks, with_words
from clipdr.errors import UserError
from clipdr.report import table
from clipdr.report.tasks import task_lines
from clipdr.schema import load_yaml

REPO = Path(__file__).parents[2]
PAPER = REPO / "config/experiments/mobileclip"
SETTINGS = {"model": "ViT-B/16:Base", "objective": {"name": "reinforced", "lambda": 0}}
EXPERIMENT = {
    "title": "Models",
    "source": "arXiv 0000.00000, Table 7",
    "columns": ["IN-val", "IN-shift"],
    "task_scores": "scores.csv",
    "rows": [
        {"name": "A", "checkpoint": "A", "task_scores": "net one", "published": {"IN-val": 50.0, "IN-shift": 40.0}},
        {"name": "B", "checkpoint": "B", "published": {"IN-val": 60.0}},
        {"name": "C", "checkpoint": "C", "published": {"IN-val": 70.0}},
    ],
    "comparisons": [
        {"better": "B", "than": "A", "column": "IN-val", "claim": "B beats A"},
        {"better": "C", "than": "A", "column": "IN-val", "claim": "C beats A"},
        {"better": "C", "than": "A", "column": "Params img (M)", "claim": "C is smaller"},
    ],
}
SCALE = {
    "checkpoints": {"A": {"weights": [{"model": "net", "pretrained": "one"}]}, "B": {"settings": SETTINGS}},
}


def test_a_row_is_what_the_scale_says_and_else_the_papers_alone():
    found = with_checkpoints(EXPERIMENT, SCALE)
    assert [row.get("weights") for row in found["rows"]] == [[{"model": "net", "pretrained": "one"}], None, None]
    assert [row.get("settings") for row in found["rows"]] == [None, SETTINGS, None]
    assert not any("checkpoint" in row for row in found["rows"])
    # No claim is left of C's accuracy, which nothing here measures; its size is measured anywhere.
    assert [claim["claim"] for claim in found["comparisons"]] == ["B beats A", "C is smaller"]
    bare = with_checkpoints(EXPERIMENT, {})
    assert [set(row) for row in bare["rows"]] == [
        {"name", "task_scores", "published"},
        {"name", "published"},
        {"name", "published"},
    ]


def test_a_row_whose_student_or_teachers_are_none_is_the_papers_alone():
    rows = [
        {"name": name, "settings": {"model": model, "objective": {"teachers": teachers}}, "published": {"IN-val": 1.0}}
        for name, model, teachers in (("A", "small", "good"), ("B", "large", "good"), ("C", "small", "best"))
    ]
    scale = {"models": {"small": "mini", "large": None}, "teachers": {"good": ["one"], "best": None}}
    found = with_words({**EXPERIMENT, "rows": rows}, scale)
    assert ["settings" in row for row in found["rows"]] == [True, False, False]
    assert all(row["published"] for row in found["rows"])
    assert [claim["claim"] for claim in found["comparisons"]] == ["C is smaller"]


@pytest.fixture
def csv(tmp_path) -> Path:
    """Seven columns about a model, then its tasks."""
    path = tmp_path / "scores.csv"
    about = "name,pretrained,source,params,flops,average,again,shift"
    path.write_text(f"{about},Task x,Task y,Task z,FMoW\nnet,one,s,1,1,1,1,1,0.5,0.25,,0.75\n")
    return path


def test_published_tasks_are_of_published_weights_alone(csv):
    first, *others = with_tasks(with_checkpoints(EXPERIMENT, SCALE), csv.parent)["rows"]
    assert first["tasks"] == {"Task x": 0.5, "Task y": 0.25, "FMoW": 0.75}
    assert not any("tasks" in row for row in others)
    trained = {"checkpoints": {"A": {"settings": SETTINGS}}}
    assert not any("tasks" in row for row in with_tasks(with_checkpoints(EXPERIMENT, trained), csv.parent)["rows"])


@pytest.mark.parametrize("line", ["net two", "other one"])
def test_a_model_that_the_file_lacks(csv, line):
    rows = [{**EXPERIMENT["rows"][0], "task_scores": line}]
    with pytest.raises(UserError, match=f"row 'A': task_scores '{line}' is not defined"):
        with_tasks(with_checkpoints({**EXPERIMENT, "rows": rows}, SCALE), csv.parent)


@pytest.mark.parametrize("content", [None, "a,b\n1,2\n", "name,pretrained,s,p,f,a,r,i,Task x\nnet,one,s,1,1,1,1,1,x\n"])
def test_a_file_of_tasks_that_is_none(tmp_path, content):
    if content:
        (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(UserError, match="scores.csv cannot be read"):
        with_tasks(with_checkpoints(EXPERIMENT, SCALE), tmp_path)


def scored(folder: Path, *records: dict) -> list[dict]:
    write_scores(folder / "eval/a", list(records))
    return [{"row": "A", "seed": 0, "scores": ["eval/a"]}]


def test_each_task_beside_its_published_value(csv, tmp_path):
    """x: 0.05 points off with many images; y: 0.2 points off with few, then with many; FMoW is never judged."""
    experiment = with_tasks(with_checkpoints(EXPERIMENT, SCALE), csv.parent)
    four = {**record("f", 0.5, 22108, 62), "dataset": "FMoW"}
    runs = scored(tmp_path, record("x", 0.5005, 50000, 10), record("y", 0.252, 1999, 10), four)
    assert [list(line.values())[1:] for line in task_lines(experiment, runs, tmp_path)] == [
        ["Task x", "50.05", "50.00", "+0.05", "yes (±0.1)"],
        ["Task y", "25.20", "25.00", "+0.20", "yes (±0.3)"],
        ["FMoW", "50.00", "75.00", "-25.00", "–"],
    ]
    runs = scored(tmp_path, record("y", 0.252, 2000, 10))
    lines = task_lines(experiment, runs, tmp_path)
    assert [line["ours"] for line in lines] == ["missing", "25.20", "missing"]
    assert lines[1]["within"] == "no (±0.1)"


def test_a_table_shows_what_is_missing(csv, tmp_path):
    """IN-shift needs a task that is not there: a mean without it would be another number."""
    experiment = with_tasks(with_checkpoints(EXPERIMENT, SCALE), csv.parent) | {"comparisons": []}
    scale = {"name": "s", "title": "S", "columns": {"IN-val": ["x"], "IN-shift": ["x", "y"]}, "absent": ["y"]}
    report = {"experiment": experiment, "scale": scale, "runs": scored(tmp_path, record("x", 0.5, 100, 10))}
    table.build(report, tmp_path, tmp_path / "table")
    text = (tmp_path / "table.md").read_text()
    assert "Not shown, for want of tasks: IN-shift: y." in text
    row = next(line for line in text.splitlines() if line.startswith("| A"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert [cell for cell in cells if cell] == ["A", "50.0 [45.2, 54.8]", "50.0", "40.0"]
    assert "published weights, scored here" in text and "NOT THE PAPER'S SETTING" not in text
    assert "| A | Task y | missing | 25.00 | – | – |" in " ".join(text.split())


def test_shipped_checkpoints_are_rows_with_lines_of_their_own():
    """Scale published names every checkpoint of Table 7, and its tag is that of the file's line."""
    scale = load_yaml(REPO / "config/scales/published.yaml")["checkpoints"]
    rows = {row["checkpoint"]: row for row in load_yaml(PAPER / "table7.yaml")["rows"] if "checkpoint" in row}
    assert scale.keys() == rows.keys()
    for name, row in rows.items():
        (first, *others) = scale[name]["weights"]
        if "file" not in first and not others:
            assert row["task_scores"] == f"{first['model']} {first['pretrained']}"


def test_a_base_is_joined_and_has_none_itself(tmp_path):
    scale = config.load_scale(REPO, "published")
    base = config.load_scale(REPO, "paper12m")
    assert scale["pool"] == base["pool"] and scale["title"] != base["title"]
    assert scale["evaluation"]["columns"].items() >= base["evaluation"]["columns"].items()
    folder = tmp_path / "config/scales"
    folder.mkdir(parents=True)
    for name, text in {"a": "base: b", "b": "base: c", "c": "title: C"}.items():
        (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(UserError, match="config/scales/a.yaml: base: b has a base itself"):
        config.load_scale(tmp_path, "a")


@pytest.mark.parametrize(
    "entry, message",
    [
        ({"settings": {"modle": "x"}}, "checkpoints.A.settings: 'modle' is not in settings; did you mean 'model'"),
        ({"weights": [{"model": "x"}]}, r"checkpoints.A.weights\[0\] needs pretrained or file"),
        ({"weights": [{"model": "x", "file": "f", "pretrained": "t"}]}, "needs pretrained or file; give one of"),
        ({"weights": [{"model": "x", "file": "f"}], "zoo": "single"}, "checkpoints.A"),
        ({}, "checkpoints.A"),
    ],
)
def test_what_a_checkpoint_may_not_be(tmp_path, entry, message):
    shutil.copytree(REPO / "workflow/schemas", tmp_path / "workflow/schemas")
    scale = load_yaml(REPO / "config/scales/ci.yaml") | {"checkpoints": {"A": entry}}
    (tmp_path / "config/scales").mkdir(parents=True)
    (tmp_path / "config/scales/ci.yaml").write_text(json.dumps(scale))  # is YAML, too
    with pytest.raises(UserError, match=message):
        config.load_scale(tmp_path, "ci")


def test_suites_are_joined_and_stand_for_all_their_tasks():
    scale = {"evaluation": {"suite": ["emoji", "emoji-dev"], "columns": {"All": ["suite:emoji"], "Dev": ["emoji/dev"]}}}
    seen, suite = config.with_suites(scale, REPO, "scale")
    emoji = [task["key"] for task in config.load_suite(REPO, "emoji")["tasks"]]
    assert seen["evaluation"]["columns"] == {"All": emoji, "Dev": ["emoji/dev"]}
    assert [(task["key"], task["suite"]) for task in suite["tasks"]] == [
        *((key, "emoji") for key in emoji),
        ("emoji/dev", "emoji-dev"),
    ]
    with pytest.raises(UserError, match="the name 'imagenet1k' stands twice"):
        config.with_suites({"evaluation": {"suite": ["imagenet", "datacomp38"], "columns": {}}}, REPO, "scale")
