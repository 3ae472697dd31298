"""The chain at scale `ci` as jobs of a SLURM cluster, one of which is killed for memory and one by hand.

`make test-slurm` runs it: Debian's SLURM on this machine for some minutes (`cluster.py`), Snakemake from .venv-slurm
with profiles/slurm, and jobs from .venv. What jobs asked for is read in SLURM's own log of jobs.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clones import REPO, copy_of_the_repository
from cluster import cluster

from clipdr.provenance import read

pytestmark = pytest.mark.slurm
KILLED, CANCELLED = "models", "train"  # rules of which the first job ends before its time
SCALES = {
    # Less memory than the table of models needs, until its second attempt.
    "cluster": {"base": "ci", "seeds": 1, "resources": {KILLED: {"mem_mb": 700}}},
    # A network without batch norm, over whose embeddings alone processes must agree.
    "nodes": {
        "base": "ci",
        "seeds": 1,
        "models": {"ViT-B/16:Base": "mini-vit-base"},
        "training": {"processes": 4},
        "resources": {"train": {"processes_per_node": 2}},
    },
}
# Shorter waits than a real cluster wants, and more jobs in one of SLURM: at this scale all of them are small.
QUICK = """--quiet --slurm-init-seconds-before-status-checks 4 --latency-wait 5 --slurm-keep-successful-logs
    --groups tokenizer=small subset=small teacher=zoo captioner=words caption=words reinforce=stored views=arrays
    evaluate=report table=report figure=report chain=report
    --group-components small=2 zoo=2 words=2 stored=2 arrays=2 report=9"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    with cluster() as folder:
        yield folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a clone would hold, with two more scales and the environment of jobs."""
    clone = copy_of_the_repository(tmp_path_factory.mktemp("slurm") / "clone")
    for name, scale in SCALES.items():
        (clone / f"config/scales/{name}.yaml").write_text(json.dumps(scale))
    (clone / ".venv").symlink_to(REPO / ".venv")
    return clone


def started(folder: Path, *args: str) -> subprocess.Popen:
    """Snakemake with the profile, as docs/cluster.md says, in the background."""
    driver = REPO / ".venv-slurm/bin/snakemake"
    assert driver.is_file(), f"{driver} does not exist; run `make test-slurm`, which installs it"
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [driver, "--profile", "profiles/slurm", *QUICK.split(), *args]
    log = (folder / "log.txt").open("w")
    return subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)


def finished(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(timeout=1200) == 0, (folder / "log.txt").read_text()[-4000:]


def cancelled(process: subprocess.Popen, folder: Path, rule: str) -> str:
    """The number of the rule's first job, ended by hand as soon as it runs."""
    while process.poll() is None:
        for log in (folder / ".snakemake/slurm_logs").glob(f"rule_{rule}/**/*.log"):
            command = ["squeue", "--noheader", f"--job={log.stem}", "--format=%T"]
            if subprocess.run(command, capture_output=True, text=True).stdout.strip() == "RUNNING":
                subprocess.run(["scancel", log.stem], check=True)
                return log.stem
        time.sleep(0.2)
    raise AssertionError((folder / "log.txt").read_text()[-4000:])


def jobs(slurm: Path, folder: Path) -> list[dict]:
    """SLURM's log of jobs: number, rule or group, state, partition, minutes, and what was asked for."""
    rules = {
        log.stem: log.relative_to(folder / ".snakemake/slurm_logs").parts[0]
        for log in (folder / ".snakemake/slurm_logs").rglob("*.log")
    }
    found = []
    for line in (slurm / "jobs.txt").read_text().splitlines():
        fields = dict(re.findall(r"(\w+)=(\S*)", line))
        asked = dict(part.split("=", 1) for part in line.split(" Tres=")[1].split()[0].split(","))
        number = fields["JobId"]
        found.append(
            {
                "id": number,
                "rule": rules.get(number, "?").removeprefix("rule_"),
                "state": fields["JobState"],
                "partition": fields["Partition"],
                "minutes": int(fields["TimeLimit"]),
                "mem_mb": _megabytes(asked["mem"]),
                "gpus": _gpus(number),
            }
        )
    return found


def _gpus(number: str) -> int:
    """What SLURM remembers of a job's GPUs, which its log has only beside slurmdbd."""
    shown = subprocess.run(
        ["scontrol", "--oneliner", "show", "job", number], capture_output=True, text=True, check=True
    )
    found = re.search(r"TresPer\w+=gres:gpu:(\d+)", shown.stdout)
    return int(found[1]) if found else 0


def _megabytes(text: str) -> int:
    return round(float(text[:-1]) * {"M": 1, "G": 1024}[text[-1]])


def test_the_chain_recovers_from_a_job_without_memory_and_a_job_that_was_cancelled(slurm: Path, folder: Path):
    experiment = ["--config", "scale=cluster", "experiments=table3a"]  # the smallest that has all stages
    process = started(folder, "--set-resources", "train:gpu=1", *experiment, "--", "all")
    number = cancelled(process, folder, CANCELLED)
    finished(process, folder)
    table = (folder / "results/cluster/tables/mobileclip/table3a.csv").read_text()
    assert len(table.splitlines()) == 1 + 4
    ran = jobs(slurm, folder)
    by_rule = {rule: [job for job in ran if job["rule"] == rule] for rule in (KILLED, CANCELLED, "pool")}
    # Killed for its memory, and started again with twice as much, and twice the time.
    states = [(job["state"], job["mem_mb"], job["minutes"]) for job in by_rule[KILLED]]
    assert states == [("FAILED", 700, 10), ("COMPLETED", 1400, 20)]
    # Ended by hand, and started again; and what all others of the rule asked for, of GPUs, memory, time and partition.
    asked = [(job["state"], job["partition"], job["gpus"], job["mem_mb"], job["minutes"]) for job in by_rule["train"]]
    assert [job["id"] for job in by_rule["train"] if job["state"] == "CANCELLED"] == [number]
    assert sorted(asked) == [
        ("CANCELLED", "gpu", 1, 4000, 60),
        *[("COMPLETED", "gpu", 1, 4000, 60)] * 3,
        ("COMPLETED", "gpu", 1, 8000, 120),
    ]
    (pool,) = by_rule["pool"]
    assert (pool["partition"], pool["gpus"], pool["mem_mb"], pool["minutes"]) == ("cpu", 0, 4000, 20)


def test_a_training_on_two_nodes_gives_the_losses_of_one_process(slurm: Path, folder: Path):
    """The line that two nodes of two processes run, with both tasks on the one node that there is."""
    command = [REPO / ".venv-slurm/bin/snakemake", "-n", "--config", "scale=nodes", "--", "table2"]
    planned = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    (model,) = set(re.findall(r"results/runs/\S*light_real_reinforced\S*_seed0-\w+/model", planned))
    finished(started(folder, "--set-resources", "train:nodes=1", "--config", "scale=nodes", "--", model), folder)
    run = (folder / model).parent
    settings = json.loads((run / "settings.json").read_text())
    assert settings["training"]["processes"] == 4
    settings["training"]["processes"] = 1
    (folder / "alone.json").write_text(json.dumps(settings))
    # The same command again, by hand, as one process.
    words = read(folder / f"results/logs/train/{run.name}.log")["command"][1:]
    words[words.index("--settings") + 1], words[words.index("--output") + 1] = "alone.json", "alone"
    env = {**os.environ, "PYTHONPATH": str(folder / "src")}
    subprocess.run([folder / ".venv/bin/python", *words], cwd=folder, env=env, check=True)
    together, alone = (losses(path) for path in (run / "model", folder / "alone"))
    assert len(together) == settings["training"]["steps"] and together == pytest.approx(alone, rel=1e-5)


def losses(model: Path) -> list[float]:
    """The loss of every step that is in a run's log."""
    return [json.loads(line)["loss"] for line in (model / "log.jsonl").read_text().splitlines()]
