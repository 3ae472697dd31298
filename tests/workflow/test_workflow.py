"""What can be said of the workflow without running it: style, dry runs, and errors before any job starts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clones import copy_of_the_repository
from conftest import CI, REPO, planned_jobs, snakemake

TOOLS = {
    "ruff format": ["ruff", "format", "--check", "."],
    "ruff check": ["ruff", "check", "."],
    "snakefmt": ["snakefmt", "--check", "Snakefile", "workflow"],
    "snakemake --lint": ["snakemake", "--lint"],
}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository without any results."""
    return copy_of_the_repository(tmp_path_factory.mktemp("fresh"))


@pytest.mark.parametrize("tool", TOOLS)
def test_style(tool: str):
    name, *args = TOOLS[tool]
    done = subprocess.run([Path(sys.executable).with_name(name), *args], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("scale", "seeds", "chunks"), [("mini", 3, 1), ("ci", 2, 2)])
def test_a_dry_run_lists_the_whole_chain(fresh: Path, scale: str, seeds: int, chunks: int):
    jobs = planned_jobs(fresh, "--config", f"scale={scale}", "experiments=table2", "--")
    assert jobs == dict(
        fetch=1, pool=1, subset=1, tokenizer=1, captioner=1, teacher=2, caption=chunks,
        reinforce=4 * chunks, manifest=5, views=4,
        train=6 * seeds, evaluate=6 * seeds, table=1, figure=1, losses=1, gallery=1, models=1, chain=1, page=1, all=1,
    )  # fmt: skip


def test_a_run_that_two_tables_share_is_trained_once(fresh: Path):
    """A second table with the rows of the first, one of them changed, adds that row's runs only."""
    table, second = (fresh / f"config/experiments/mobileclip/{name}.yaml" for name in ("table2", "second"))
    second.write_text(table.read_text().replace("{lambda: 0.7,", "{lambda: 0.5,"))
    jobs = planned_jobs(fresh, "--config", "scale=ci", "experiments=table2,second", "--")
    second.unlink()
    assert (jobs["train"], jobs["evaluate"], jobs["table"]) == ((6 + 1) * 2, (6 + 1) * 2, 2)


def test_an_experiment_of_another_scale_is_an_error_only_when_asked_for(fresh: Path):
    table, other = (fresh / f"config/experiments/mobileclip/{name}.yaml" for name in ("table2", "other"))
    other.write_text(table.read_text().replace("dataset: DataComp-12M", "dataset: DataComp-1B"))
    jobs = planned_jobs(fresh, *CI)
    done, listed = snakemake(fresh, "-n", *CI, "other"), snakemake(fresh, "--cores", "1", *CI, "list")
    other.unlink()
    assert jobs["table"] == 1
    assert done.returncode != 0
    (line,) = [line.strip() for line in done.stdout.splitlines() if "DataComp-1B" in line]
    assert line.startswith("config/experiments/mobileclip/other.yaml") and "'DataComp-1B' is not defined" in line
    assert re.search(rf"^  mobileclip-other +not at this scale: {re.escape(line)}$", listed.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "runs", "networks"), [("table1", 8, 4), ("table5", 10, 5), ("table6", 24, 5), ("table7", 12, 11)]
)
def test_a_table_about_networks_trains_its_rows_and_measures_its_networks(fresh: Path, name, runs, networks):
    jobs = planned_jobs(fresh, "--config", "scale=mini", "--", name)
    assert (jobs["train"], jobs["export"], jobs["latency"]) == (runs, networks, networks)
    assert jobs["counts"] == (name in ("table5", "table7"))
    assert jobs["figure"] == (runs > 0)


def test_published_checkpoints_are_fetched_and_scored_on_what_is_there(fresh: Path):
    """Without tasks a table says what to do; with one it scores all eighteen checkpoints on it and trains nothing."""
    published = ("--config", "scale=published", "--")
    jobs = planned_jobs(fresh, *published, "download_eval")
    assert (jobs["plan_download"], jobs["download_task"]) == (1, 37)  # of 38 and 4; five are got by hand
    done = snakemake(fresh, "-n", *published, "table7")
    assert "no task of the suite is in data/tasks; run the target download_eval" in done.stdout
    (fresh / "data/tasks/wds_imagenet1k").mkdir(parents=True)
    (fresh / "data/weights").mkdir()
    (fresh / "data/weights/mobileclip_s0.pt").touch()
    jobs = planned_jobs(fresh, *published, "table7")
    shutil.rmtree(fresh / "data")
    assert (jobs["published"], jobs["evaluate"], jobs["train"], jobs["table"]) == (19, 18, 0, 1)


def test_a_run_that_starts_from_another_one_waits_for_it(fresh: Path):
    table, second = (fresh / f"config/experiments/mobileclip/{name}.yaml" for name in ("table2", "second"))
    row = "settings: {objective: {lambda: 0.7, teachers: ensemble}"
    assert table.read_text().count(row) == 1
    second.write_text(table.read_text().replace(row, f"settings: {{init: {{row: real captions only}}, {row[11:]}"))
    done = snakemake(fresh, "-n", "-p", *CI, "second")
    second.unlink()
    assert done.returncode == 0, done.stdout[-3000:]
    starts = re.findall(r"--init (results/runs/\S+)/model --output results/runs/\S+_init_seed(\d)", done.stdout)
    assert sorted(seed for _, seed in starts) == ["0", "1"]  # each from the run of its own seed
    assert all(f"_real_reinforced-lambda0_seed{seed}-" in run for run, seed in starts)


def test_one_experiment_can_be_asked_for_by_its_name_with_and_without_the_paper(fresh: Path):
    full, bare = (planned_jobs(fresh, *CI, name) for name in ("mobileclip-table2", "table2"))
    assert full.pop("mobileclip-table2") == bare.pop("table2") == 1
    assert full == bare and bare["table"] == 1
    assert "chain" not in bare


def test_an_experiment_of_another_paper_is_asked_for_with_its_paper(fresh: Path):
    table, other = (fresh / f"config/experiments/{name}.yaml" for name in ("mobileclip/table2", "clipkd/table9"))
    words = "papers:\n  clipkd: {}\n"  # the paper's own have another student
    scale = fresh / "config/scales/ci.yaml"
    told = scale.read_text()
    scale.write_text(re.sub(r"^papers:\n(  .*\n)+", words, told, flags=re.MULTILINE))
    other.write_text(table.read_text())
    jobs, bare = planned_jobs(fresh, *CI, "clipkd-table9"), snakemake(fresh, "-n", *CI, "table9")
    other.unlink()
    scale.write_text(told)
    assert (jobs["clipkd-table9"], jobs["table"], jobs["train"]) == (1, 1, 6 * 2)
    assert bare.returncode != 0


def test_the_list_shows_every_experiment(fresh: Path):
    done = snakemake(fresh, "--cores", "1", "list")
    assert done.returncode == 0, done.stdout
    files = (fresh / "config/experiments").glob("*/*.yaml")
    listed = dict(re.findall(r"^  (\w+-\w+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert listed.keys() == {f"{path.parent.name}-{path.stem}" for path in files}
    assert listed["mobileclip-table2"].startswith("Summary of ablations (18 runs): ")


def test_scales_never_write_the_same_table(fresh: Path):
    """But for networks, whose numbers are the same at every scale, and for equal settings, which share their name."""
    outputs = {scale: reports(fresh, scale) for scale in ("ci", "mini")}
    assert all({path.split("/")[1] for path in paths} == {scale} for scale, paths in outputs.items())
    assert {Path(path).suffix for path in outputs["ci"]} == {".csv", ".md", ".tex", ".png", ".svg", ".json"}


def reports(folder: Path, scale: str) -> list[str]:
    """What the jobs of Table 2's report and of the chain's picture would write at a scale."""
    done = snakemake(folder, "-n", "--config", f"scale={scale}", "experiments=table2", "--")
    blocks = re.findall(r"^rule (?:table|figure|losses|chain):\n(.*?)(?=^\S)", done.stdout, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    found = [path for block in blocks for path in re.search(r"output: (.*)", block)[1].split(", ")]
    return [*found, *re.findall(r"results/\S+/report/\S+/settings\.json", " ".join(blocks))]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["tabel2"], "no experiment is called 'tabel2'; did you mean 'table2'?"),
        (["mobileclip-tabel2"], "no experiment is called 'mobileclip-tabel2'; did you mean 'mobileclip-table2'?"),
        (["--config", "experiments=tabel2", "--"], "no experiment is called 'tabel2'; did you mean 'table2'?"),
        (["--config", "scale=minni", "--"], "config/scales/minni.yaml does not exist; did you mean mini?"),
        (["--config", "scal=ci", "--"], "--config: scal is not a key; did you mean 'scale'?"),
    ],
)
def test_a_misspelt_name_stops_before_any_job_with_one_line(fresh: Path, args: list[str], says: str):
    done = snakemake(fresh, "-n", *args)
    assert done.returncode != 0
    (line,) = [line.strip() for line in done.stdout.splitlines() if says in line]
    assert line.startswith(says)
    assert "Traceback" not in done.stdout and "exception" not in done.stdout


def test_a_misspelt_key_stops_before_any_job(fresh: Path):
    scale = fresh / "config/scales/ci.yaml"
    text = scale.read_text()
    scale.write_text(text.replace("held_out:", "heldout:"))
    done = snakemake(fresh, "-n", *CI)
    scale.write_text(text)
    assert done.returncode != 0
    assert re.search(r"config/scales/ci\.yaml: .*heldout is not a key; did you mean 'held_out", done.stdout)


def test_every_rule_says_where_it_logs_and_what_it_needs():
    for path in sorted((REPO / "workflow/rules").glob("*.smk")):
        for rule in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            for directive in ("output", "log", "benchmark", "conda", "threads", "resources", "shell"):
                assert re.search(rf"^    {directive}:", rule, re.MULTILINE), (
                    f"{path.name}: {rule.split(':')[0]} {directive}"
                )


def test_parsing_the_snakefile_imports_no_torch(fresh: Path):
    probe = "\nassert not {'torch', 'open_clip', 'pandas'} & set(sys.modules), 'heavy import'\n"
    snakefile = fresh / "Snakefile"
    text = snakefile.read_text()
    snakefile.write_text(text + probe)
    done = snakemake(fresh, "-n", "-q", "all", *CI)
    snakefile.write_text(text)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_picture_of_the_rules_is_what_snakemake_draws(fresh: Path):
    done = snakemake(fresh, "--cores", "1", "rulegraph")
    assert done.returncode == 0, done.stdout[-2000:]
    drawn, shown = (
        edges((folder / name).read_text())
        for folder, name in ((fresh, "results/rulegraph.md"), (REPO, "docs/rulegraph.md"))
    )
    shutil.rmtree(fresh / "results")
    assert ("pool", "subset") in drawn
    assert drawn == shown, "run `snakemake --cores 1 rulegraph`, and copy the file"


def edges(page: str) -> set[tuple[str, str]]:
    """Pairs of rules, of which the second reads what the first makes; they are drawn in any order."""
    names = dict(re.findall(r"^\t(id\d+)\[(\w+)\]$", page, re.MULTILINE))
    return {(names[made], names[reads]) for made, reads in re.findall(r"^\t(id\d+) --> (id\d+)$", page, re.MULTILINE)}


def resources(folder: Path, scale: str, rule: str) -> set[str]:
    """The different resources that a dry run of Table 2 prints for the jobs of a rule."""
    done = snakemake(folder, "-n", "--config", f"scale={scale}", "--", "table2")
    assert done.returncode == 0, done.stdout[-2000:]
    blocks = re.findall(rf"^(?:local)?rule {rule}:\n(.*?)(?=^\[|\Z)", done.stdout, re.MULTILINE | re.DOTALL)
    return {re.search(r"^ +resources: (.*)$", block, re.MULTILINE)[1] for block in blocks}


def test_the_papers_scales_ask_for_their_gpus_from_a_clone_without_data(fresh: Path):
    (large,), (small,) = resources(fresh, "paper1b", "train"), resources(fresh, "onegpu", "train")
    # 256 processes, eight on a node, each with four workers that read.
    for asked in ("gres=gpu:8", "nodes=32", "tasks=32", "mpi=srun", "runtime=2880", "mem_mb=256000"):
        assert asked in large.split(", ")
    start = re.search(r"start=(.*? -m)", large)[1]
    assert start.startswith("srun --ntasks=32 --cpus-per-task=40 --gpus-per-task=8 torchrun --nnodes=32 ")
    assert " --nproc-per-node=8 --rdzv-id=$SLURM_JOB_ID --rdzv-backend=c10d --rdzv-endpoint=$(squeue " in start
    assert {"gpu=1", "start=python -m", "mem_mb=64000"} <= set(small.split(", ")) and "mpi" not in small
    (ablation,) = resources(fresh, "paper12m", "train")  # eight processes fit on one node
    assert {"nodes=1", "gres=gpu:8", "mpi="} <= set(ablation.split(", "))
    assert "start=torchrun --standalone --nproc-per-node 8 -m" in ablation
    assert all("gpu=1" in asked for asked in resources(fresh, "paper12m", "evaluate"))


@pytest.mark.parametrize(
    ("scale", "paper", "file"),
    [
        ("paper15m", "clipkd", "data/CLIP-KD/RN101_cc3m_12m_ep32.pt"),
        ("paper40m", "dimefm", "data/texts/nlp.parquet"),
    ],
)
def test_another_papers_scale_is_a_dry_run_away_and_says_what_it_lacks(fresh: Path, scale: str, paper: str, file: str):
    """From a clone without data: all jobs are listed, and a file that nobody may hand out is one that stops."""
    of_scale = ("--config", f"scale={scale}", "--")
    planned = snakemake(fresh, "-n", "--quiet", "rules", *of_scale, paper)
    assert planned.returncode == 0 and re.search(r"^train +\d\d$", planned.stdout, re.MULTILINE)
    assert re.search(r"^file_by_hand +2$", planned.stdout, re.MULTILINE)
    stopped = snakemake(fresh, "--cores", "1", *of_scale, file)
    assert stopped.returncode != 0 and not (fresh / file).exists()
    assert f"error: {file} is not there; scale {scale} reads it: put it there, or name another file" in stopped.stdout
    shutil.rmtree(fresh / "results")


def test_mixtures_at_the_papers_scale_are_a_dry_run_away(fresh: Path):
    """B/32, B/16 and L/14, dense and upcycled, and what their rows compute."""
    jobs = planned_jobs(fresh, "--config", "scale=paper1b", "--", "clipup-headline")
    assert (jobs["train"], jobs["evaluate"], jobs["work"], jobs["table"]) == (10, 10, 1, 1)


def test_a_scale_asks_for_resources_of_rules_that_there_are(fresh: Path):
    scale = fresh / "config/scales/asks.yaml"
    scale.write_text("base: ci\nresources: {trian: {mem_mb: 1}}\n")
    done = snakemake(fresh, "-n", "--config", "scale=asks")
    assert done.returncode != 0
    assert "config/scales/asks.yaml: resources.trian is no rule; did you mean 'train'?" in done.stdout
    scale.write_text("base: ci\nresources: {pool: {mem_mb: 4321}}\n")
    (asked,) = resources(fresh, "asks", "pool")
    scale.unlink()
    assert {"mem_mb=4321", "runtime=20"} <= set(asked.split(", "))


def test_the_list_says_what_is_left_and_the_plan_what_it_would_cost(fresh: Path):
    listed = snakemake(fresh, "--cores", "1", *CI, "list").stdout
    (line,) = (line for line in listed.splitlines() if line.startswith("  mobileclip-table2 "))
    assert re.search(r"Summary of ablations \(12 runs\): \d+ jobs left; no \w+ has run here yet", line)
    planned = snakemake(fresh, "--cores", "1", "--config", "scale=paper12m", "--", "plan").stdout
    assert re.search(r"^\| runs +\| 6 +\| 1,474,560,000 samples \| 1,200.1 ", planned, re.MULTILINE)
    assert (fresh / "results/plan-paper12m.csv").read_text().startswith("stage,jobs,amount,gpu_hours,")
    shutil.rmtree(fresh / "results")
