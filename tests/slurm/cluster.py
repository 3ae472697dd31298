"""A SLURM cluster of one node on this machine, for as long as a test needs it: `with cluster() as logs: ...`.

Real daemons of Debian's slurm-wlm on the loopback address, with 16 pretended cores and two pretended GPUs, which are
/dev/null and /dev/zero: what jobs ask for and what kills them is SLURM's own doing, what they compute has no GPU. There
is no slurmdbd, as on many small clusters. Memory is watched by polling.

The configuration must lie in /etc/slurm, because the plugin takes SLURM_CONF away from jobs. One that is there and not
ours is another cluster's, and is left alone.
"""

import os
import re
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
    _clear_away()
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
            _clear_away()


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
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(subprocess.TimeoutExpired):  # without a controller it waits for one
            asked = ["sinfo", "--noheader", "--format=%T"]
            state = subprocess.run(asked, capture_output=True, text=True, timeout=3).stdout
            if set(state.split()) == {"idle"}:
                return
        time.sleep(0.3)
    raise RuntimeError(f"the node is not ready after 30 s:\n{(folder / 'slurmctld.log').read_text()[-2000:]}")


def _clear_away() -> None:
    """Ends the cluster of our configuration, also one of a test that was killed, and removes the configuration.

    Raises RuntimeError if the configuration is another cluster's, or a daemon does not end.
    """
    conf = ETC / "slurm.conf"
    if not conf.exists():
        return
    if OURS not in conf.read_text():
        raise RuntimeError(f"{conf} is that of another cluster; run this test on a machine without one")
    folder = Path(re.search(r"StateSaveLocation=(.*)/state", conf.read_text())[1])
    for daemon in ("slurmd", "slurmctld", "munged"):
        if (path := folder / f"{daemon}.pid").exists():
            _end(int(path.read_text()), daemon)
    for file in ("slurm.conf", "gres.conf"):
        (ETC / file).unlink(missing_ok=True)


def _end(pid: int, daemon: str) -> None:
    """Ends a process if it is the daemon, and not one that has got its number since."""
    name = Path(f"/proc/{pid}/comm")
    for _ in range(100):
        try:
            if name.read_text().strip() != daemon:
                return
            os.kill(pid, signal.SIGTERM)
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{daemon}, process {pid}, does not end")
