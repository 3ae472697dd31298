"""`snakemake --sdm conda` runs every rule in its own environment; bin/conda says how far a stand-in can prove that.

The driver's environment has Snakemake and ruamel.yaml only, and is activated on top of conda's base, as the README's
calls leave it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.conda
REPO, BASE = Path(__file__).parents[2], Path(__file__).parent
JOBS = {
    ("clipdr.pool", "pool"),
    ("clipdr.data", "pool"),  # subset
    ("clipdr.data", "torch"),  # views
    ("clipdr.zoo", "torch"),
    ("clipdr.reinforce", "torch"),
    ("clipdr.train", "torch"),
    ("clipdr.evaluate", "torch"),
    ("clipdr.deploy", "torch"),
    ("clipdr.report", "report"),
}
LATENCY = "results/networks/latency/mini-student.json"  # of an export, with the packages for other runtimes
# Python imports it at its start, from src, which only PYTHONPATH names.
PROBE = """
import json, pathlib, sys
with pathlib.Path(__file__).with_name("seen.jsonl").open("a") as file:
    print(json.dumps([" ".join(sys.orig_argv[1:3]), sys.prefix, sys.flags.no_user_site]), file=file)
"""


@pytest.fixture(scope="module")
def chain() -> Iterator[Path]:
    """A folder in which the chain has run in environments; afterwards all 7 GB of it are deleted."""
    with tempfile.TemporaryDirectory(prefix="clipdr-conda-") as name:
        folder, driver = Path(name, "clipdr"), Path(name, "driver")
        shutil.copytree(REPO, folder, ignore=shutil.ignore_patterns(".*", "results", "__pycache__"))
        (folder / "src/sitecustomize.py").write_text(PROBE)
        subprocess.run([sys.executable, "-m", "venv", driver], check=True)
        only_snakemake = ["install", "--quiet", "--constraint", REPO / "requirements.lock", "snakemake", "ruamel.yaml"]
        subprocess.run([driver / "bin/python", "-m", "pip", *only_snakemake], check=True)
        env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env |= {"PATH": f"{driver}/bin:{BASE}/bin:/usr/bin:/bin", "CONDA_PREFIX": str(BASE), "CONDA_SHLVL": "1"}
        command = ["snakemake", "--cores", "2", "--sdm", "conda", "--show-failed-logs", "--config", "scale=ci", "--"]
        command += ["all", LATENCY]
        done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout[-6000:]
        yield folder


def test_the_chain_ends_in_a_table_and_a_latency(chain: Path):
    assert len((chain / "results/ci/tables/mobileclip/table2.csv").read_text().splitlines()) == 1 + 6
    assert json.loads((chain / LATENCY).read_text())["network"] == "mini-student"


def test_every_job_runs_in_the_environment_of_its_rule(chain: Path):
    names = {env.read_text(): env.stem for env in (chain / "envs").glob("*.yaml")}
    made = {str(copy.with_suffix("")): names[copy.read_text()] for copy in (chain / ".snakemake/conda").glob("*.yaml")}
    seen = [json.loads(line) for line in (chain / "src/seen.jsonl").read_text().splitlines()]
    jobs = [(command.removeprefix("-m "), made.get(prefix, prefix), isolated) for command, prefix, isolated in seen]
    assert sorted(made.values()) == sorted({*names.values()} - {"download"})  # of rules that need the hub
    assert {(module, env) for module, env, _ in jobs if module.startswith("clipdr.")} == JOBS
    assert all(isolated for *_, isolated in jobs), "packages in the user's home folder come before the environment's"
