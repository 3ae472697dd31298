"""The chain at scale `ci`: from an empty folder to a table, twice the same bytes, and reruns of what changed only."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from clones import copy_of_the_repository
from conftest import CI, REPO, planned_jobs, snakemake
from test_docs import script

from clipdr.text import markdown_tables

pytestmark = pytest.mark.slow
ROWS, SEEDS, CHUNKS = 6, 2, 2  # of table2 and its dataset, at scale ci
LAST = ("λ = 0.7", 0)
REPORT = {"table": 1, "figure": 1, "losses": 1, "page": 1, "all": 1}


TABLE2 = "config/experiments/mobileclip/table2.yaml"
LOSS = "src/clipdr/losses/reinforced.py"


@contextmanager
def edited(path: Path, edit: Callable[[str], str]):
    """`path` with its text changed by `edit`, and put back afterwards."""
    text = path.read_text()
    changed = edit(text)
    assert changed != text, f"nothing to change in {path}"
    path.write_text(changed)
    try:
        yield
    finally:
        path.write_text(text)


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


def appended(line: str) -> Callable[[str], str]:
    return lambda text: f"{text}\n\n{line}\n"


def test_the_table_has_every_row_and_says_what_it_is(chain: Path):
    table = pd.read_csv(chain / "results/ci/tables/mobileclip/table2.csv")
    assert len(table) == ROWS
    assert set(table["seeds"]) == {SEEDS}
    assert table["IN-val paper"].tolist() == [44.5, 51.9, 54.5, 59.3, 61.7, 60.7]
    assert table["IN-val"].between(0, 100).all()
    assert "scale `ci`" in (chain / "results/ci/tables/mobileclip/table2.md").read_text()
    assert (chain / "results/ci/figures/mobileclip/table2.png").stat().st_size > 10_000


def test_runs_are_whole_and_shared(chain: Path):
    runs = sorted((chain / "results/runs").iterdir())
    assert len(runs) == ROWS * SEEDS
    for run in runs:
        assert {path.name for path in run.iterdir()} == {"settings.json", "model"}
        assert {"open_clip_config.json", "open_clip_pytorch_model.bin", "tokenizer.json", "log.jsonl"} <= {
            path.name for path in (run / "model").iterdir()
        }
        (records,) = (chain / "results/eval" / run.name).glob("emoji-*/scores/0-of-1/records.jsonl")
        assert json.loads(records.read_text().splitlines()[0])["key"] == "emoji/val"


def test_every_settings_file_is_that_of_a_folder_that_was_made(chain: Path):
    """What a job is told lies beside what it made, but for the suite, and reports, which lie under their scale."""
    (suite,) = (chain / "results/suites").iterdir()
    found = [path.parent for path in (chain / "results").rglob("settings.json")]
    assert suite in found and len(found) > ROWS * SEEDS
    for folder in {*found} - {suite, chain / "results/ci/page"}:
        (report,) = [folder.parts[-3:]] if "report" in folder.parts else [None]
        assert report == ("report", "mobileclip", "table2") or len(list(folder.iterdir())) > 1, folder


def test_two_runs_from_empty_give_the_same_bytes(chain: Path, tmp_path: Path):
    """The first seed of the row that reads most, with all that it is made from, and its scores."""
    other = copy_of_the_repository(tmp_path / "elsewhere")
    settings = json.loads((chain / "results/ci/report/mobileclip/table2/settings.json").read_text())
    (scores,) = (run["scores"] for run in settings["runs"] if (run["row"], run["seed"]) == LAST)
    done = snakemake(other, "--cores", "2", *CI, *(f"results/{folder}" for folder in scores))
    assert done.returncode == 0, done.stdout[-6000:]
    made = [
        path
        for path in (other / "results").rglob("*")
        if path.suffix in (".tar", ".parquet", ".bin", ".npy", ".npz", ".jsonl")
    ]
    kinds = Counter(path.relative_to(other / "results").parts[0] for path in made)
    assert kinds.keys() == {"pool", "subset", "zoo", "captions", "reinforced", "views", "runs", "eval"}
    for path in made:
        if path.name != "log.jsonl":  # which has the time that steps took
            assert path.read_bytes() == (chain / path.relative_to(other)).read_bytes(), path


def test_no_held_out_drawing_is_in_the_pool(chain: Path):
    from clipdr.data.shards import read_shard
    from clipdr.files import sha256

    (pool,) = (chain / "results/pool").iterdir()
    trained = set(pd.read_parquet(pool / "shards/index.parquet")["sha256"])
    held_out = [s["webp"] for tar in (pool / "tasks").rglob("*.tar") for s in read_shard(tar)]
    assert len(trained) == 32  # all of the pool: sixteen concepts by two vendors
    assert len(held_out) >= 100
    assert not trained & {sha256(image) for image in held_out}


def test_a_second_call_does_nothing_and_says_so(chain: Path):
    done = snakemake(chain, "--cores", "2", *CI)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        (LOSS, appended("# a comment")),
        (LOSS, replaced('"""', '"""Reworded: ')),
        ("src/clipdr/train/run.py", lambda text: re.sub(r'(raise UserError\(\s*f")', r"\1Reworded: ", text, count=1)),
        (TABLE2, replaced("title:", "# a comment\ntitle:")),
        ("config/suites/emoji.yaml", replaced("tasks:", "# a comment\ntasks:")),
    ],
    ids=["comment", "docstring", "error message", "comment of an experiment", "comment of a suite"],
)
def test_changed_words_rerun_nothing(chain: Path, name: str, edit: Callable[[str], str]):
    with edited(chain / name, edit):
        assert planned_jobs(chain) == {}


def test_an_edited_lock_reruns_what_runs_with_the_package(chain: Path):
    locked, env = re.search(r"seaborn==(\S+)", (chain / "requirements.lock").read_text())[0], chain / "envs/report.yaml"
    with edited(chain / "requirements.lock", replaced(locked, "seaborn==0.0.1")):
        stopped = snakemake(chain, "-n", *CI)
        assert f"envs/report.yaml: {locked} is not in requirements.lock; run `python envs/write.py`" in stopped.stdout
        with edited(env, replaced(locked, "seaborn==0.0.1")):
            subprocess.run([sys.executable, chain / "envs/write.py"], check=True)  # nothing else is written anew
            assert planned_jobs(chain) == Counter(chain=1, gallery=1, **REPORT)


def test_a_changed_loss_reruns_training_and_what_follows(chain: Path):
    with edited(chain / LOSS, appended("CHANGED = True")):
        assert planned_jobs(chain) == Counter(train=ROWS * SEEDS, evaluate=ROWS * SEEDS, gallery=1, **REPORT)
        assert planned_jobs(chain, "--rerun-triggers", "mtime", "input", *CI) == {}


def test_the_loss_of_another_objective_reruns_nothing(chain: Path):
    other = chain / "src/clipdr/losses/other.py"
    other.write_text("from clipdr.losses.reinforced import Objective, teachers_of\n")
    try:
        assert planned_jobs(chain) == {}
    finally:
        other.unlink()


def test_a_changed_lambda_trains_only_the_new_runs(chain: Path):
    with edited(chain / TABLE2, replaced("{lambda: 0.7,", "{lambda: 0.6,")):
        assert planned_jobs(chain) == Counter(train=SEEDS, evaluate=SEEDS, gallery=1, **REPORT)


def test_a_changed_captioner_makes_what_reads_captions_beside_the_old(chain: Path):
    captioner = "captioner: {model: mini-captioner, steps: 6,"
    with edited(chain / "config/scales/ci.yaml", replaced(captioner, captioner.replace("6", "7"))):
        jobs, done = planned_jobs(chain), snakemake(chain, "-n", *CI)
    trained = (ROWS - 1) * SEEDS  # the first row reads no synthetic captions
    assert jobs == Counter(
        captioner=1,
        caption=CHUNKS,
        reinforce=3 * CHUNKS,
        manifest=4,
        views=3,
        train=trained,
        evaluate=trained,
        chain=1,
        gallery=1,
        **REPORT,
    )
    for line in re.findall(r"output: (results/(?:zoo|captions|reinforced|views|runs|eval)/.*)", done.stdout):
        assert not any((chain / path).exists() for path in line.split(", ")), line


def test_a_changed_published_value_reruns_the_report_only(chain: Path):
    with edited(chain / TABLE2, replaced("IN-val: 44.5", "IN-val: 44.6")):
        assert planned_jobs(chain) == Counter(REPORT)


def test_what_an_epoch_costs_is_measured_and_written(chain: Path):
    table4d = chain / "config/experiments/mobileclip/table4d.yaml"
    with edited(table4d, replaced("steps: 20, rounds: 7", "steps: 1, rounds: 3")):
        done = snakemake(chain, "--cores", "2", *CI, "table4d")
    assert done.returncode == 0, done.stdout[-6000:]
    table = pd.read_csv(chain / "results/ci/tables/mobileclip/table4d.csv").set_index("row")
    assert table["paper hours"].tolist() == [1.3, 21.1, 4.1, 1.3]
    online = table.loc["online teachers and captioner"]
    assert (
        table["times the first"].idxmax() == online.name
        and online["waiting for data"] > table["waiting for data"].median()
    )
    assert not (chain / "results/ci/figures/mobileclip/table4d.png").exists()


def test_a_cell_is_explained_from_results_that_were_moved(chain: Path, tmp_path: Path):
    """Down to the pool, each job once, with the value of the table and a command that finds nothing left to do."""
    moved = tmp_path / "elsewhere"
    shutil.copytree(chain / "results", moved)
    command = [sys.executable, "-m", "clipdr.report", "explain", "table2", LAST[0], "IN-val", "--scale", "ci"]
    env = {**os.environ, "PYTHONPATH": str(chain / "src")}
    done = subprocess.run([*command, "--results", moved], env=env, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    table = pd.read_csv(chain / "results/ci/tables/mobileclip/table2.csv").set_index("row")
    assert lines[1].split()[0] == f"{table.loc[LAST[0], 'IN-val']:.1f}"
    jobs = [line.strip() for line in lines if re.fullmatch(r" +[a-z_]+/\S+", line)]
    assert len(set(jobs)) == len(jobs)
    # Two seeds, of which each has a run and its scores; two teachers and a captioner; captions and views of two chunks.
    assert Counter(job.partition("/")[0] for job in jobs) == {
        **{"evaluate": SEEDS, "train": SEEDS, "zoo": 3, "caption": CHUNKS, "reinforce": CHUNKS},
        **{"views": 1, "tokenizer": 1, "pool": 1, "subset": 1},
    }
    assert sum("commit " in line and ", code " in line for line in lines) == len(jobs)
    rebuild = lines[-1].strip().removeprefix("snakemake --cores all ").split()
    assert planned_jobs(chain, *rebuild) == Counter()
    wrong = ["IN-vall" if word == "IN-val" else word for word in command]
    refused = subprocess.run(wrong, env=env, cwd=chain, capture_output=True, text=True)
    assert refused.returncode == 1 and refused.stderr.startswith("error: column 'IN-vall' is not defined; did")


def test_an_archive_goes_on_in_a_fresh_clone_with_nothing_to_make(chain: Path, tmp_path: Path):
    done = snakemake(chain, "--cores", "1", "--config", "scale=ci", "--", "results/archive-ci.tar.gz")
    assert done.returncode == 0, done.stdout[-3000:]
    clone = copy_of_the_repository(tmp_path / "clone")
    with tarfile.open(chain / "results/archive-ci.tar.gz") as archive:
        archive.extractall(clone, filter="data")
    assert planned_jobs(clone) == Counter()
    # Everything came along, not only what would be looked at.
    runs = {path.name for path in (chain / "results/runs").iterdir()}
    assert {path.name for path in (clone / "results/runs").iterdir()} == runs and len(runs) == ROWS * SEEDS
    for name in ("pool/*/shards/index.parquet", "reinforced/*/chunks/*/manifest.json", "zoo/*/model/log.jsonl"):
        assert list((clone / "results").glob(name)), name
    with edited(clone / LOSS, appended("EXTRA = 1")):
        assert planned_jobs(clone)["train"] == ROWS * SEEDS


@pytest.mark.parametrize(
    ("module", "rules"),
    [
        ("pool.emoji", {"pool"}),
        ("zoo.tokenizer", {"tokenizer"}),
        ("reinforce.captions", {"caption"}),
        ("data.augment", {"captioner", "reinforce", "teacher"}),  # and views and runs, which are made from these
        ("losses.reinforced", {"train"}),
        ("evaluate.encoder", {"evaluate"}),
        ("report.scores", {"figure", "table"}),
    ],
)
def test_a_changed_module_reruns_these_rules_and_the_page_names_them(chain: Path, module: str, rules: set[str]):
    """By Snakemake's own reasons. The page names more: runs that ask teachers, or are scored, while they train."""
    page = dict(re.findall(r"^\| `clipdr\.(\S+)` \| (.*) \|$", (REPO / "docs/reruns.md").read_text(), re.MULTILINE))
    with edited(chain / f"src/clipdr/{module.replace('.', '/')}.py", appended("EXTRA = 1")):
        done = snakemake(chain, "-n", *CI)
    named = re.search(r"^ +params have changed[^\n]*:\n +(.*)$", done.stdout, re.MULTILINE)[1].split(", ")
    assert set(named) == rules
    assert rules - {"captioner"} <= set(page[module].split(", ")), "a captioner is a teacher"


def test_a_report_is_one_page_that_needs_no_network(chain: Path):
    done = snakemake(chain, "--report", "report.html", *CI)
    assert done.returncode == 0, done.stdout[-3000:]
    page = (chain / "report.html").read_text()
    assert "mobileclip/table2.csv" in page and "mobileclip/table2.png" in page
    assert "levels are not comparable" in page, "the caption of the whole"
    assert not re.search(r"<(?:script|link|img)\b[^>]*\b(?:src|href)=[\"']?https?:", page)


def test_the_readme_shows_what_the_code_writes(chain: Path):
    """Its table has the columns and rows that the code writes now, whatever its numbers."""
    write_results = script("docs/write_results.py")
    text = (REPO / "README.md").read_text(encoding="utf-8")
    made = write_results.rewrite(text, chain / "results/ci/tables", "ci").replace("(scale ci)", "(scale mini)")
    shown, now = (markdown_tables(document)[0] for document in (text, made))
    assert shown != now and [[line["row"], *line] for line in shown] == [[line["row"], *line] for line in now]
    assert write_results.results(chain / "results/ci/tables").count("| table2 | ") == 5
