"""The tables of an experiment: one of all methods, one of their classes, one of how they differ from the best ISNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from isnet_bench.evaluation.metrics import CONFUSION_METRICS
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import replacing
from isnet_bench.reporting import markup, statistics
from isnet_bench.reporting.runs import GROUP_SCORES, SCORES, Runs

MARK = " †"
"""Mark of the rows that another explainer had to explain."""

_ORACLE = " ‡"
_ORACLE_NOTE = (
    "‡ An oracle, which sees the true masks of test images: a ceiling and no competitor, never marked as best."
)
_BOLD = (
    f"Bold: the highest value, if it differs significantly (p < {1 - statistics.LEVEL:.2g}, corrected by Holm's "
    "method) from the second."
)


def write(runs: Runs, out: Path) -> None:
    """Write the tables, each as csv (fractions of 1), Markdown, LaTeX and HTML (percent).

    They are ``out`` (one row per method) and ``out_comparison`` (one row per test set and method); ``out_classes``
    (one row per method, test set and class) and ``out_groups`` (one row per method, test set and group, where test sets
    have groups) are csv alone. Raises BenchError if runs saw different images.
    """
    table, compared = summary(runs), comparison(runs)
    best = dict(compared.loc[compared["best"], ["set", "method"]].to_numpy())
    part = markup.Part(*_readable(table, runs, best), after=_footnotes(runs))
    markup.write(out, table, runs.heading, _caption(runs), [part])
    parts = [_compared(name, rows, runs) for name, rows in compared.groupby("set", sort=False)]
    place = out.with_name(f"{out.name}_comparison")
    markup.write(place, compared, runs.heading, _caption_of_comparison(runs), parts)
    with replacing(out.with_name(f"{out.name}_classes.csv")) as part:
        _classes(runs).to_csv(part, index=False, float_format="%.6g")
    of_groups = out.with_name(f"{out.name}_groups.csv")
    of_groups.unlink(missing_ok=True)
    if runs.grouped:
        with replacing(of_groups) as part:
            _groups(runs).to_csv(part, index=False, float_format="%.6g")


def summary(runs: Runs) -> pd.DataFrame:
    """One row per method: mean and sample standard deviation (ddof = 1) over seeds; fractions of 1, seconds.

    Columns: method, label, seeds, ``<set>_<score>_mean``/``_std`` for each test set and score, accuracy first, and for
    each test set with groups ``<set>_worst_group_accuracy`` and ``<set>_mean_group_accuracy``,
    ``background_relevance_mean``/``_std`` and ``background_area`` on the first test set, explainer,
    ``prediction_changes_mean``/``_std``, ``train_seconds_mean``/``_std``, data, stand_in. The std of a single seed is
    empty, and so is the background relevance of a method if any of its runs has none.
    """
    of_sets = {
        **dict.fromkeys(SCORES, runs.sets),
        **(dict.fromkeys(GROUP_SCORES, runs.grouped) if runs.grouped else {}),
    }
    scores = [
        runs.frame.pivot(index=["method", "seed"], columns="set", values=score)[list(sets)].add_suffix(f"_{score}")
        for score, sets in of_sets.items()
    ]
    first = runs.frame[runs.frame["set"] == runs.sets[0]].set_index(["method", "seed"])
    measured = pd.concat([*scores, first[["background_relevance", "prediction_changes", "train_seconds"]]], axis=1)
    seeds = measured.groupby("method")
    # skipna: a mean over some of the seeds must not pass for one over all of them.
    statistics = {"mean": seeds.mean(skipna=False), "std": seeds.std(skipna=False)}
    table = pd.DataFrame(
        {f"{name}_{key}": values[name] for name in measured for key, values in statistics.items()}
    ).loc[list(runs.looks)]
    table.insert(0, "label", pd.Series(runs.labels))
    table.insert(1, "seeds", len(runs.seeds))
    area = first.groupby("method")["background_area"].mean()
    place = table.columns.get_loc("prediction_changes_mean")
    table.insert(place, "background_area", area)
    table.insert(place + 1, "explainer", pd.Series(runs.of_methods("explainer")))
    return table.assign(data=runs.data, stand_in=runs.stand_in).rename_axis("method").reset_index()


def _classes(runs: Runs) -> pd.DataFrame:
    """One row per method, test set and class: means over seeds.

    Columns: method, label, set, class, precision, recall, specificity (fractions of 1; empty where a seed has none),
    support (images of the class), and ``predicted_<class>``, how many of them were taken for each class: the rows of
    the confusion matrix.
    """
    rows = []
    for (method, name, place), group in runs.table("classes.parquet").groupby(["method", "set", "class"], sort=False):
        means = group[["precision", "recall", "specificity", "support"]].astype(float).mean(skipna=False)
        taken = np.mean(group["predicted"].tolist(), axis=0)
        predicted = {f"predicted_{other}": taken[k] for k, other in enumerate(runs.classes)}
        named = {"method": method, "label": runs.labels[method], "set": name, "class": runs.classes[place]}
        rows.append({**named, **means, **predicted})
    return pd.DataFrame(rows)


def _groups(runs: Runs) -> pd.DataFrame:
    """One row per method, test set and group.

    Columns: method, label, set, class, group, accuracy_mean and accuracy_std (over seeds; fractions of 1), support
    (images of the group).
    """
    keys = ["method", "set", "class", "group"]
    groups = runs.table("groups.parquet").groupby(keys, sort=False)
    table = groups.agg(
        accuracy_mean=("accuracy", "mean"), accuracy_std=("accuracy", "std"), support=("support", "mean")
    )
    table = table.reset_index()
    table.insert(1, "label", table["method"].map(runs.labels))
    return table


def _readable(table: pd.DataFrame, runs: Runs, best: dict[str, str]) -> tuple[pd.DataFrame, np.ndarray]:
    """The same table for people: percent with one decimal, mean ± std; and which cells are bold."""
    shown = pd.DataFrame({"Method": table["label"] + np.where(table["method"].isin(runs.oracles), _ORACLE, "")})
    marked = {}
    for name in runs.sets:
        shown[f"{name} (%)"] = _cells(table, f"{name}_{runs.score}", 100)
        marked[f"{name} (%)"] = table["method"] == best.get(name)
        if name in runs.grouped:
            shown[f"{name}, worst group (%)"] = _cells(table, f"{name}_{GROUP_SCORES[0]}", 100)
    relevance = zip(_cells(table, "background_relevance", 100), table["method"], strict=True)
    shown["Background relevance (%)"] = [cell + MARK * (row in runs.exceptions) for cell, row in relevance]
    shown["Background area (%)"] = [f"{100 * area:.1f}" for area in table["background_area"]]
    if table["prediction_changes_mean"].notna().any():
        shown["Changed predictions (%)"] = _cells(table, "prediction_changes", 100)
    shown["Training (s)"] = _cells(table, "train_seconds", 1)
    bold = pd.DataFrame(marked if _tested(runs) else {}, index=table.index)
    return shown, bold.reindex(columns=shown.columns, fill_value=False).to_numpy(bool)


def _caption(runs: Runs) -> str:
    spread = "" if len(runs.seeds) == 1 else " (mean ± sample standard deviation)"
    changes = (
        " Changed predictions: share of the test images whose prediction changes when the background alone changes."
        if runs.frame["prediction_changes"].notna().any()
        else ""
    )
    groups = " Worst group: lowest accuracy of a class with an attribute." if runs.grouped else ""
    return (
        f"{runs.heading}. Data: {runs.data}. {SCORES[runs.score]} on {', '.join(runs.sets)} test images, "
        f"{runs.repeats}{spread}. Background relevance: share of the absolute relevance ({runs.explainer}) "
        f"outside the foreground mask, and background area: share of the pixels outside it, "
        f"both on {runs.sets[0]} images.{groups}{changes}" + (f" {_BOLD}" if _tested(runs) else "")
    )


def _footnotes(runs: Runs) -> list[str]:
    names = ", ".join(sorted(set(runs.exceptions.values())))
    other = f"{MARK.strip()} Not by {runs.explainer}, which does not fit this network, but by {names}."
    return [other] * bool(names) + [_ORACLE_NOTE] * bool(runs.oracles)


def _tested(runs: Runs) -> bool:
    """Whether methods are tested against each other by the score that the table shows."""
    return metric(runs) == runs.score and len(runs.looks) > 1


def _cells(table: pd.DataFrame, name: str, scale: float) -> list[str]:
    pairs = zip(table[f"{name}_mean"], table[f"{name}_std"], strict=True)
    return [markup.cell(mean, std, scale) for mean, std in pairs]


def metric(runs: Runs) -> str:
    """What is compared: the experiment's score, or the accuracy where that score needs more than predictions."""
    return runs.score if runs.score in CONFUSION_METRICS else "accuracy"


def comparison(runs: Runs) -> pd.DataFrame:
    """One row per test set and method, in the order of the figures; fractions of 1.

    Columns: set, method, label, seeds, images, metric, value with low and high, best (whether the value may be marked
    as the highest), reference (the best of the ISNets there), difference from it with difference_low and
    difference_high, p, p_holm, data, stand_in. What concerns the difference is empty for the reference itself, and
    for all where there is no ISNet.
    """
    predictions = runs.table("predictions.parquet")
    try:
        values = statistics.estimates(predictions, metric(runs))
        pairs = statistics.pairwise(predictions, metric(runs))
    except ValueError as error:
        said = f"the runs of experiment {runs.name} cannot be compared ({error}): evaluate all of them again"
        raise BenchError(said) from error
    marks = statistics.best_marks(pairs, runs.oracles)
    bounds = {"other": "reference", "low": "difference_low", "high": "difference_high"}
    isnets = [row for row, family in runs.of_methods("family").items() if family == "isnet"]
    against = statistics.against_best(pairs, isnets).rename(columns=bounds).drop(columns=["value", "other_value"])
    values.insert(2, "label", values["method"].map(runs.labels))
    values.insert(5, "metric", metric(runs))
    values["best"] = [marks.get(name) == method for name, method in values[["set", "method"]].to_numpy()]
    table = values.merge(against, on=["set", "method"], how="left")
    return table.assign(data=runs.data, stand_in=runs.stand_in)


def _caption_of_comparison(runs: Runs) -> str:
    over = "test images (one seed says nothing about others)" if len(runs.seeds) == 1 else "seeds and test images"
    return (
        f"{runs.heading}. Data: {runs.data}. {SCORES[metric(runs)]}, {runs.repeats}, with 95 % intervals over "
        f"{over}. Difference: percentage points above the best ISNet of the test set, on the same images; p: "
        "two-sided, corrected by Holm's method for all pairs of methods on the test set (the intervals are not). "
        f"{_BOLD}"
    )


def _reference(rows: pd.DataFrame) -> list[str]:
    references = rows["reference"].dropna().unique()
    return [f"Best ISNet: {rows.set_index('method')['label'][references[0]]}."] if len(references) else []


def _compared(name: str, rows: pd.DataFrame, runs: Runs) -> markup.Part:
    score = f"{SCORES[rows['metric'].iloc[0]]} (%)"
    shown = pd.DataFrame(
        {
            "Method": rows["label"] + np.where(rows["method"].isin(runs.oracles), _ORACLE, ""),
            score: [f"{100 * value:.1f}" for value in rows["value"]],
            "95 % interval": intervals(rows[["low", "high"]]),
            "Difference (points)": ["" if pd.isna(x) else f"{100 * x:+.1f}" for x in rows["difference"]],
            "95 % interval ": intervals(rows[["difference_low", "difference_high"]], "+"),
            "p (Holm)": [p_value(value) for value in rows["p_holm"]],
        }
    )
    bold = np.outer(rows["best"], shown.columns == score)
    named = {"title": name, "label": name, "what": f"{name} test images."}
    return markup.Part(shown, bold, before=_reference(rows), after=[_ORACLE_NOTE] * bool(runs.oracles), **named)


def intervals(bounds: pd.DataFrame, sign: str = "") -> list[str]:
    """Return pairs of bounds, fractions of 1, in per cent, as tables for people have them; empty for none."""
    bounds = 100 * bounds.to_numpy(float)
    return ["" if pd.isna(low) else f"{low:{sign}.1f} to {high:{sign}.1f}" for low, high in bounds]


def p_value(value: float) -> str:
    """Return a p value as tables for people have it."""
    if pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
