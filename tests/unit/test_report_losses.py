"""Loss curves: what is read of runs' logs, and the picture."""

import json

import pytest
from PIL import Image
from refusals import refused

from clipdr.report import losses


@pytest.fixture()
def report(tmp_path):
    runs = []
    for row in ("first", "second"):
        for seed in (0, 1):
            log = f"runs/{row}{seed}/model/log.jsonl"
            (tmp_path / log).parent.mkdir(parents=True)
            records = [{"step": n, "samples": 8 * n, "loss": 4.0 / n + seed} for n in (1, 2, 4)]
            (tmp_path / log).write_text("".join(json.dumps(record) + "\n" for record in records) + '{"step": 5, "lo')
            runs.append({"row": row, "seed": seed, "log": log})
    runs.append({"row": "a teacher", "seed": 0})
    return {"experiment": {"title": "Two rows"}, "scale": {"name": "tiny"}, "runs": runs}


def test_curves_are_means_over_seeds_of_what_logs_say(report, tmp_path):
    read = losses.read(report["runs"], tmp_path)
    means = read.groupby(["row", "samples"])["loss"].mean()
    assert means["first"].to_dict() == {8: 4.5, 16: 2.5, 32: 1.5} and set(read["row"]) == {"first", "second"}


@pytest.mark.slow
def test_the_picture_is_the_same_each_time(report, tmp_path):
    for name in ("a.png", "b.png"):
        losses.draw(report, tmp_path, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert min(Image.open(tmp_path / "a.png").size) > 300


def test_a_run_without_a_log_is_refused(report, tmp_path):
    (tmp_path / report["runs"][0]["log"]).write_text("")
    assert "log.jsonl is missing or has no record; train the run again" in refused(
        losses.read, report["runs"], tmp_path
    )
