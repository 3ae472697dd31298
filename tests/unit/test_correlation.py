"""Rank correlation of two columns against its formula, and the intervals of relations that are known."""

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr
from scored import record, write_scores

from clipdr.report import correlation
from clipdr.report.scores import read
from clipdr.report.table import build
from clipdr.report.verdicts import CONTRADICTED, REPRODUCED, UNDECIDED

ROWS = 12
EXPERIMENT = {
    "title": "Near and good",
    "source": "x",
    "seeds": [0, 1],
    "columns": ["Near", "Good"],
    "correlation": {"columns": ["Near"], "with": "Good"},
    "rows": [{"name": str(n), "settings": {"objective": {"fd": n}}} for n in range(ROWS)],
}
SCALE = {"name": "tiny", "title": "Tiny", "columns": {"Near": ["t/x"], "Good": ["t/y"]}}


def report(folder, near, good) -> dict:
    runs = []
    for n, pair in enumerate(zip(near, good, strict=True)):
        for seed in (0, 1):
            values = [
                record(key, value + 0.001 * seed, 100, 10) for key, value in zip(("t/x", "t/y"), pair, strict=True)
            ]
            write_scores(folder / f"{n}-{seed}", values, np.linspace(-0.001, 0.001, 1001))
            runs.append({"row": str(n), "seed": seed, "scores": [f"{n}-{seed}"]})
    return {"experiment": EXPERIMENT, "scale": SCALE, "runs": runs}


RISING = np.linspace(0.2, 0.8, ROWS)


@pytest.mark.parametrize(
    "good, expected",
    [
        (RISING**2, REPRODUCED),
        (1 - RISING, CONTRADICTED),
        (0.5 + 0.2 * np.cos(np.arange(ROWS) * np.pi), UNDECIDED),  # up and down
    ],
)
def test_the_interval_decides(tmp_path, good, expected):
    told = report(tmp_path, RISING, good)
    (found,) = correlation.correlations(EXPERIMENT, read(EXPERIMENT, SCALE, told["runs"], tmp_path))
    ranks = np.argsort(np.argsort(good, kind="stable"), kind="stable")
    if expected != UNDECIDED:  # without ties, by Spearman's formula
        assert found.value == pytest.approx(1 - 6 * ((ranks - np.arange(ROWS)) ** 2).sum() / (ROWS * (ROWS**2 - 1)))
    assert found.value == pytest.approx(spearmanr(RISING, good).statistic) and found.rows == ROWS
    assert -1 - 1e-9 <= found.low <= found.high <= 1 + 1e-9
    (line,) = correlation.lines([found])
    assert line["verdict"] == expected


def test_table_and_picture_show_it(tmp_path):
    told = report(tmp_path, RISING, RISING**2)
    build(told, tmp_path, tmp_path / "table")
    assert "| Near, Good | +1.00 [" in (tmp_path / "table.md").read_text()
    for name in ("a.png", "b.png"):
        correlation.draw(told, tmp_path, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert min(Image.open(tmp_path / "a.png").size) > 300
