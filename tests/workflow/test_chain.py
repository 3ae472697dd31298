"""The chain at scale `ci`: from an empty folder to a table, twice the same bytes, and reruns of what changed only."""

import json
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from conftest import CI, copy_of_the_repository, planned_jobs, run_chain, snakemake

pytestmark = pytest.mark.slow
ROWS, SEEDS = 6, 2  # of table2, at scale ci
REPORT = {"table": 1, "figure": 1, "all": 1}


@contextmanager
def edited(path: Path, old: str, new: str):
    """`path` with `old` replaced by `new`, and put back afterwards."""
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {path}"
    path.write_text(text.replace(old, new))
    try:
        yield
    finally:
        path.write_text(text)


def test_the_table_has_every_row_and_says_what_it_is(chain: Path):
    table = pd.read_csv(chain / "results/tables/table2.csv")
    assert len(table) == ROWS
    assert set(table["seeds"]) == {SEEDS}
    assert table["IN-val paper"].tolist() == [44.5, 51.9, 54.5, 59.3, 61.7, 60.7]
    assert table["IN-val"].between(0, 100).all()
    assert "scale `ci`" in (chain / "results/tables/table2.md").read_text()
    assert (chain / "results/figures/table2.png").stat().st_size > 10_000


def test_runs_are_whole_and_shared(chain: Path):
    runs = sorted((chain / "results/runs").iterdir())
    assert len(runs) == ROWS * SEEDS
    for run in runs:
        assert {path.name for path in run.iterdir()} == {"settings.yaml", "checkpoint.pt", "log.jsonl", "model", "eval"}
        records = [json.loads(line) for line in (run / "eval/emoji.jsonl").read_text().splitlines()]
        assert [record["key"] for record in records][0] == "emoji/val"


def test_two_runs_from_empty_give_the_same_bytes(chain: Path, tmp_path: Path):
    other = copy_of_the_repository(tmp_path / "elsewhere")
    run_chain(other)
    for name in ("tables/table2.csv", "tables/table2.md", "captions/emoji-ci/12M.parquet"):
        assert (chain / "results" / name).read_bytes() == (other / "results" / name).read_bytes(), name
    shards = sorted((chain / "results/reinforced").rglob("*.tar"))
    assert shards
    for shard in shards:
        assert shard.read_bytes() == (other / shard.relative_to(chain)).read_bytes(), shard


def test_no_held_out_drawing_is_in_the_pool(chain: Path):
    from clipdr.files import sha256
    from clipdr.data.shards import read_shard

    trained = set(pd.read_parquet(chain / "results/pool/emoji-ci/index.parquet")["sha256"])
    held_out = [s["webp"] for tar in (chain / "results/tasks/emoji-ci").rglob("*.tar") for s in read_shard(tar)]
    assert len(trained) >= 40
    assert len(held_out) >= 100
    assert not trained & {sha256(image) for image in held_out}


def test_a_second_call_does_nothing_and_says_so(chain: Path):
    done = snakemake(chain, "--cores", "2", *CI)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


def test_a_changed_comment_reruns_nothing(chain: Path):
    loss = chain / "src/clipdr/losses/reinforced.py"
    with edited(loss, "    total = 0.0\n", "    # a comment\n    total = 0.0\n"):
        assert planned_jobs(chain) == {}
    with edited(loss, '"""Eq. 3: the sum', '"""Equation 3: the sum'):
        assert planned_jobs(chain) == {}
    with edited(chain / "config/experiments/table2.yaml", "title:", "# a comment\ntitle:"):
        assert planned_jobs(chain) == {}
    with edited(chain / "config/suites/emoji.yaml", "tasks:", "# a comment\ntasks:"):
        assert planned_jobs(chain) == {}


def test_a_changed_loss_reruns_training_and_what_follows(chain: Path):
    with edited(chain / "src/clipdr/losses/reinforced.py", "    total = 0.0\n", "    total = 0.1\n"):
        assert planned_jobs(chain) == Counter(train=ROWS * SEEDS, evaluate=ROWS * SEEDS, **REPORT)


def test_a_changed_lambda_trains_only_the_new_runs(chain: Path):
    with edited(chain / "config/experiments/table2.yaml", "{lambda: 0.7,", "{lambda: 0.6,"):
        assert planned_jobs(chain) == Counter(train=SEEDS, evaluate=SEEDS, **REPORT)


def test_a_changed_captioner_reruns_what_reads_captions(chain: Path):
    captioner = "captioner: {model: mini-captioner, steps: 6,"
    with edited(chain / "config/scales/ci.yaml", captioner, captioner.replace("6", "7")):
        jobs = planned_jobs(chain)
    trained = ROWS * SEEDS
    assert jobs == Counter(
        member=1, caption=1, reinforce=2, views=2, train=trained, evaluate=trained, chain=1, **REPORT
    )


def test_a_changed_published_value_reruns_the_report_only(chain: Path):
    with edited(chain / "config/experiments/table2.yaml", "IN-val: 44.5", "IN-val: 44.6"):
        assert planned_jobs(chain) == Counter(REPORT)


def test_rerun_triggers_can_be_switched_off(chain: Path):
    with edited(chain / "src/clipdr/losses/reinforced.py", "    total = 0.0\n", "    total = 0.1\n"):
        assert planned_jobs(chain, "--rerun-triggers", "mtime", "input", *CI) == {}
