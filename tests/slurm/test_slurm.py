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

pytestmark = pytest.mark.slurm
KILLED, CANCELLED = "models", "train"  # rules of which the first job ends before its time
# Less memory than the table of models needs, until its second attempt. A network without batch norm, over whose
# embeddings alone processes must agree.
SCALE = {
    "base": "ci",
    "seeds": 1,
    "models": {"ViT-B/16:Base": "mini-vit-base"},
    "datasets": {"DataComp-12M": {"name": "12M", "size": 32, "seed": 0, "chunks": 1}},
    "resources": {KILLED: {"mem_mb": 700}, "train": {"processes_per_node": 2, "mem_mb": 6000}},
}
# All stages, and two runs: of one process, and of four on two nodes.
EXPERIMENT = {
    "title": "Nodes",
    "source": "none",
    "seeds": [0],
    "columns": ["IN-val"],
    "settings": {
        "model": "ViT-B/16:Base",
        "data": {"dataset": "DataComp-12M", "captions": ["real", "syn"], "augmentation": "strong"},
        "objective": {"name": "reinforced", "lambda": 1, "teachers": "ensemble"},
    },
    "rows": [{"name": "alone", "settings": {}}, {"name": "two nodes", "settings": {"training": {"processes": 4}}}],
}
# Shorter waits than a real cluster wants (the plugin looks after 8, 26 and 54 s, and anew when a job has ended), and
# more jobs in one of SLURM: at this scale all of them are small.
QUICK = """--quiet --slurm-init-seconds-before-status-checks 8 --latency-wait 5 --slurm-keep-successful-logs
    --groups fetch=first pool=first tokenizer=first subset=first teacher=zoo captioner=words caption=words
    reinforce=stored views=arrays table=report figure=report chain=report
    --group-components first=9 zoo=2 words=2 stored=2 arrays=2 report=9"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    with cluster() as folder:
        yield folder


@pytest.fixture(scope="module")
def chain(slurm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the chain has run. Its one node is both that a training asks for."""
    folder = copy_of_the_repository(tmp_path_factory.mktemp("slurm") / "clone")
    (folder / "config/scales/cluster.yaml").write_text(json.dumps(SCALE))
    (folder / "config/experiments/mobileclip/nodes.yaml").write_text(json.dumps(EXPERIMENT))
    (folder / ".venv").symlink_to(REPO / ".venv")
    asked = ["--set-resources", "train:gpu=1", "train:nodes=1", "--config", "scale=cluster", "experiments=nodes"]
    process = started(folder, *asked, "--", "all")
    (folder / "cancelled.txt").write_text(cancelled(process, folder, CANCELLED))
    finished(process, folder)
    return folder


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


def test_the_chain_recovers_from_a_job_without_memory_and_a_job_that_was_cancelled(slurm: Path, chain: Path):
    table = (chain / "results/cluster/tables/mobileclip/nodes.csv").read_text()
    assert len(table.splitlines()) == 1 + 2
    ran = jobs(slurm, chain)
    killed, trained = ([job for job in ran if job["rule"] == rule] for rule in (KILLED, CANCELLED))
    # Killed for its memory, and started again with twice as much, and twice the time.
    asked = [(job["state"], job["partition"], job["gpus"], job["mem_mb"], job["minutes"]) for job in killed]
    assert asked == [("FAILED", "cpu", 0, 700, 10), ("COMPLETED", "cpu", 0, 1400, 20)]
    # Ended by hand, and started again; and what the other run asked for, of GPUs, memory, time and partition.
    asked = [(job["state"], job["partition"], job["gpus"], job["mem_mb"], job["minutes"]) for job in trained]
    number = (chain / "cancelled.txt").read_text()
    assert [job["id"] for job in trained if job["state"] == "CANCELLED"] == [number]
    assert sorted(asked) == [
        ("CANCELLED", "gpu", 1, 6000, 60),
        ("COMPLETED", "gpu", 1, 6000, 60),
        ("COMPLETED", "gpu", 1, 12000, 120),
    ]


def test_a_training_on_two_nodes_gives_the_losses_of_one_process(chain: Path):
    """The line that two nodes of two processes run, with both tasks on the one node that there is."""
    settings = {path.parent: json.loads(path.read_text()) for path in (chain / "results/runs").glob("*/settings.json")}
    found = {told["training"].pop("processes"): run for run, told in settings.items()}
    assert found.keys() == {1, 4} and settings[found[1]] == settings[found[4]]
    together, alone = (losses(found[number] / "model") for number in (4, 1))
    assert len(together) == settings[found[1]]["training"]["steps"] and together == pytest.approx(alone, rel=1e-5)


def losses(model: Path) -> list[float]:
    """The loss of every step that is in a run's log."""
    return [json.loads(line)["loss"] for line in (model / "log.jsonl").read_text().splitlines()]
