"""A Slurm of one node, as Debian's packages have it, in a folder of its own: no accounting, no service, no trace."""

import os
import platform
import shutil
import socket
import subprocess
import time
from contextlib import ExitStack, contextmanager

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
# Programs of the administrator are not on everyone's path.
SEARCHED = f"{os.environ['PATH']}:/usr/sbin:/sbin"
# Two cores, and device files that stand for three GPUs; `config_overrides`: whatever the machine itself has.
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=30
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
KillWait=5
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=64000 Gres=gpu:3 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP
"""
GPUS = "Name=gpu File=/dev/full,/dev/null,/dev/zero\n"


def missing():
    """Say why there can be no Slurm here; None if there can."""
    lacking = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]
    if lacking:
        return f"Slurm is not installed ({', '.join(lacking)}); on Debian: apt-get install slurm-wlm"
    return None if os.geteuid() == 0 else "only root can start a Slurm that runs jobs"


@contextmanager
def cluster(folder):
    """Start a Slurm in an empty folder; yield the environment in which its commands, and Snakemake, find it."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    host = platform.node().partition(".")[0]
    (folder / "slurm.conf").write_text(SETTINGS.format(folder=folder, host=host, ports=free_ports(2)))
    (folder / "gres.conf").write_text(GPUS)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder / 'bin'}:{SEARCHED}"}
    # Snakemake's jobs lose the variable that names the configuration, which lies in /etc/slurm on a real cluster.
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    # Forced: folders of tests are closed to others, which munged thinks is a mistake.
    places = [f"--{name}={folder}/munge.{suffix}" for name, suffix in MUNGE.items()]
    with ExitStack() as running:
        for command in (["munged", "--foreground", "--force", *places], ["slurmctld", "-D"], ["slurmd", "-D"]):
            running.enter_context(daemon(command, folder, environment))
        wait_until(lambda: "idle" in ask(environment, "sinfo", "--noheader", "--format=%T"), 60, "no node came up")
        try:
            yield environment
        finally:
            ask(environment, "scancel", "--user=root")
            wait_until(lambda: not ask(environment, "squeue", "--noheader"), 60, "jobs cannot be ended")


MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


@contextmanager
def daemon(command, folder, environment):
    with (folder / f"{command[0]}.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def ask(environment, *command):
    """Return what a command says; nothing if it fails."""
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


def wait_until(condition, seconds, otherwise):
    """Wait for a condition, and return what it returned."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)
    return found


def free_ports(number):
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
