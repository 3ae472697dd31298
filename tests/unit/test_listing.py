"""What `snakemake list` says is left, against folders that are made by hand."""

from collections import Counter
from pathlib import Path

import pytest
from shipped import MODELS, SCALE, check

from clipdr import listing
from clipdr.artifacts import all_of
from clipdr.chain import evaluation, suite_of
from clipdr.config import Planned

TASKS = {"tasks": [{"key": "emoji/val", "title": "val", "kind": "classification"}]}
SMALL = {**SCALE, "datasets": {"DataComp-12M": {"name": "12M", "size": 400, "seed": 0, "chunks": 3}}}


@pytest.fixture
def scored():
    """The evaluation of the first run of Table 2's last row, which reads captions and embeddings of three chunks."""
    run = next(run for run in check(scale=SMALL) if run.row == "λ = 0.7")
    return evaluation([run.artifact], suite_of(SMALL, MODELS, TASKS))


def make(results: Path, path: str) -> None:
    (results / path).mkdir(parents=True)


def test_from_nothing_all_that_a_run_is_made_from_is_left(scored, tmp_path: Path):
    assert listing.left([scored], tmp_path) == {
        **{"pool": 1, "tokenizer": 1, "zoo": 3, "subset": 1, "views": 1, "train": 1, "evaluate": 1},
        **{"caption": 3, "reinforce": 3},
    }


def test_what_is_there_and_all_behind_it_is_done(scored, tmp_path: Path):
    for output in ("runs/{}/model", "pool/{}/shards"):  # a pool has the tasks, too
        stage = output.partition("/")[0]
        (name,) = (one.name for one in all_of([scored]).values() if one.stage == stage)
        make(tmp_path, output.format(name))
    assert listing.left([scored], tmp_path) == {"evaluate": 1}
    make(tmp_path, f"{scored.path}/scores/0-of-1")
    assert listing.left([scored], tmp_path) == Counter()
    assert listing.left([scored], tmp_path, parts=2) == {"evaluate": 2}


def test_chunks_are_counted_one_by_one_and_shared_work_once(scored, tmp_path: Path):
    (captions,) = (one for one in all_of([scored]).values() if one.stage == "captions")
    make(tmp_path, f"{captions.path}/chunks/1-of-3")
    assert listing.left([scored, scored], tmp_path)["caption"] == 2


def test_times_are_the_means_of_a_rules_jobs(tmp_path: Path):
    for number, took in enumerate((10.0, 20.0)):
        file = tmp_path / f"benchmarks/reinforce/x-1/{number}-of-2.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\th:m:s\tmax_rss\n{took}\t0:00:10\t900\n")
    assert listing.seconds(tmp_path) == {"reinforce": 15.0}


def test_a_cost_is_said_only_where_every_rule_has_run():
    assert listing.cost({}, {}) == "done"
    assert listing.cost({"train": 1, "zoo": 2}, {"train": 9.0}) == "3 jobs left; no zoo has run here yet"
    assert listing.cost({"train": 1}, {"train": 9.0}) == "1 job left, less than a minute"
    assert listing.cost({"train": 4, "zoo": 1}, {"train": 60.0, "zoo": 120.0}) == "5 jobs left, 6 minutes one by one"


def test_a_listing_is_of_all_targets_by_paper_counts_shared_runs_once_and_says_why_not():
    (first, *_) = runs = check(models=MODELS)
    planned = {
        "p-a": Planned("p", "a", {"title": "A"}, {}, {}, [first, first]),
        "q-b": Planned("q", "b", {"title": "B"}, {}, {}, []),
    }
    costs = {"p-a": "done", "q-b": "2 jobs left", "p-d": "1 job left"}
    assert listing.listing(planned, costs, {"p-c": "too large"}, {"p-d": "A picture"}).split("\n") == [
        "p",
        f"  {'p-a':22} A (1 runs): done",
        f"  {'p-c':22} not at this scale: too large",
        f"  {'d':22} A picture: 1 job left",
        "q",
        f"  {'q-b':22} B: 2 jobs left",
    ]
    assert len({run.name for run in runs}) == 18  # six rows by three seeds
