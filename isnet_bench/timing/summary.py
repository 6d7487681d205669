"""Time and memory of a training step and its parts: run the benchmarks in a process of their own, and read them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench.config import Config
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import read_json, replacing

log = logging.getLogger(__name__)

PLAIN = "resnet"
STEP = "training step"
OPERATIONS = (STEP, "heatmaps", "heatmap loss", "inference")
REMEDY = "make it with: python -m isnet_bench time --config YOUR.yaml"
_TAIL = 30
_CASE = ["operation", "method", "classes"]
SETTING = ["backbone", "image_size", "channels", "batch_size"]
# what the benchmarks note -> column, column of its ratio to the plain network, unit
_CONSTANTS = {
    "peak_memory_bytes": ("peak_memory_mb", "memory_ratio", 1e6),
    "flop": ("gflop", "gflop_ratio", 1e9),
}


def run(cfg: Config, out: Path, case: str) -> None:
    """Measure a timing case of the configuration; ``out`` gets pytest-benchmark's JSON.

    Beside what pytest-benchmark writes, the JSON has the key ``refused``: what was left out because it would have
    passed the case's ``step_limit_seconds`` or the free memory. Raises BenchError if the benchmarks fail; the end of
    what they printed is in the message.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks").is_dir():
        raise BenchError(f"{root / 'benchmarks'} is missing; timing runs from a checkout of the repository")
    # The project's own pytest options are cleared: parallel workers would switch the measurement off.
    options = ["-v", "-x", "--tb=short", "--benchmark-quiet", "-o", "addopts=", "-p", "no:cacheprovider"]
    with replacing(Path(out).resolve()) as part:
        # They run in another folder, from which paths of plug-ins would lead elsewhere.
        plugins = {"plugins": [str(Path(file).resolve()) for file in cfg.plugins]} if cfg.plugins else {}
        part_of = json.dumps({**json.loads(cfg.part("time", case=case)), **plugins})
        options += ["--bench-config", part_of, "--bench-case", case, "--benchmark-json", str(part)]
        status, tail = _stream([sys.executable, "-m", "pytest", "benchmarks", *options], root)
        if status != 0 or not part.exists() or part.stat().st_size == 0:
            raise BenchError(f"the benchmarks ended with status {status}, {out} is not written:\n{tail}")


def summary(timing_json: Path) -> pd.DataFrame:
    """One row per operation, method and class count, over all rounds of all sweeps.

    Columns
    -------
    operation, method, label, classes
        The case.
    median_seconds, iqr_seconds, lower_seconds, upper_seconds, min_seconds
        Of all rounds; lower and upper are the quartiles.
    ratio_to_plain
        To the plain network's same operation, or its training step where it has no such operation, at the same number
        of classes: median over the sweeps of the ratio within the sweep, so that a machine that slows down counts for
        both. Empty where the plain network was not timed.
    growth
        In the same way, to the same method's operation at the fewest classes that it was timed with.
    peak_memory_mb, memory_ratio, gflop, gflop_ratio
        Peak memory of one call in 10^6 bytes, and its floating-point operations in 10^9, see `measuring`;
        their ratios are to the plain network as above. Empty in files that do not tell.
    rounds, device, threads
        How it was measured.

    Raises BenchError if the file is missing or is no pytest-benchmark JSON of these operations.
    """
    rounds = _rounds(timing_json)
    cases = rounds.groupby(_CASE, sort=False)
    table = cases["seconds"].agg(
        median_seconds="median",
        lower_seconds=lambda seconds: seconds.quantile(0.25),
        upper_seconds=lambda seconds: seconds.quantile(0.75),
        min_seconds="min",
        rounds="size",
    )
    table["iqr_seconds"] = table["upper_seconds"] - table["lower_seconds"]
    sweeps = rounds.groupby([*_CASE, "sweep"], sort=False)["seconds"].median().reset_index("sweep")
    table["ratio_to_plain"] = _over_sweeps(sweeps, _of_plain)
    table["growth"] = _over_sweeps(sweeps, _at_fewest)
    constants = cases[list(_CONSTANTS)].first().astype(float)
    for name, (column, ratio, unit) in _CONSTANTS.items():
        table[column] = constants[name] / unit
        table[ratio] = constants[name] / _of_plain(constants[name])
    table = table.join(cases[["device", "threads", *SETTING]].first()).reset_index()
    table.insert(2, "label", table["method"].map(rounds.groupby("method")["label"].first()))
    order = {name: place for column in _CASE[:2] for place, name in enumerate(table[column].unique())}
    return table.sort_values(_CASE, key=lambda column: column.replace(order), ignore_index=True)


def slope(classes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the straight line fitted to log value over log classes: 0 constant, 1 linear; NaN: one case.

    All values must be positive.
    """
    if len(classes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(classes), np.log(values), 1)[0])


def extrapolate(classes: Sequence[float], values: Sequence[float], at: Sequence[float]) -> np.ndarray:
    """Return the values at other numbers of classes, on the straight line a + b * classes that fits best.

    Every class costs the same, so that the line is straight; it is fitted with relative errors, so that few classes
    count as much as many. At least two cases are needed.
    """
    line = np.polynomial.Polynomial.fit(classes, values, 1, w=1 / np.asarray(values, dtype=float))
    return line(np.asarray(at, dtype=float))


def refused(timing_json: Path) -> set[str]:
    """Return the methods with a training step that was not timed since it would have taken too much."""
    found = _content(timing_json).get("refused", [])
    return {case["method"] for case in found if case["measures"] == STEP}


def setting(timing_json: Path) -> str:
    """What was timed, on what, in one line."""
    info = _entries(timing_json)[0]["extra_info"]
    threads = info["threads"]
    size = "\N{NO-BREAK SPACE}×\N{NO-BREAK SPACE}".join([str(info["image_size"])] * 2)
    device = "CPU" if info["device"] == "cpu" else info["device"]
    images = f"batch of {info['batch_size']} random {size} images"
    return f"{info['backbone']}, {images}, {device}, {threads} thread{'s' if threads > 1 else ''}"


def _content(timing_json: Path) -> dict[str, Any]:
    content = read_json(Path(timing_json), REMEDY)
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise BenchError(f"{timing_json} was not written by pytest-benchmark; {REMEDY}")
    return content


def _entries(timing_json: Path) -> list[dict[str, Any]]:
    benchmarks = _content(timing_json)["benchmarks"]
    entries = [entry for entry in benchmarks if entry.get("extra_info", {}).get("measures") in OPERATIONS]
    if not entries:
        raise BenchError(f"{timing_json} holds no training step or other operation; {REMEDY}")
    return entries


def _rounds(timing_json: Path) -> pd.DataFrame:
    rounds = pd.DataFrame(
        [
            {**entry["extra_info"], "seconds": seconds}
            for entry in _entries(timing_json)
            for seconds in entry["stats"]["data"]
        ]
    ).rename(columns={"measures": "operation"})
    return rounds.reindex(columns=[*dict.fromkeys([*rounds.columns, *_CONSTANTS, *SETTING])])


def _over_sweeps(sweeps: pd.DataFrame, reference: Callable[[pd.Series], pd.Series]) -> pd.Series:
    """Median over the sweeps of each case's ratio to its reference in the same sweep."""
    ratios = [seconds / reference(seconds) for _, seconds in sweeps.groupby("sweep")["seconds"]]
    return pd.concat(ratios).groupby(level=_CASE).median()


def _of_plain(values: pd.Series) -> pd.Series:
    """For each case the plain network's value at the same number of classes."""
    known = values.to_dict()
    operations = {operation: operation for operation, method, _ in known if method == PLAIN}
    found = [known.get((operations.get(case[0], STEP), PLAIN, case[2]), np.nan) for case in values.index]
    return pd.Series(found, values.index, dtype=float)


def _at_fewest(values: pd.Series) -> pd.Series:
    """For each case the same method's value at the fewest classes."""
    fewest = values.sort_index(level="classes").groupby(level=_CASE[:2]).first()
    return pd.Series(fewest.reindex(values.index.droplevel("classes")).to_numpy(), values.index)


def _stream(command: list[str], folder: Path) -> tuple[int, str]:
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
