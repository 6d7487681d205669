"""A folder in which the workflow runs with a pretended command line, and what its output tells."""

import collections
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def snakemake(folder, *arguments, cores=("--cores", "2"), **environment):
    """Run Snakemake in a folder; stdout and stderr are in ``stdout``."""
    command = [Path(sys.executable).with_name("snakemake"), "--snakefile", ROOT / "Snakefile", *cores, *arguments]
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=os.environ
        | {"XDG_CACHE_HOME": str(folder), "PATH": f"{BIN}:{os.environ['PATH']}"}
        | {"REAL_BENCH": str(ROOT / "isnet_bench")}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def planned(output):
    """Rule -> number of jobs, as a dry run lists them."""
    return {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", output, flags=re.MULTILINE)}


def commands(output):
    return re.findall(r"^Shell command: (OMP.*)$", output, flags=re.MULTILINE)


@pytest.fixture
def workplace(tmp_path):
    """A folder with the configurations, in which ``python -m isnet_bench`` is the pretended one."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "isnet_bench").mkdir()
    (tmp_path / "isnet_bench" / "__init__.py").touch()
    shutil.copy(ROOT / "tests" / "pretend_bench.py", tmp_path / "isnet_bench" / "__main__.py")
    return tmp_path


def calls(workplace):
    """What has been called since the last look, and how often."""
    file = workplace / "calls.txt"
    counted = collections.Counter(file.read_text().splitlines() if file.exists() else [])
    file.unlink(missing_ok=True)
    return counted


def edit(workplace, change):
    """Change the smoke configuration."""
    file = workplace / "config" / "smoke.yaml"
    config = yaml.safe_load(file.read_text())
    change(config)
    file.write_text(yaml.safe_dump(config, sort_keys=False))
