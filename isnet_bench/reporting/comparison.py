"""Table of how right each method is, with intervals, and of its difference from the best ISNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from isnet_bench import config as configuration
from isnet_bench import methods
from isnet_bench.errors import BenchError
from isnet_bench.evaluation.metrics import CONFUSION_METRICS
from isnet_bench.files import replacing
from isnet_bench.reporting import collect, statistics

__all__ = ["caption", "metric", "predictions", "summary", "write"]


def write(config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """Write ``out.csv`` (one row per test set and method, fractions of 1) and ``out.md`` (percent, one table per set).

    Raises
    ------
    BenchError
        If a run that the configuration names is missing or unreadable, or if runs saw different images.
    """
    runs = collect.runs(config, experiment, Path(results))
    table = summary(predictions(runs, Path(results)), runs, _isnets(config, experiment))
    sections = [f"## {name}\n\n{_section(rows)}" for name, rows in table.groupby("set", sort=False)]
    contents = {
        "csv": table.to_csv(index=False, float_format="%.6g"),
        "md": "\n\n".join([caption(runs), *sections]) + "\n",
    }
    out = Path(out)
    for kind, text in contents.items():
        with replacing(out.parent / f"{out.name}.{kind}") as part:
            part.write_text(text, encoding="utf-8")


def predictions(runs: collect.Runs, results: Path) -> pd.DataFrame:
    """Read what every run predicted: the frame that `isnet_bench.reporting.statistics` works on.

    Raises
    ------
    BenchError
        If a file is missing or unreadable, or lacks a test set.
    """
    tables = [
        collect.predictions(results, runs.experiment, row, seed, runs.sets).assign(method=row, seed=seed)
        for row in runs.looks
        for seed in runs.seeds
    ]
    return pd.concat(tables, ignore_index=True)


def metric(runs: collect.Runs) -> str:
    """What is compared: the experiment's score, or the accuracy where that score needs more than predictions."""
    return runs.score if runs.score in CONFUSION_METRICS else "accuracy"


def summary(predictions: pd.DataFrame, runs: collect.Runs, isnets: list[str]) -> pd.DataFrame:
    """One row per test set and method, in the order of the figures; fractions of 1.

    Columns: set, method, label, seeds, images, metric, value with low and high, best (whether the value may be marked
    as the highest), reference (the best of the ISNets there), difference from it with difference_low and
    difference_high, p, p_holm, data, stand_in. What concerns the difference is empty for the reference itself, and
    for all where there is no ISNet.

    Raises
    ------
    BenchError
        If runs saw different images.
    """
    try:
        values = statistics.estimates(predictions, metric(runs))
        pairs = statistics.pairwise(predictions, metric(runs))
    except ValueError as error:
        raise BenchError(
            f"the runs of experiment {runs.experiment} cannot be compared ({error}): evaluate all of them again"
        ) from error
    marks = statistics.best_marks(pairs)
    bounds = {"other": "reference", "low": "difference_low", "high": "difference_high"}
    against = statistics.against_best(pairs, isnets).rename(columns=bounds).drop(columns=["value", "other_value"])
    values.insert(2, "label", values["method"].map(runs.labels))
    values.insert(5, "metric", metric(runs))
    values["best"] = [marks.get(name) == method for name, method in values[["set", "method"]].to_numpy()]
    table = values.merge(against, on=["set", "method"], how="left")
    return table.assign(data=runs.data, stand_in=runs.stand_in)


def caption(runs: collect.Runs) -> str:
    """The title line: what was measured on which data, and what intervals and tests mean."""
    over = "test images (one seed says nothing about others)" if len(runs.seeds) == 1 else "seeds and test images"
    return (
        f"{runs.heading}. Data: {runs.data}. {collect.SCORES[metric(runs)]}, {runs.repeats}, with 95 % intervals over "
        f"{over}. Difference: percentage points above the best ISNet of the test set, on the same images; p: "
        "two-sided, corrected by Holm's method for all pairs of methods on the test set (the intervals are not). "
        f"Bold: the highest value, if it differs significantly (p < {1 - statistics.LEVEL:.2g}) from the second."
    )


def _section(rows: pd.DataFrame) -> str:
    references = rows["reference"].dropna().unique()
    labels = rows.set_index("method")["label"]
    lines = [f"Best ISNet: {labels[references[0]]}."] if len(references) else []
    shown = pd.DataFrame(
        {
            "Method": rows["label"],
            f"{collect.SCORES[rows['metric'].iloc[0]]} (%)": [
                f"**{100 * value:.1f}**" if best else f"{100 * value:.1f}"
                for value, best in zip(rows["value"], rows["best"], strict=True)
            ],
            "95 % interval": _intervals(rows[["low", "high"]]),
            "Difference (points)": ["" if pd.isna(x) else f"{100 * x:+.1f}" for x in rows["difference"]],
            "95 % interval ": _intervals(rows[["difference_low", "difference_high"]], "+"),
            "p (Holm)": [_p(value) for value in rows["p_holm"]],
        }
    )
    alignment = ["left"] + ["right"] * (shown.shape[1] - 1)
    return "\n\n".join([*lines, shown.to_markdown(index=False, colalign=alignment, disable_numparse=True)])


def _intervals(bounds: pd.DataFrame, sign: str = "") -> list[str]:
    bounds = 100 * bounds.to_numpy(float)
    return ["" if pd.isna(low) else f"{low:{sign}.1f} to {high:{sign}.1f}" for low, high in bounds]


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _isnets(config: dict[str, Any], experiment: str) -> list[str]:
    entries = configuration.experiment_entries(config, experiment)
    return [entry.row for entry in entries if methods.get(entry.method).family == "isnet"]
