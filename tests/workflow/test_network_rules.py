"""The rules about networks and the training of MCi and MCt, run for real on miniatures, at scale `ci`."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import CI, planned_jobs, snakemake

from clipdr.models.create import create_model
from clipdr.models.fold import reparameterize

pytestmark = pytest.mark.slow
TABLE = """
title: Two miniatures
source: a test
seeds: [0]
columns: [Params img (M), Params txt (M), Latency img (ms), Latency txt (ms), IN-val]
settings:
  objective: {name: reinforced, lambda: 1, teachers: ensemble}
  data: {dataset: DataComp-12M, captions: [real, syn], augmentation: strong}
rows:
  - {name: MCt, settings: {model: "ViT-B/16:MCt-2"}, network: mini-mct-2}
  - {name: MCi, settings: {model: "MCi2:Base"}, network: mini-mci-base}
"""
# What figure1 draws: published accuracies.
TABLE7 = """
title: Two miniatures
source: a test
columns: [Latency img (ms), Latency txt (ms), Avg-38]
latency_device: iPhone 12 Pro Max
rows:
  - {name: MCt, network: mini-mct-2, published: {Latency img (ms): 1.5, Latency txt (ms): 1.6, Avg-38: 50.0}}
  - {name: MCi, network: mini-mci-base, published: {Latency img (ms): 2.5, Latency txt (ms): 3.3, Avg-38: 60.0}}
"""
NETWORKS = {"MCt": "mini-mct-2", "MCi": "mini-mci-base"}
TARGETS = (*CI, "miniatures", "figure1", "models")


@pytest.fixture(scope="module")
def results(chain: Path):
    """The results after a table and figure of two miniatures; the configuration is put back afterwards."""
    table, table7 = (chain / f"config/experiments/mobileclip/{name}.yaml" for name in ("miniatures", "table7"))
    text = table7.read_text()
    table.write_text(TABLE)
    table7.write_text(TABLE7)
    done = snakemake(chain, "--cores", "2", *TARGETS)
    assert done.returncode == 0, done.stdout[-6000:]
    yield chain / "results"
    table.unlink()
    table7.write_text(text)


def test_a_table_has_trained_accuracy_counted_parameters_and_measured_latency(results: Path):
    table = pd.read_csv(results / "ci/tables/mobileclip/miniatures.csv").set_index("row")
    assert list(table.index) == list(NETWORKS)
    assert table["IN-val"].between(0, 100).all()
    (tokenizer,) = (results / "tokenizer").glob("*/tokenizer")
    for row, name in NETWORKS.items():
        with torch.device("meta"):
            model = reparameterize(create_model(name, tokenizer=tokenizer))
        for column, tower in {"Params img (M)": model.visual, "Params txt (M)": model.text}.items():
            assert table.loc[row, column] == pytest.approx(sum(p.numel() for p in tower.parameters()) / 1e6, abs=0.005)
        latency = json.loads((results / f"networks/latency/{name}.json").read_text())
        for column, tower in {"Latency img (ms)": "image", "Latency txt (ms)": "text"}.items():
            assert table.loc[row, column] == pytest.approx(latency[tower]["onnxruntime"]["median_ms"], abs=0.005)


def test_every_loss_is_finite_and_the_models_are_the_rows(results: Path):
    runs = [run for run in (results / "runs").iterdir() if run.name.startswith(tuple(NETWORKS.values()))]
    assert len(runs) == len(NETWORKS)
    for run in runs:
        losses = [json.loads(line)["loss"] for line in (run / "model/log.jsonl").read_text().splitlines()]
        assert losses and all(0 < loss < 100 for loss in losses)


def test_onnx_files_are_gone_and_core_ml_files_stay(results: Path):
    for name in NETWORKS.values():
        kept = {path.name for path in (results / "export" / name).iterdir()}
        assert kept == {"image.mlpackage", "text.mlpackage", "export.json"}


def test_the_figure_is_drawn_and_a_second_call_does_nothing(results: Path):
    assert (results / "ci/figures/mobileclip/figure1.png").stat().st_size > 10_000
    assert planned_jobs(results.parent, *TARGETS) == {}
