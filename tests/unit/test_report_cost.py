"""The table of costs, by hand: three rounds of three rows."""

import json

import pandas as pd
import pytest

from clipdr.errors import UserError
from clipdr.report.cost import build, ratios

SECONDS = {"plain": [0.1, 0.2, 0.1], "slow": [1.0, 1.0, 1.2], "stored": [0.1, 0.19, 0.12]}
HOURS = {"plain": 1.3, "slow": 21.1, "stored": 1.3}
COSTS = {
    "device": "a CPU, 2 cores",
    "threads": 1,
    "torch": "2.14.1",
    "steps": 10,
    "runs": [
        {"row": row, "batch_size": 8, "seconds": seconds, "waited": [0.25 * value for value in seconds]}
        for row, seconds in SECONDS.items()
    ],
}
REPORT = {
    "experiment": {
        "title": "Time",
        "source": "a paper, Table 1",
        "columns": ["Hours per epoch"],
        "cost": {"steps": 10, "rounds": 3},
        "rows": [
            {
                "name": row,
                "settings": {"objective": {"lambda": float(row != "plain")}},
                "published": {"Hours per epoch": HOURS[row]},
            }
            for row in SECONDS
        ],
        "comparisons": [
            {"better": "stored", "than": "slow", "column": "Hours per epoch", "claim": "storing saves"},
            {"better": "stored", "than": "plain", "column": "Hours per epoch", "claim": "free", "similar": True},
            {"better": "plain", "than": "stored", "column": "Hours per epoch", "claim": "dear"},
        ],
    },
    "scale": {"name": "tiny", "title": "Tiny"},
    "runs": [{"row": row, "dataset size": 400} for row in SECONDS],
    "costs": "costs/x/costs.json",
}


@pytest.fixture()
def built(tmp_path):
    """Folder of the table, and the file of costs."""
    path = tmp_path / "results/costs/x/costs.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(COSTS))
    build(REPORT, tmp_path / "results", tmp_path / "table")
    return tmp_path, path


def test_times_are_medians_and_ratios_are_taken_within_a_round(built):
    table = pd.read_csv(built[0] / "table.csv").set_index("row")
    assert table["seconds per step"].to_dict() == {"plain": 0.1, "slow": 1.0, "stored": 0.12}
    assert table["waiting for data"].to_dict() == {"plain": 0.025, "slow": 0.25, "stored": 0.03}
    assert table["seconds per epoch"].to_dict() == {"plain": 5.0, "slow": 50.0, "stored": 6.0}  # 50 steps
    found = table.loc["slow", ["times the first", "lowest", "highest"]].tolist()
    assert found == [10.0, 5.0, 12.0]  # 1.0 / 0.1, 1.0 / 0.2, 1.2 / 0.1
    assert table["paper times"].tolist() == [1.0, pytest.approx(16.2308, abs=1e-4), 1.0]


def test_a_claim_holds_in_every_round_or_not(built):
    text = " ".join((built[0] / "table.md").read_text().split())
    assert "storing saves | “slow” / “stored” | 10.00 [5.26–10.00]" in text and "holds (3 of 3 rounds)" in text
    assert ratios({run["row"]: run for run in COSTS["runs"]}, "stored", "plain") == pytest.approx([1.0, 0.95, 1.2])
    assert "does not hold (1 of 3 rounds)" in text and "alike in the paper" in text
    assert "NOT THE PAPER'S SETTING" in text and "a CPU, 2 cores" in text
    assert text.count("| 21.1 ") == 1


def test_latex_has_a_cell_for_every_head(built):
    lines = (built[0] / "table.tex").read_text().splitlines()
    body = [line for line in lines if line.endswith(r"\\")]
    assert len(body) == 1 + len(SECONDS) and len({line.count(" & ") for line in body}) == 1
    columns = next(line for line in lines if "begin{tabular}" in line).split("{")[2].rstrip("}")
    assert len(columns) == body[0].count(" & ") + 1 and columns.startswith("ll") and "λ" not in "".join(lines)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda costs: costs["runs"].pop(), "has no row 'stored'"),
        (lambda costs: costs["runs"][0]["seconds"].pop(), "no equal numbers of positive times"),
        (lambda costs: costs["runs"][1].update(seconds=[1.0, 0.0, 1.0]), "no equal numbers of positive times"),
        (lambda costs: costs.pop("device"), "cannot be read as costs"),
    ],
)
def test_costs_that_are_not_whole_are_refused(built, change, says):
    folder, path = built
    spoilt = json.loads(path.read_text())
    change(spoilt)
    path.write_text(json.dumps(spoilt))
    with pytest.raises(UserError, match=says):
        build(REPORT, folder / "results", folder / "table")
    path.unlink()
    with pytest.raises(UserError, match="missing; measure the costs first"):
        build(REPORT, folder / "results", folder / "table")
