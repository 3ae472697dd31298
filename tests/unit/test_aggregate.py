"""Averages over the 38 tasks against every published one, from published values of each task.

config/experiments/mobileclip/task_scores.csv has the 38 main metrics of 17 models of OpenCLIP (its
docs/openclip_results.csv) and of MobileCLIP's five (Apple's results/*.jsonl), with the averages printed for them.
"""

import csv
import json
from pathlib import Path

import pytest

from clipdr import cli
from clipdr.errors import UserError
from clipdr.evaluate.aggregate import averages, groups_of, report
from clipdr.evaluate.records import read_records
from clipdr.schema import load_yaml

REPO = Path(__file__).parents[2]
SUITE = REPO / "config/suites/datacomp38.yaml"
TASKS = load_yaml(SUITE)["tasks"]
MODELS = list(csv.DictReader((REPO / "config/experiments/mobileclip/task_scores.csv").open()))


def records(model: dict) -> list[dict]:
    """A model's line as records of DataComp's schema."""
    values = {task["key"]: (task["title"], float(model[task["title"]])) for task in TASKS}
    return [{"key": key, "dataset": title, "metrics": {"main_metric": v}} for key, (title, v) in values.items()]


def write(path: Path, lines: list[dict]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model['name']}-{model['pretrained']}")
def test_published_averages_follow_from_published_values(model, tmp_path):
    found = averages(read_records(write(tmp_path / "r.jsonl", records(model))), {"tasks": TASKS})
    decimals = len(model["published avg38"].partition(".")[2])  # Apple prints three, OpenCLIP four
    unit = 10**-decimals
    assert abs(found["average"] - float(model["published avg38"])) <= 0.5 * unit + 6e-5  # of values with four decimals
    assert found["average"] == pytest.approx(float(model["recomputed avg38"]), abs=1e-6)
    assert found["ImageNet shifts"] == pytest.approx(float(model["recomputed IN-shift6"]), abs=1e-6)
    assert found["ImageNet"] == float(model["ImageNet 1k"])


@pytest.mark.parametrize(
    "name, pretrained, average, shift",
    [
        ("MobileCLIP-S0", "datacompdr", 0.581170, 0.550538),
        ("MobileCLIP-S1", "datacompdr", 0.612541, 0.606652),
        ("MobileCLIP-S2", "datacompdr", 0.636568, 0.631282),
        ("MobileCLIP-B", "datacompdr", 0.651535, 0.655846),
        ("MobileCLIP-B", "datacompdr_lt", 0.657789, 0.660806),
    ],
)
def test_mobileclips_averages(name, pretrained, average, shift):
    model = next(m for m in MODELS if (m["name"], m["pretrained"]) == (name, pretrained))
    found = averages({record["key"]: record for record in records(model)}, {"tasks": TASKS})
    assert (round(found["average"], 6), round(found["ImageNet shifts"], 6)) == (average, shift)


def test_the_groups_are_datacomps():
    sizes = {name: len(keys) for name, keys in groups_of({"tasks": TASKS}).items()}
    five = "ImageNet shifts, the five named in MobileCLIP's text"
    assert sizes == {"average": 38, "ImageNet": 1, "ImageNet shifts": 6, five: 5, "VTAB": 13, "Retrieval": 3}
    assert sum(task["main_metric"] == "acc1" for task in TASKS) == 27


def test_other_records_do_not_count_and_missing_ones_are_named(tmp_path):
    extra = {"key": "comp/sugarcrepe", "dataset": "SugarCrepe", "metrics": {"main_metric": 0.99}}
    unscored = {"key": "fairness/utkface", "dataset": "UTKFace", "metrics": {"main_metric": None}}
    whole = write(tmp_path / "whole.jsonl", [*records(MODELS[0]), extra, unscored])
    cut = write(tmp_path / "cut.jsonl", [r for r in records(MODELS[0]) if r["key"] != "wilds/fmow"])
    text = report([whole, cut], SUITE)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    table = {line[0]: line[1:] for line in lines[2:]}  # after the head
    assert table["average"] == ["38", "66.27", "–"] and table["VTAB"][1] == table["VTAB"][2] != "–"
    assert "whole.jsonl has 2 records beside the suite's, which do not count: comp/sugarcrepe, fairness/utkface" in text
    assert "cut.jsonl lacks 1 of 38 tasks: wilds/fmow" in text


def test_nan_is_no_score(tmp_path):
    """As DataComp writes metrics that are not defined: among the rest no matter, as the main metric missing."""
    path = tmp_path / "r.jsonl"
    path.write_text('{"key": "mnist", "dataset": "MNIST", "metrics": {"acc5": NaN, "main_metric": NaN}}\n')
    found = read_records(path)
    assert found["mnist"]["metrics"] == {"acc5": None, "main_metric": None}
    assert averages(found, {"tasks": [{"key": "mnist"}]}) == {"average": None}


@pytest.mark.parametrize(
    "line, says",
    [
        ('{"key": "a", "metrics": {"main_metric": 7.5}}', "a has main_metric 7.5, no number between 0 and 1"),
        ('{"key": "a", "metrics": {"main_metric": "0.5"}}', "a has main_metric '0.5', no number"),
        ('{"key": "a", "metrics": {"main_metric": true}}', "a has main_metric True, no number"),
        ('{"key": "a"}', "line 1 is no evaluation record"),
        ("[]", "line 1 is no evaluation record"),
        ('{"key": "a", "metrics": {"main_metric": 0.5}}\n' * 2, "a is recorded twice"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, line, says):
    (tmp_path / "r.jsonl").write_text(line)
    with pytest.raises(UserError, match=says):
        read_records(tmp_path / "r.jsonl")


def test_the_command(tmp_path, monkeypatch, capsys):
    from clipdr.evaluate.__main__ import main

    file = write(tmp_path / "s0.jsonl", records(MODELS[0]))
    monkeypatch.setattr("sys.argv", ["evaluate", "aggregate", str(file)])
    cli.run(main)
    assert "| 66.27" in capsys.readouterr().out
