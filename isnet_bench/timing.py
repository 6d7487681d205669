"""Time of one training step: run the benchmarks in a process of their own, and read what they measured."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import pandas as pd

from isnet_bench import config as configuration
from isnet_bench.errors import BenchError
from isnet_bench.files import read_json, replacing

log = logging.getLogger(__name__)

PLAIN = "resnet"
MEASURES = "training step"
_TAIL = 30
_CASE = ["method", "label", "classes"]


def run(config: dict[str, Any], out: Path) -> None:
    """Measure every case of the configuration's timing section; ``out`` gets pytest-benchmark's JSON.

    Raises
    ------
    BenchError
        If the benchmarks fail; the end of what they printed is in the message.
    """
    root = Path(__file__).resolve().parents[1]
    if not (root / "benchmarks").is_dir():
        raise BenchError(f"{root / 'benchmarks'} is missing; timing runs from a checkout of the repository")
    case = json.dumps(configuration.prune(config, verb="time"))
    # The project's own pytest options are cleared: parallel workers would switch the measurement off.
    options = ["-v", "-x", "--tb=short", "--benchmark-quiet", "-o", "addopts=", "-p", "no:cacheprovider"]
    with replacing(Path(out).resolve()) as part:
        options += ["--bench-config", case, "--benchmark-json", str(part)]
        status, tail = _stream([sys.executable, "-m", "pytest", "benchmarks", *options], root)
        if status != 0 or not part.exists() or part.stat().st_size == 0:
            raise BenchError(f"the benchmarks ended with status {status}, {out} is not written:\n{tail}")


def summary(timing_json: Path) -> pd.DataFrame:
    """One row per method and class count, over all rounds of all sweeps; seconds.

    Columns: method, label, classes, median_seconds, iqr_seconds, lower_seconds and upper_seconds (quartiles),
    min_seconds, ratio_to_plain (of the medians, empty where the plain network was not timed at that class
    count), rounds, device, threads.

    Raises
    ------
    BenchError
        If the file is missing or is no pytest-benchmark JSON of the training step.
    """
    rounds = pd.DataFrame(
        [
            {**entry["extra_info"], "seconds": seconds}
            for entry in _entries(timing_json)
            for seconds in entry["stats"]["data"]
        ]
    )
    cases = rounds.groupby(_CASE, sort=False)
    table = cases["seconds"].agg(
        median_seconds="median",
        lower_seconds=lambda seconds: seconds.quantile(0.25),
        upper_seconds=lambda seconds: seconds.quantile(0.75),
        min_seconds="min",
        rounds="size",
    )
    table = table.join(cases[["device", "threads"]].first()).reset_index()
    table["iqr_seconds"] = table["upper_seconds"] - table["lower_seconds"]
    plain = table[table["method"] == PLAIN].set_index("classes")["median_seconds"]
    table["ratio_to_plain"] = table["median_seconds"] / table["classes"].map(plain)
    order = {method: place for place, method in enumerate(table["method"].unique())}
    return table.sort_values(["method", "classes"], key=lambda column: column.replace(order), ignore_index=True)


def table(timing_json: Path, out: Path) -> None:
    """Write the summary as csv. Raises what `summary` raises."""
    measured = ["median_seconds", "iqr_seconds", "ratio_to_plain", "rounds", "device", "threads"]
    columns = [*_CASE, *measured, "min_seconds"]
    with replacing(Path(out)) as part:
        summary(timing_json).to_csv(part, index=False, columns=columns, float_format="%.6g")


def setting(timing_json: Path) -> str:
    """What was timed, on what, in one line."""
    info = _entries(timing_json)[0]["extra_info"]
    size, threads = info["image_size"], info["threads"]
    device = "CPU" if info["device"] == "cpu" else info["device"]
    return (
        f"{info['backbone']}, batch of {info['batch_size']} random {size} × {size} images, "
        f"{device}, {threads} thread{'s' if threads > 1 else ''}"
    )


def remedy(timing_json: Path) -> str:
    """The command that makes the file."""
    return f"make it with: python -m isnet_bench time --config YOUR.yaml --out {timing_json}"


def _entries(timing_json: Path) -> list[dict[str, Any]]:
    content = read_json(Path(timing_json), remedy(timing_json))
    try:
        entries = [entry for entry in content["benchmarks"] if entry["extra_info"].get("measures") == MEASURES]
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{timing_json} was not written by pytest-benchmark; {remedy(timing_json)}") from error
    if not entries:
        raise BenchError(f"{timing_json} holds no training step; {remedy(timing_json)}")
    return entries


def _stream(command: list[str], folder: Path) -> tuple[int, str]:
    """Run a command, log its lines as they come, and keep the last of them."""
    tail: deque[str] = deque(maxlen=_TAIL)
    # As a child of a parallel test run, pytest-benchmark would take itself for one of its workers and not measure.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout:
            tail.append(line)
            log.info(line.rstrip())
    return process.returncode, "".join(tail)
