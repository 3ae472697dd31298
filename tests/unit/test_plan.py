"""What a scale would cost, against sums by hand."""

import csv
from pathlib import Path

import pytest

from clipdr import config, plan
from clipdr.chain import evaluation, suite_of
from clipdr.schema import load

REPO = Path(__file__).parents[2]
RATES = load(REPO, "config/rates.yaml", "rates")


def lines_at(name: str, rates: dict = RATES, seconds: dict | None = None) -> dict[str, dict]:
    """Stage -> line, of Table 2."""
    planned, _ = config.load_experiments(REPO, {"scale": name, "experiments": ["mobileclip-table2"]})
    one = planned["mobileclip-table2"]
    wanted = [evaluation([run.artifact], suite_of(one.scale, config.load_models(REPO), one.suite)) for run in one.runs]
    return {line["stage"]: line for line in plan.plan(wanted, one.scale, rates, seconds or {})}


def test_the_papers_ablations_cost_what_can_be_said_by_hand():
    lines = lines_at("paper12m")
    # Six rows of 30,000 steps of 8192, at 1.3 h for 12.8M on eight GPUs; the rate is rounded to three digits.
    assert lines["runs"]["gpu_hours"] == pytest.approx(6 * 30000 * 8192 / 12.8e6 * 1.3 * 8, rel=2e-3)
    assert lines["runs"]["amount"] == "1,474,560,000 samples" and lines["runs"]["jobs"] == 6
    # Light views for one teacher's row are embedded anew by both, 30 of each image: 2.8 h for 12.8M on eight GPUs.
    assert lines["reinforced"]["gpu_hours"] == pytest.approx(30 * 2.8 * 8, rel=2e-3)
    # The published set: 0.9 TB of images and 1.2 TB of reinforcements, where the paper says 1.9 for both.
    assert lines["pool"]["download_gb"] == pytest.approx(2100, rel=0.01)
    assert lines["pool"]["storage_gb"] == 2 * lines["pool"]["download_gb"]
    assert lines["pool"]["jobs"] == 3 * 128 + 1 and lines["captions"]["jobs"] == 128
    assert lines["captions"]["gpu_hours"] == 0, "they are published"
    assert lines["eval"]["gpu_hours"] is None, "no rate is known"


def test_without_a_rate_there_is_a_dash_and_not_nothing():
    without = {key: value for key, value in RATES.items() if key not in ("trained", "view")}
    lines = lines_at("paper12m", without)
    assert lines["runs"]["gpu_hours"] is None and lines["pool"]["storage_gb"] is None
    assert lines["subset"]["gpu_hours"] == 0


def test_a_laptop_has_hours_of_earlier_jobs_and_needs_no_gpu():
    lines = lines_at("mini", seconds={"train": 60.0})
    assert lines["runs"] == {
        **{"stage": "runs", "jobs": 18, "amount": f"{18 * 38400:,} samples"},
        **{"gpu_hours": 0, "core_hours": 18 / 60, "storage_gb": 0, "download_gb": 0},
    }
    assert lines["zoo"]["core_hours"] is None
    assert lines["reinforced"]["storage_gb"] is None, "the rates are of web images"


def test_files_have_the_sums_the_rates_and_the_papers_figures(tmp_path: Path):
    tables = [load(REPO, f"config/experiments/mobileclip/{name}.yaml", "experiment") for name in ("table4c", "table4d")]
    lines = list(lines_at("paper12m").values())
    plan.write(lines, "Title", RATES, plan.published(*tables), tmp_path / "plan-x")
    with (tmp_path / "plan-x.csv").open() as stream:
        *stages, total = csv.DictReader(stream)
    assert total["stage"] == "all" and int(total["jobs"]) == sum(int(line["jobs"]) for line in stages)
    text = (tmp_path / "plan-x.md").read_text()
    assert "no rate is known for eval" in text and "| DataCompDR-12M (Table 4c)" in text
    for rate in ("image", "view", "embedded"):
        assert RATES[rate]["source"] in text


def test_a_corpus_costs_images_times_sentences():
    """Algorithm 1 at 40M images and 28.4M sentences, a million times a million of them at the rate's seconds."""
    planned, _ = config.load_experiments(REPO, {"scale": "paper40m", "experiments": ["dimefm-corpus"]})
    one = planned["dimefm-corpus"]
    wanted = [run.artifact for run in one.runs if run.row.startswith("constructed, the first")]
    rates = {**RATES, "compared": {"value": 3600.0, "source": "by hand"}}
    lines = {line["stage"]: line for line in plan.plan(wanted, one.scale, rates, {})}
    assert lines["corpora"]["amount"] == f"{40_000_000 * 28_400_000:,} comparisons"
    assert lines["corpora"]["core_hours"] == pytest.approx(40 * 28.4)
    del rates["compared"]
    lines = {line["stage"]: line for line in plan.plan(wanted, one.scale, rates, {})}
    assert lines["corpora"]["core_hours"] is None
