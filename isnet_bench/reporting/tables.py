"""Results tables: tidy csv, Markdown, and LaTeX ready to paste."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench.files import replacing
from isnet_bench.reporting import collect, comparison, markup

MARK = " †"


def write(config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """Write ``out.csv`` (one row per method, fractions of 1), ``out.md``, ``out.tex`` and ``out.html`` (percent), and
    ``out_classes.csv`` (one row per method, test set and class).

    Raises
    ------
    isnet_bench.errors.BenchError
        If a run that the configuration names is missing or unreadable, or if runs saw different images.
    """
    runs = collect.runs(config, experiment, Path(results))
    table = summary(runs)
    shown = readable(table, runs)
    bold = _bold(shown, runs, comparison.best(comparison.predictions(runs, Path(results)), runs))
    text = " ".join([caption(runs), *footnotes(runs)])
    contents = {
        "csv": table.to_csv(index=False, float_format="%.6g"),
        "md": "\n\n".join([caption(runs), markup.markdown(shown, bold), *footnotes(runs)]) + "\n",
        "tex": markup.BOOKTABS + markup.latex(shown, text, experiment, bold=bold),
        "html": markup.page(
            runs.heading,
            [
                markup.paragraph(caption(runs)),
                markup.html_table(shown, bold),
                *map(markup.paragraph, footnotes(runs)),
            ],
        ),
    }
    out = Path(out)
    files = {f"{out.name}.{kind}": text for kind, text in contents.items()}
    files[f"{out.name}_classes.csv"] = classes(runs).to_csv(index=False, float_format="%.6g")
    for name, text in files.items():
        with replacing(out.parent / name) as part:
            part.write_text(text, encoding="utf-8")


def summary(runs: collect.Runs) -> pd.DataFrame:
    """One row per method: mean and sample standard deviation (ddof = 1) over seeds; fractions of 1, seconds.

    Columns: method, label, seeds, ``<set>_<score>_mean``/``_std`` for each test set and score, accuracy first,
    ``background_relevance_mean``/``_std`` and ``background_area`` on the first test set, explainer,
    ``prediction_changes_mean``/``_std``, ``train_seconds_mean``/``_std``, data, stand_in. The std of a single seed is
    empty, and so is the background relevance of a method if any of its runs has none.
    """
    scores = [
        runs.frame.pivot(index=["method", "seed"], columns="set", values=score)[list(runs.sets)].add_suffix(f"_{score}")
        for score in collect.SCORES
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
    table.insert(place + 1, "explainer", pd.Series(runs.explainers))
    return table.assign(data=runs.data, stand_in=runs.stand_in).rename_axis("method").reset_index()


def classes(runs: collect.Runs) -> pd.DataFrame:
    """One row per method, test set and class: means over seeds.

    Columns: method, label, set, class, precision, recall, specificity (fractions of 1; empty where a seed has none),
    support (images of the class), and ``predicted_<class>``, how many of them were taken for each class: the rows of
    the confusion matrix.
    """
    rows = []
    for (method, name), group in runs.frame.groupby(["method", "set"], sort=False):
        confusion = np.mean(group["confusion"].tolist(), axis=0)
        for place, label in enumerate(runs.classes):
            seeds = pd.DataFrame([entry[place] for entry in group["per_class"]]).astype(float)
            means = seeds[["precision", "recall", "specificity", "support"]].mean(skipna=False)
            taken = {f"predicted_{other}": confusion[place, k] for k, other in enumerate(runs.classes)}
            rows.append({"method": method, "label": runs.labels[method], "set": name, "class": label, **means, **taken})
    return pd.DataFrame(rows)


def readable(table: pd.DataFrame, runs: collect.Runs) -> pd.DataFrame:
    """The same table for people: percent with one decimal, mean ± std; a single seed has no ±."""
    shown = pd.DataFrame(
        {"Method": table["label"] + np.where(table["method"].isin(runs.oracles), comparison.ORACLE, "")}
    )
    for name in runs.sets:
        shown[f"{name} (%)"] = _cells(table, f"{name}_{runs.score}", 100)
    relevance = zip(_cells(table, "background_relevance", 100), table["method"], strict=True)
    shown["Background relevance (%)"] = [cell + MARK * (row in runs.exceptions) for cell, row in relevance]
    shown["Background area (%)"] = [f"{100 * area:.1f}" for area in table["background_area"]]
    if table["prediction_changes_mean"].notna().any():
        shown["Changed predictions (%)"] = _cells(table, "prediction_changes", 100)
    shown["Training (s)"] = _cells(table, "train_seconds", 1)
    return shown


def caption(runs: collect.Runs) -> str:
    """The title line: what was measured, on which data, with how many seeds."""
    spread = "" if len(runs.seeds) == 1 else " (mean ± sample standard deviation)"
    changes = (
        " Changed predictions: share of the test images whose prediction changes when the background alone changes."
        if runs.frame["prediction_changes"].notna().any()
        else ""
    )
    return (
        f"{runs.heading}. Data: {runs.data}. {collect.SCORES[runs.score]} on {', '.join(runs.sets)} test images, "
        f"{runs.repeats}{spread}. Background relevance: share of the absolute relevance ({runs.explainer}) "
        f"outside the foreground mask, and background area: share of the pixels outside it, "
        f"both on {runs.sets[0]} images.{changes}" + (f" {comparison.BOLD}" if _compared(runs) else "")
    )


def footnotes(runs: collect.Runs) -> list[str]:
    """What the marks in the table mean: methods that another explainer had to explain, and oracles."""
    names = ", ".join(sorted(set(runs.exceptions.values())))
    other = f"{MARK.strip()} Not by {runs.explainer}, which does not fit this network, but by {names}."
    return [other] * bool(names) + comparison.oracle_note(runs)


def _compared(runs: collect.Runs) -> bool:
    """Whether methods are tested against each other by the score that the table shows."""
    return comparison.metric(runs) == runs.score and len(runs.looks) > 1


def _bold(shown: pd.DataFrame, runs: collect.Runs, best: Mapping[str, str | None]) -> np.ndarray:
    """Which cells are bold: the best score of each test set, where it may be marked."""
    rows = np.array(list(runs.looks))
    bold = np.zeros(shown.shape, dtype=bool)
    for name in runs.sets if _compared(runs) else ():
        bold[:, shown.columns.get_loc(f"{name} (%)")] = rows == best.get(name)
    return bold


def _cells(table: pd.DataFrame, name: str, scale: float) -> list[str]:
    return [
        "none" if pd.isna(mean) else f"{scale * mean:.1f}" + ("" if pd.isna(std) else f" ± {scale * std:.1f}")
        for mean, std in zip(table[f"{name}_mean"], table[f"{name}_std"], strict=True)
    ]
