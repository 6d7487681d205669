"""Table of how right each method is, with intervals, and of its difference from the best ISNet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench import config as configuration
from isnet_bench import methods
from isnet_bench.errors import BenchError
from isnet_bench.evaluation.metrics import CONFUSION_METRICS
from isnet_bench.files import replacing
from isnet_bench.reporting import collect, markup, statistics

__all__ = ["BOLD", "ORACLE", "best", "caption", "metric", "oracle_note", "predictions", "summary", "write"]

ORACLE = " ‡"
"""Mark of the rows that see the masks of test images."""

BOLD = (
    f"Bold: the highest value, if it differs significantly (p < {1 - statistics.LEVEL:.2g}, corrected by Holm's "
    "method) from the second."
)
"""What bold scores are."""


def write(config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """Write ``out.csv`` (one row per test set and method, fractions of 1), ``out.md``, ``out.tex`` and ``out.html``.

    The latter three are in percent, and have one table for each test set.

    Raises
    ------
    BenchError
        If a run that the configuration names is missing or unreadable, or if runs saw different images.
    """
    runs = collect.runs(config, experiment, Path(results))
    table = summary(predictions(runs, Path(results)), runs, _isnets(config, experiment))
    sets = dict(list(table.groupby("set", sort=False)))
    contents = {
        "csv": table.to_csv(index=False, float_format="%.6g"),
        "md": "\n\n".join([caption(runs), *(_section(name, rows, runs) for name, rows in sets.items())]) + "\n",
        "tex": markup.BOOKTABS + "\n".join(_latex(name, rows, runs) for name, rows in sets.items()),
        "html": markup.page(
            runs.heading,
            [
                markup.paragraph(caption(runs)),
                *(part for name, rows in sets.items() for part in _html(name, rows, runs)),
            ],
        ),
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
    with _comparable(runs):
        values = statistics.estimates(predictions, metric(runs))
        pairs = statistics.pairwise(predictions, metric(runs))
    marks = statistics.best_marks(pairs, runs.oracles)
    bounds = {"other": "reference", "low": "difference_low", "high": "difference_high"}
    against = statistics.against_best(pairs, isnets).rename(columns=bounds).drop(columns=["value", "other_value"])
    values.insert(2, "label", values["method"].map(runs.labels))
    values.insert(5, "metric", metric(runs))
    values["best"] = [marks.get(name) == method for name, method in values[["set", "method"]].to_numpy()]
    table = values.merge(against, on=["set", "method"], how="left")
    return table.assign(data=runs.data, stand_in=runs.stand_in)


def best(predictions: pd.DataFrame, runs: collect.Runs) -> dict[str, str | None]:
    """For each test set the row that may be marked as the best one, see `isnet_bench.reporting.statistics.best_marks`.

    Raises
    ------
    BenchError
        If runs saw different images.
    """
    with _comparable(runs):
        return statistics.best_marks(statistics.pairwise(predictions, metric(runs)), runs.oracles)


@contextmanager
def _comparable(runs: collect.Runs) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise BenchError(
            f"the runs of experiment {runs.experiment} cannot be compared ({error}): evaluate all of them again"
        ) from error


def caption(runs: collect.Runs) -> str:
    """The title line: what was measured on which data, and what intervals and tests mean."""
    over = "test images (one seed says nothing about others)" if len(runs.seeds) == 1 else "seeds and test images"
    return (
        f"{runs.heading}. Data: {runs.data}. {collect.SCORES[metric(runs)]}, {runs.repeats}, with 95 % intervals over "
        f"{over}. Difference: percentage points above the best ISNet of the test set, on the same images; p: "
        "two-sided, corrected by Holm's method for all pairs of methods on the test set (the intervals are not). "
        f"{BOLD}"
    )


def _section(name: str, rows: pd.DataFrame, runs: collect.Runs) -> str:
    shown, bold = _readable(rows, runs)
    return "\n\n".join([f"## {name}", *_reference(rows), markup.markdown(shown, bold), *oracle_note(runs)])


def _latex(name: str, rows: pd.DataFrame, runs: collect.Runs) -> str:
    text = " ".join([f"{name} test images.", caption(runs), *_reference(rows), *oracle_note(runs)])
    shown, bold = _readable(rows, runs)
    return markup.latex(shown, text, f"{runs.experiment}_comparison_{name}", bold=bold)


def _html(name: str, rows: pd.DataFrame, runs: collect.Runs) -> list[str]:
    texts = [markup.paragraph(text) for text in [*_reference(rows), *oracle_note(runs)]]
    return [markup.paragraph(name, "h2"), markup.html_table(*_readable(rows, runs)), *texts]


def _reference(rows: pd.DataFrame) -> list[str]:
    references = rows["reference"].dropna().unique()
    return [f"Best ISNet: {rows.set_index('method')['label'][references[0]]}."] if len(references) else []


def _readable(rows: pd.DataFrame, runs: collect.Runs) -> tuple[pd.DataFrame, np.ndarray]:
    """The table of one test set for people, and which of its cells are bold."""
    score = f"{collect.SCORES[rows['metric'].iloc[0]]} (%)"
    shown = pd.DataFrame(
        {
            "Method": rows["label"] + np.where(rows["method"].isin(runs.oracles), ORACLE, ""),
            score: [f"{100 * value:.1f}" for value in rows["value"]],
            "95 % interval": _intervals(rows[["low", "high"]]),
            "Difference (points)": ["" if pd.isna(x) else f"{100 * x:+.1f}" for x in rows["difference"]],
            "95 % interval ": _intervals(rows[["difference_low", "difference_high"]], "+"),
            "p (Holm)": [_p(value) for value in rows["p_holm"]],
        }
    )
    return shown, np.outer(rows["best"], shown.columns == score)


def _intervals(bounds: pd.DataFrame, sign: str = "") -> list[str]:
    bounds = 100 * bounds.to_numpy(float)
    return ["" if pd.isna(low) else f"{low:{sign}.1f} to {high:{sign}.1f}" for low, high in bounds]


def _p(value: float) -> str:
    if pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def oracle_note(runs: collect.Runs) -> list[str]:
    """What the mark of the oracles means, where there are any."""
    note = "‡ An oracle, which sees the true masks of test images: a ceiling and no competitor, never marked as best."
    return [note] * bool(runs.oracles)


def _isnets(config: dict[str, Any], experiment: str) -> list[str]:
    entries = configuration.experiment_entries(config, experiment)
    return [entry.row for entry in entries if methods.get(entry.method).family == "isnet"]
