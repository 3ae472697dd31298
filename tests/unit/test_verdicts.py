"""Which claims an interval decides, and which tasks say nothing, against draws made by hand."""

import numpy as np
import pytest
from refusals import edited
from scored import SPREAD, record, write_scores

from clipdr.errors import UserError
from clipdr.evaluate.intervals import drawn, percentiles
from clipdr.evaluate.kinds import classification
from clipdr.evaluate.outcomes import save
from clipdr.report import table
from clipdr.report.scores import over_seeds, read
from clipdr.report.verdicts import CONTRADICTED, ONE_SEED, REPRODUCED, UNDECIDED, compare, verdict

EXPERIMENT = {
    "title": "Two rows",
    "source": "x",
    "seeds": [0, 1, 2],
    "columns": ["Mean"],
    "rows": [{"name": name, "settings": {"data": {"captions": [name]}}} for name in ("a", "b")],
    "comparisons": [{"better": "a", "than": "b", "column": "Mean", "claim": "a is better"}],
}
SCALE = {"name": "mini", "title": "Miniature", "columns": {"Mean": ["t/x", "t/y"]}, "leave_out_chance": True}


def scored(folder, values: dict, spread=SPREAD):
    """The runs of both rows; `values` are the main metrics of t/x and t/y of each row, seed by seed."""
    runs = []
    for row, seeds in values.items():
        for seed, pair in enumerate(seeds):
            records = [record(key, value, 100, 10) for key, value in zip(("t/x", "t/y"), pair, strict=True)]
            write_scores(folder / f"{row}{seed}", records, spread)
            runs.append({"row": row, "seed": seed, "scores": [f"{row}{seed}"]})
    return runs


@pytest.mark.parametrize(
    "a, b, expected",
    [
        ([0.40, 0.42, 0.44], [0.30, 0.31, 0.32], REPRODUCED),
        ([0.30, 0.31, 0.32], [0.40, 0.42, 0.44], CONTRADICTED),
        ([0.40, 0.30, 0.35], [0.30, 0.40, 0.36], UNDECIDED),
        ([0.40, 0.41, 0.30], [0.30, 0.31, 0.32], UNDECIDED),  # two of three seeds, and a mean above zero
    ],
)
def test_the_interval_decides(tmp_path, a, b, expected):
    runs = scored(tmp_path, {"a": [(x, x) for x in a], "b": [(x, x) for x in b]})
    (line,) = compare(EXPERIMENT, read(EXPERIMENT, SCALE, runs, tmp_path)).to_dict("records")
    assert line["verdict"] == expected and line["low"] <= line["mean"] <= line["high"]
    assert line["mean"] == pytest.approx(100 * (np.mean(a) - np.mean(b)))


def test_one_seed_decides_nothing_of_training_and_something_of_weights(tmp_path):
    runs = scored(tmp_path, {"a": [(0.9, 0.9)], "b": [(0.1, 0.1)]})
    weights = {**EXPERIMENT, "rows": [{"name": name, "weights": [{}]} for name in ("a", "b")]}
    found = [compare(one, read(one, SCALE, runs, tmp_path))["verdict"].item() for one in (EXPERIMENT, weights)]
    assert found == [ONE_SEED, REPRODUCED]


def test_an_interval_that_touches_zero_decides_nothing():
    assert [verdict(0.0, 1.0), verdict(-1.0, 0.0), verdict(0.1, 1.0), verdict(-1.0, -0.1)] == [
        *(UNDECIDED, UNDECIDED),
        *(REPRODUCED, CONTRADICTED),
    ]


def test_rows_are_compared_on_the_same_images(tmp_path):
    """What a hard draw of the images takes from both does not widen the interval of their difference."""
    runs = scored(tmp_path, {"a": [(0.5, 0.5)], "b": [(0.48, 0.48)]}, np.random.default_rng(0).normal(0, 0.2, 1000))
    scores = read(EXPERIMENT, SCALE, runs, tmp_path)
    (line,) = compare(EXPERIMENT, scores).to_dict("records")
    assert (line["low"], line["high"], line["verdict"]) == (pytest.approx(2), pytest.approx(2), ONE_SEED)
    low, high = percentiles(scores.of("a", "Mean", [0])[0])
    assert high - low > 40


def test_seeds_are_drawn_too():
    """The spread of means of three seeds out of three, 1 in 27 of them three times the worst."""
    values = over_seeds(np.repeat([[0.0], [1.0], [2.0]], 20000, axis=1))
    assert values.mean() == pytest.approx(1.0, abs=0.02) and (values == 0).mean() == pytest.approx(1 / 27, abs=0.005)
    assert values.std() == pytest.approx((2 / 3 / 3) ** 0.5, rel=0.02)
    assert np.array_equal(over_seeds(np.arange(5.0)[None]), np.arange(5.0))  # one seed is always the same


def test_a_task_at_chance_stays_out_of_the_mean_and_is_named(tmp_path):
    values = {"a": [(0.40, 0.12)], "b": [(0.30, 0.09)]}  # chance is 0.1: no row is above it in t/y
    runs = scored(tmp_path, values)
    measured = read(EXPERIMENT, SCALE, runs, tmp_path).measured
    assert measured["value"].tolist() == pytest.approx([40, 30])
    assert set(measured["tasks"]) == {"Task x"} and set(measured["at_chance"]) == {"Task y"}
    kept = read(EXPERIMENT, {**SCALE, "leave_out_chance": False}, runs, tmp_path).measured
    assert kept["value"].tolist() == pytest.approx([26, 19.5]) and set(kept["at_chance"]) == {"Task y"}
    table.build({"experiment": EXPERIMENT, "scale": SCALE, "runs": runs}, tmp_path, tmp_path / "t")
    assert "| Mean     | Task x  | 100           | 10.00    | Task y            |" in (tmp_path / "t.md").read_text()


def test_one_row_above_chance_keeps_a_task_for_all(tmp_path):
    runs = scored(tmp_path, {"a": [(0.40, 0.30)], "b": [(0.30, 0.09)]})
    measured = read(EXPERIMENT, SCALE, runs, tmp_path).measured
    assert measured["value"].tolist() == pytest.approx([35, 19.5]) and set(measured["at_chance"]) == {""}


def test_where_all_tasks_are_at_chance_all_stay(tmp_path):
    runs = scored(tmp_path, {"a": [(0.11, 0.12)], "b": [(0.08, 0.09)]})
    measured = read(EXPERIMENT, SCALE, runs, tmp_path).measured
    assert measured["value"].tolist() == pytest.approx([11.5, 8.5]) and set(measured["at_chance"]) == {"Task x, Task y"}


def test_a_column_may_name_a_metric(tmp_path):
    """Its draws are those of the images' outcomes, as are the main metric's."""
    runs = scored(tmp_path, {"a": [(0.5, 0.5)], "b": [(0.4, 0.4)]})
    found = {}
    for run, rank in zip(runs, (np.arange(100) % 3, np.arange(100) % 4), strict=True):
        outcomes = {"label": np.zeros(100, int), "rank": rank, "prediction": rank, "classes": np.array(10)}
        save(outcomes, tmp_path / run["scores"][0] / "t-x.npz")
        acc5 = {"metrics": {"main_metric": 0.5, "acc1": (rank == 0).mean()}, "chance": {"acc1": 0.1}}
        write_scores(tmp_path / run["scores"][0], [record("t/x", 0.5, 100) | acc5 | {"kind": "classification"}])
        found[run["row"]] = drawn(classification, outcomes, "acc1", "t/x")
    scale = {**SCALE, "columns": {"Mean": ["t/x:acc1"]}}
    scores = read(EXPERIMENT, scale, runs, tmp_path)
    assert scores.measured["value"].tolist() == pytest.approx([34, 25])
    np.testing.assert_allclose(scores.of("a", "Mean", [0])[0], 100 * found["a"])
    wrong = {**SCALE, "columns": {"Mean": ["t/x:acc9"]}}
    with pytest.raises(UserError, match="a0/records.jsonl: t/x has no acc9"):
        read(EXPERIMENT, wrong, runs, tmp_path)


def test_rows_that_the_paper_finds_alike_are_not_judged(tmp_path):
    runs = scored(tmp_path, {"a": [(0.5, 0.5)], "b": [(0.3, 0.3)]})
    experiment = edited(EXPERIMENT, "comparisons//0//similar", True)
    (line,) = compare(experiment, read(experiment, SCALE, runs, tmp_path)).to_dict("records")
    assert line["verdict"] == "alike in the paper"
