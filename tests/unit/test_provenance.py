"""Where a job ran: the line in its log, and the way from log to log; and what an archive refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from refusals import refused

from clipdr import archive, provenance
from clipdr.fingerprint import fingerprint

REPO = Path(__file__).parents[2]


def ran(folder: Path, **variables: str) -> str:
    """What a command that fails at once says, with some variables beside the usual ones."""
    env = {**os.environ, "PYTHONPATH": str(REPO / "src"), **variables}
    command = [sys.executable, "-m", "clipdr.archive", "results/none", "--output", "x.tar.gz"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True).stderr


def test_a_job_says_where_it_ran_if_the_workflow_asks_for_it(tmp_path: Path):
    job = provenance.job(REPO)
    assert provenance.MARK not in ran(tmp_path)
    assert provenance.MARK not in ran(tmp_path, CLIPDR_JOB=job, RANK="1"), "of several processes, the first says it"
    (tmp_path / "job.log").write_text(ran(tmp_path, CLIPDR_JOB=job))
    line = provenance.read(tmp_path / "job.log")
    assert json.loads(job).items() <= line.items()
    assert line["command"] == ["python", "-m", "clipdr.archive", "results/none", "--output", "x.tar.gz"]
    assert line["code"] == fingerprint("clipdr.archive", REPO)
    assert line["machine"].endswith(f"{os.cpu_count()} cores")


def test_the_commit_is_gits_and_a_folder_without_git_has_none(tmp_path: Path):
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPO, capture_output=True, text=True).stdout.strip()
    assert json.loads(provenance.job(REPO))["commit"] == head
    (tmp_path / "requirements.lock").write_text("numpy==1\n")
    assert json.loads(provenance.job(tmp_path)) == {"commit": "unknown", "changed": False, "lock": "b8a122d596af"}


def test_a_command_line_leads_to_the_logs_of_all_that_it_was_given(tmp_path: Path):
    logs = ("train/a-1.log", "reinforce/b-2/0-of-2.log", "reinforce/b-2/1-of-2.log", "evaluate/a-1/s-3/0-of-1.log")
    for name in (*logs, "views/other.log"):
        (tmp_path / "logs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "logs" / name).touch()
    command = "python -m x --model results/runs/a-1/model --data results/reinforced/b-2/chunks --settings "
    command += "results/eval/a-1/s-3/settings.json --output results/eval/a-1/s-3/scores/0-of-1"
    found = provenance.made_from({"command": command.split()}, tmp_path)
    assert [path.relative_to(tmp_path / "logs").as_posix() for path in found] == list(logs[:3])
    (scores,) = provenance.logs_of("results/eval/a-1/s-3/scores/0-of-1", tmp_path)
    assert scores == tmp_path / "logs/evaluate/a-1/s-3/0-of-1.log"
    assert "does not say how its job ran" in refused(provenance.read, scores)


@pytest.mark.parametrize("path", ["src/clipdr", "results/../src", "results/none"])
def test_an_archive_holds_results_that_are_there(path: str, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = "does not exist; make it first" if path == "results/none" else "does not lie in results"
    assert expected in refused(archive.archive, [path], tmp_path / "x.tar.gz")
    assert not list(tmp_path.iterdir())
