"""The lock of a Snakemake that was killed, with and without a process that is still at work in the folder."""

import subprocess
import sys
import time
from pathlib import Path

from clipdr import unlock

SNAKEFILE = """
rule slow:
    output:
        "done.txt",
    shell:
        "sleep 60 && touch {output}"
"""


def started(folder: Path) -> subprocess.Popen:
    """A Snakemake whose one job has begun."""
    (folder / "Snakefile").write_text(SNAKEFILE)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "all"]
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, stdout=-3, stderr=-3)
    while not list((folder / ".snakemake").glob("locks/*")) or not list((folder / ".snakemake").glob("incomplete/*")):
        assert process.poll() is None
        time.sleep(0.1)
    return process


def test_a_lock_goes_when_nobody_is_at_work_and_stops_a_second_call_while_somebody_is(tmp_path: Path):
    process = started(tmp_path)
    unlock.unlock(tmp_path)
    assert list(unlock.at_work(tmp_path)) and list((tmp_path / ".snakemake/locks").iterdir())
    command = [sys.executable, "-m", "snakemake", "--cores", "1"]
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode and "Directory cannot be locked" in second.stdout + second.stderr
    assert process.poll() is None, "the first goes on"
    process.kill()
    process.wait()
    unlock.unlock(tmp_path)
    assert not list((tmp_path / ".snakemake/locks").glob("*"))
    unlock.unlock(tmp_path)  # and without a lock nothing is done
    for job in unlock.psutil.process_iter(["cmdline", "cwd"]):
        if job.info["cwd"] == str(tmp_path):
            job.kill()
