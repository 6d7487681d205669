"""`workflow/profiles/slurm`, as shipped, on a real Slurm: the smoke workflow, jobs that are killed, requeued or late.

Only the pauses between looks at jobs are shorter here.
"""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import one_node
import pytest
import yaml
from one_node import ask, wait_until

from isnet_bench.io.files import digest, locked
from isnet_bench.layout import HISTORY, RECORD, WEIGHTS

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 60
# On a busy machine.
MINUTES = 60


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment in which commands find a Slurm of one node."""
    if reason := one_node.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    with one_node.cluster(folder) as environment:
        yield environment | {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder),
            "ISNET_BENCH_DATA": str(folder),
        }


@contextmanager
def snakemake(folder, environment, *arguments):
    """Run Snakemake with the profile in a folder, beside what the test does meanwhile, to its end."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--configfile", "smoke.yaml"]
    command += ["--workflow-profile", ROOT / "workflow" / "profiles" / "slurm"]
    command += ["--slurm-init-seconds-before-status-checks", "2", *arguments]
    log = folder / "snakemake.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield log
        assert process.wait(60 * MINUTES) == 0, log.read_text()
    finally:
        process.terminate()
        process.wait(60)


def smoke(folder, rows, device):
    """Write the smoke configuration with other rows, without studies."""
    config = yaml.safe_load((ROOT / "config" / "smoke.yaml").read_text())
    experiment = config["experiments"]["mnist"]
    experiment["methods"] = rows
    experiment["data"]["download"] = False
    config["timing"] |= {"classes": [2], "methods": {"resnet": {}, "stochastic_isnet": {}}}
    del config["studies"], config["overviews"]
    (folder / "smoke.yaml").write_text(yaml.safe_dump(config | {"device": device}))


def jobs(environment):
    """Everything that was submitted: Slurm's number and state, by the rule and its wildcards."""
    lines = ask(environment, "squeue", "--states=all", "--noheader", "--sort=i", "--format=%k|%i|%T").splitlines()
    return {comment: (number, state) for comment, number, state in (line.split("|") for line in lines)}


def test_smoke_workflow(tmp_path, slurm):
    smoke(tmp_path, {"resnet": {}, "stochastic_isnet": {}}, "cpu")
    with snakemake(tmp_path, slurm):
        pass
    assert {state for _, state in jobs(slurm).values()} == {"COMPLETED"}
    table = (tmp_path / "results/smoke/tables/mnist.csv").read_text()
    assert re.findall(r"^\w+isnet|^resnet", table, flags=re.MULTILINE) == ["resnet", "stochastic_isnet"]
    assert (tmp_path / "results/smoke/tables/timing_main.csv").exists()
    with snakemake(tmp_path, slurm) as log:
        pass
    assert "Nothing to be done" in log.read_text()


def test_a_run_that_is_refused_killed_or_requeued_ends_like_any_other(tmp_path, slurm):
    names = ("refused", "killed", "requeued")
    rows = {name: {"method": "resnet", "label": name, "training": {"epochs": EPOCHS}} for name in names}
    smoke(tmp_path, rows, "auto")
    folders = {name: tmp_path / "results/smoke/mnist" / name / "seed0" for name in names}

    def run(name):
        return snakemake(tmp_path, slurm, folders[name].relative_to(tmp_path) / WEIGHTS)

    def job(name):
        """Slurm's number of the job that trains a run which has a checkpoint."""
        checkpoint = folders[name] / "checkpoints" / "last.ckpt"
        wait_until(checkpoint.exists, 60 * MINUTES, f"{name} does not train")
        return jobs(slurm)[f"rule_train_wildcards_mnist_{name}_0"][0]

    def log(name):
        path = tmp_path / "results/smoke/logs/mnist" / name / "seed0" / "train.log"
        return path.read_text() if path.exists() else ""

    # Another process, such as an earlier life of the job, still trains there.
    with run("refused") as output, locked(folders["refused"]):
        wait_until(lambda: "is using" in log("refused"), 60 * MINUTES, "two trainers in one folder")
    assert "Trying to restart job" in output.read_text()
    assert "resumes" not in log("refused")

    # A job that hangs until its minute is over. Snakemake submits it again.
    with run("killed") as output:
        number = job("killed")
        process = re.match(r"process (\d+) on", (folders["killed"] / ".lock").read_text())[1]
        os.kill(int(process), signal.SIGSTOP)
        assert "gpu:1" in ask(slurm, "squeue", f"--jobs={number}", "--noheader", "--Format=tres-per-job")
        subprocess.run(["scontrol", "update", f"JobId={number}", "TimeLimit=1"], env=slurm, check=True)
    assert f"SLURM-job '{number}' failed, SLURM status is: 'TIMEOUT'" in output.read_text()
    assert "training resumes from" in log("killed")

    # Slurm itself starts a job again, as after the failure of a node: to Snakemake it is the same one.
    with run("requeued") as output:
        number = job("requeued")
        subprocess.run(["scontrol", "requeue", number], env=slurm, check=True)
    assert "Trying to restart job" not in output.read_text()
    assert jobs(slurm)["rule_train_wildcards_mnist_requeued_0"] == (number, "COMPLETED")
    assert "training resumes from" in log("requeued")

    assert len({digest(folder / WEIGHTS) for folder in folders.values()}) == 1
    assert {path.name for folder in folders.values() for path in folder.iterdir()} == {WEIGHTS, HISTORY, RECORD}
