"""Latencies are of the exported files that were compared, and their statistics are what they say."""

import json
import shutil
import statistics
import time

import pytest

from clipdr.deploy import latency
from clipdr.errors import UserError

NAME = "mini-mct-2"


def test_latency_file(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    monkeypatch.setattr(latency, "WARM_UP", 0.01)
    result = latency.measure(NAME, exported, tmp_path / "l" / "x.json", 1, 30)
    assert json.loads((tmp_path / "l" / "x.json").read_text()) == result
    assert result.keys() == {"network", "device", "threads", "batch_size", "versions", "image", "text"}
    assert (result["network"], result["threads"], result["batch_size"]) == (NAME, 1, 1)
    assert result["device"].endswith((" cores", " core")) and result["versions"].keys() == {"torch", "onnxruntime"}
    for tower in ("image", "text"):
        assert result[tower].keys() == {"onnxruntime", "torch"}
        for entry in result[tower].values():
            assert entry.keys() == {"median_ms", "q1_ms", "q3_ms", "runs"} and entry["runs"] >= 30
            assert 0 < entry["q1_ms"] <= entry["median_ms"] <= entry["q3_ms"] < 1000


def test_backends_take_turns_until_both_have_enough(monkeypatch):
    monkeypatch.setattr(latency, "WARM_UP", 0.01)
    order = []

    def call(name, seconds):
        order.append(name)
        time.sleep(seconds)

    calls = {"a": lambda: call("a", 0.002), "b": lambda: call("b", 0.02)}
    times = latency.alternate(calls, 20, 0.5)
    assert sum(times["a"]) >= 0.5 and len(times["b"]) >= 20
    assert 0.002 <= statistics.median(times["a"]) < 0.02 <= statistics.median(times["b"])
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) >= 6


def test_slow_networks_get_fewer_runs(monkeypatch):
    for name, value in {"LONG": 0.5, "WARM_UP": 0.01}.items():
        monkeypatch.setattr(latency, name, value)
    times = latency.alternate({"slow": lambda: time.sleep(0.02)}, 10**6, 0.1)
    assert latency.MIN_RUNS <= len(times["slow"]) < 100


def test_summary_is_median_and_quartiles():
    assert latency.summary([0.004, 0.001, 0.002, 0.005, 0.003]) == pytest.approx(
        {"median_ms": 3.0, "q1_ms": 2.0, "q3_ms": 4.0, "runs": 5}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: shutil.rmtree(f), r"export.json is missing; export mini-mct-2 first"),
        (lambda f: (f / "export.json").write_text("{}"), "no report of an export"),
        (lambda f: (f / "text.onnx").unlink(), r"text.onnx is missing; delete"),
        (lambda f: (f / "text.onnx").write_bytes(b"x"), r"text.onnx is not the file that was compared with torch"),
    ],
)
def test_exports_that_cannot_be_measured(exported, tmp_path, change, message):
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    change(copy)
    with pytest.raises(UserError, match=message):
        latency.measure(NAME, copy, tmp_path / "x.json", 1, 30)
    assert not (tmp_path / "x.json").exists()


def test_measuring_needs_the_same_network_and_enough_runs(exported, tmp_path):
    with pytest.raises(UserError, match="is of network 'mini-mct-2', not 'mini-mct-4'"):
        latency.measure("mini-mct-4", exported, tmp_path / "x.json", 1, 30)
    with pytest.raises(UserError, match="--runs is 29"):
        latency.measure(NAME, exported, tmp_path / "x.json", 1, 29)
    with pytest.raises(UserError, match="--threads is 0"):
        latency.measure(NAME, exported, tmp_path / "x.json", 0, 30)
