"""How much sooner a curve gets somewhere, against numbers worked out by hand; and the picture of it."""

import copy
import json

import pandas as pd
import pytest
from PIL import Image
from scored import record, write_scores

from clipdr.report import curve
from clipdr.report.efficiency import efficiency, efficiency_lines
from clipdr.report.scores import read
from clipdr.report.table import build, summarise


def row(series: str, x: float, paper: float | None) -> dict:
    name = f"{series} {x}"
    point = {"series": series, "x": x}
    return {"name": name, "settings": {"recipe": f"{x}"}, "point": point, "published": {"IN-val": paper}}


EXPERIMENT = {
    "title": "Two curves",
    "source": "arXiv 0000.00000, Figure 9",
    "seeds": [0, 1],
    "columns": ["IN-val"],
    "curve": {"quantity": "seen samples", "unit": "billions", "series": ["fast", "slow"]},
    "rows": [row("fast", 1.0, 65.3), row("fast", 4.0, 71.7), row("slow", 1.0, 50.1), row("slow", 4.0, None)],
}
# Our mean accuracies: fast reaches 30 at 100 samples and 50 at 1600; slow has 10 and 40.
OURS = {"fast 1.0": (100, 0.3), "fast 4.0": (1600, 0.5), "slow 1.0": (100, 0.1), "slow 4.0": (1600, 0.4)}


@pytest.fixture()
def report(tmp_path):
    runs = []
    for name, (samples, accuracy) in OURS.items():
        for seed in (0, 1):
            folder = f"{name}-{seed}"
            write_scores(tmp_path / folder, [record("val", accuracy + (0.02 if seed else -0.02), 100, 10)])
            runs.append({"row": name, "seed": seed, "seen samples": samples, "scores": [folder]})
    return {
        "experiment": EXPERIMENT,
        "scale": {"name": "tiny", "title": "Tiny", "columns": {"IN-val": ["val"]}},
        "runs": runs,
    }


@pytest.mark.parametrize(
    ("better", "other", "expected"),
    [
        ([(100, 30), (1600, 50)], [(100, 10), (1600, 40)], "4.0×"),  # half way in the logarithm: at 400
        ([(1, 50), (2, 60)], [(1, 10), (8, 40)], "≥ 8.0×"),  # above it from the start
        ([(1, 5), (8, 20)], [(1, 10), (8, 40)], "–"),  # never
        ([(1, 50), (2, 60)], [(1, 10)], "–"),  # above it from the start, which is no sooner
        (
            [(1, 5), (2, 40), (4, 60)],
            [(1, 10), (8, 40), (16, 30)],
            "4.0×",
        ),  # on a point; the best of the other, not the last
    ],
)
def test_the_factor_is_read_off_between_the_points(better, other, expected):
    assert str(efficiency(better, other)) == expected


def test_the_table_says_how_much_less_is_needed(report, tmp_path):
    scores = read(EXPERIMENT, report["scale"], report["runs"], tmp_path)
    (line,) = efficiency_lines(report, summarise(EXPERIMENT, scores))
    assert line == {
        "column": "IN-val",
        "best of slow (scale tiny)": "40.0",
        "fast needs less by (scale tiny)": "4.0×",
        "best of slow (paper)": "50.1",
        "fast needs less by (paper)": "–",  # its only comparison is at the same number of samples
    }
    build(report, tmp_path, tmp_path / "table")
    assert "## Learning efficiency" in (tmp_path / "table.md").read_text()
    assert "4.0×" in (tmp_path / "table.md").read_text()


@pytest.mark.slow
def test_the_curve_is_drawn_with_the_same_bytes_each_time(report, tmp_path):
    for name in ("a.png", "b.png"):
        curve.draw(report, tmp_path, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert min(Image.open(tmp_path / "a.png").size) > 300


def counted(report: dict, tmp_path) -> dict:
    """The report with work: fast rows compute half of a GMAC for a sample, and slow ones two; a third series joins."""
    lines = {name: {"gmacs": 0.1, "sample_gmacs": 0.5 if name.startswith("fast") else 2.0} for name in OURS}
    (tmp_path / "work.json").write_text(json.dumps(lines))
    experiment = copy.deepcopy(EXPERIMENT) | {"columns": ["IN-val", "GMACs", "training GMACs"]}
    experiment["curve"] = {"quantity": "training GMACs", "series": ["fast", "slow", "slower"]}
    experiment["comparisons"] = [
        {"better": "fast 4.0", "than": "slow 4.0", "column": "IN-val", "claim": "c", "difference": 7.5},
        {"better": "fast 1.0", "than": "slow 1.0", "column": "IN-val", "claim": "d", "difference": 7.5},
    ]
    for row in experiment["rows"]:
        del row["point"]["x"]
    return {**report, "experiment": experiment, "work": "work.json"}


def test_a_table_shows_what_its_runs_compute(report, tmp_path):
    build(counted(report, tmp_path), tmp_path, tmp_path / "table")
    table = pd.read_csv(tmp_path / "table.csv").set_index("row")
    assert table["training GMACs"].to_dict() == {"fast 1.0": 50, "fast 4.0": 800, "slow 1.0": 200, "slow 4.0": 3200}
    assert set(table["GMACs"]) == {0.1}
    text = (tmp_path / "table.md").read_text()
    assert "training GMACs (scale tiny)" in text and "## Work" in text
    assert "training GMACs" in (tmp_path / "table.tex").read_text()
    line = next(line for line in text.splitlines() if line.startswith("| IN-val ") and "×" in line)
    assert "16.0×" in line, "four times fewer samples, each of a quarter of the work"
    claims = [line for line in text.splitlines() if line.startswith(("| c ", "| d "))]
    assert "+7.5" in claims[0] and "+15.2" in claims[1], "where both cells are published, they say the difference"


@pytest.mark.slow
def test_a_curve_of_work_has_a_third_series(report, tmp_path):
    curve.draw(counted(report, tmp_path), tmp_path, tmp_path / "curve.png")
    assert Image.open(tmp_path / "curve.png").width > 1000
