"""A SLURM cluster of one node on this machine, for as long as a test needs it: `with cluster() as logs: ...`.

Real daemons of Debian's slurm-wlm on the loopback address, with 16 pretended cores and two pretended GPUs, which are
/dev/null and /dev/zero: what jobs ask for and what kills them is SLURM's own doing, what they compute has no GPU. There
is no slurmdbd, as on many small clusters. Memory is watched by polling.

The configuration must lie in /etc/slurm, because the plugin takes SLURM_CONF away from jobs. One that is there and not
ours is another cluster's, and is left alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ETC = Path("/etc/slurm")
OURS = "# Written by clipdr's tests/slurm/cluster.py, which deletes it again."
SLURM_CONF = """{ours}
ClusterName=clipdr-test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0
AccountingStorageType=accounting_storage/none
AccountingStorageTRES=gres/gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.txt
MailProg=/bin/true
ReturnToService=2
MinJobAge=600
KillWait=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
DefMemPerCPU=1000
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=64000 Gres=gpu:2 State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes=ALL MaxTime=2880 State=UP
"""


def install() -> None:
    """Debian's SLURM, if it is not there. Raises RuntimeError where it cannot be installed."""
    if shutil.which("slurmctld") and shutil.which("munged"):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise RuntimeError("slurm-wlm and munge are missing; install them, or run this as root on Debian")
    quiet = {"env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL, "check": True}
    subprocess.run(["apt-get", "update", "-qq"], **quiet)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "slurm-wlm", "munge"], **quiet)


@contextmanager
def cluster() -> Iterator[Path]:
    """Starts the daemons, yields the folder of their logs with SLURM's log of jobs, and stops what it started."""
    install()
    if (ETC / "slurm.conf").exists() and OURS not in (ETC / "slurm.conf").read_text():
        raise RuntimeError(f"{ETC}/slurm.conf is that of another cluster; run this test on a machine without one")
    with tempfile.TemporaryDirectory(prefix="clipdr-slurm-") as name:
        folder, host = Path(name), socket.gethostname().split(".")[0]
        for part in ("state", "spool"):
            (folder / part).mkdir()
        ETC.mkdir(exist_ok=True)
        (ETC / "slurm.conf").write_text(SLURM_CONF.format(ours=OURS, host=host, folder=folder))
        (ETC / "gres.conf").write_text(f"{OURS}\nNodeName={host} Name=gpu File=/dev/null,/dev/zero\n")
        try:
            _start(folder)
            yield folder
        finally:
            _stop([folder / "slurmd.pid", folder / "slurmctld.pid", folder / "munged.pid"])
            for file in ("slurm.conf", "gres.conf"):
                (ETC / file).unlink()


def _start(folder: Path) -> None:
    """munged as its own user, with files in a folder of that user; then both daemons of SLURM, from a clean state."""
    munge = Path("/run/munge")  # where SLURM looks for its socket
    munge.mkdir(exist_ok=True)
    shutil.chown(munge, "munge", "munge")
    munged = ["/usr/sbin/munged", "--force", f"--log-file={munge}/munged.log", f"--seed-file={munge}/munged.seed"]
    subprocess.run(["runuser", "-u", "munge", "--", *munged, f"--pid-file={munge}/munged.pid"], check=True)
    shutil.copy(munge / "munged.pid", folder)
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon, "-c"], check=True)
    for _ in range(60):
        state = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True).stdout.split()
        if set(state) == {"idle"}:
            return
        time.sleep(0.5)
    raise RuntimeError(f"the node is {state} after 30 s:\n{(folder / 'slurmctld.log').read_text()[-2000:]}")


def _stop(pid_files: list[Path]) -> None:
    """Ends the daemons by their numbers, and waits until they are gone."""
    for path in pid_files:
        if not path.exists():
            continue
        pid = int(path.read_text())
        with _gone():
            os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            with _gone():
                os.kill(pid, 0)
                time.sleep(0.1)
                continue
            break
        else:
            raise RuntimeError(f"process {pid} of {path.name} does not end")


@contextmanager
def _gone() -> Iterator[None]:
    with suppress(ProcessLookupError):
        yield
