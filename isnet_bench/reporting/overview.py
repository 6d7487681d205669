"""Rows of several experiments and studies beside each other: every method under every condition, at a glance."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from isnet_bench.config import Config
from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import markup, overview_lines, runs, snapshot, statistics, style, tables
from isnet_bench.reporting.runs import SCORES, Runs

_ROW_MM, _HEAD_MM = 6.4, 34
_NAME_CHARACTERS, _CONDITION_CHARACTERS = 28, 16
_COST = "Training time"
# Share of the scale above which black letters cannot be read.
_DARK = 0.62


@dataclass(frozen=True)
class Overview:
    """Runs under several conditions.

    Attributes
    ----------
    name, title : str
        What it is called.
    seconds : bool
        Whether the training time is shown.
    table : DataFrame
        One row for each condition and row of the results: condition, method (the row), label, family, oracle, seeds,
        metric, set, first_set; value with low and high (the metric on the last test set, over seeds and images),
        first_value (on the first test set), reference and reference_label (the best ISNet under the condition),
        difference from it with difference_low and difference_high, p, p_holm (for all pairs under the condition),
        slowdown (training time as a multiple of the first row's, geometric mean over seeds), data, stand_in. Scores are
        fractions of 1.
    points : DataFrame or None
        What `isnet_bench.reporting.overview_lines.points` returns; None for a figure that is a grid.
    looks : mapping
        Row -> its look in a figure of lines.
    """

    name: str
    title: str
    seconds: bool
    table: pd.DataFrame
    points: pd.DataFrame | None = None
    looks: Mapping[str, style.Look] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """Title of table and figure; begins with a warning where other data stand in for the real ones."""
        return f"STAND-IN DATA: {self.title}" if self.table["stand_in"].any() else self.title


def read(cfg: Config, name: str, results: Path) -> Overview:
    """Read an overview's runs, as `isnet_bench.reporting.runs.read` does. Raises what that raises."""
    asked = cfg.overview(name)
    found = {label: runs.read(cfg, source, Path(results)) for label, source in asked.of.items()}
    looks = {row: look for one in found.values() for row, look in one.looks.items()}
    looks = {row: look for row, look in looks.items() if row in (asked.rows or looks)}
    table = pd.concat([part for label, one in found.items() for part in _conditions(label, one)])
    table = table[table["method"].isin(looks)].reset_index(drop=True)
    if asked.against is None:
        return Overview(name, asked.title or name, asked.seconds, table)
    named = {label if len(found) > 1 else "": one for label, one in found.items()}
    points = pd.concat([overview_lines.points(label, one, asked.against) for label, one in named.items()])
    points = points[points["method"].isin(looks)].reset_index(drop=True)
    return Overview(name, asked.title or name, asked.seconds, table, points, looks)


def _conditions(label: str, found: Runs) -> Iterator[pd.DataFrame]:
    """Yield the rows of each combination of values of a study, or of an experiment."""
    experiments = {cell.experiment for cell in found.cells}
    predictions = snapshot.read(found.folder, experiments, ["predictions.parquet"]).tables.get("predictions.parquet")
    if predictions is None:
        raise BenchError(f"{found.folder} has no predictions of {found.name}; collect its finished runs again")
    places = {(cell.experiment, cell.row): place for place, cell in enumerate(found.cells)}
    keys = pd.MultiIndex.from_frame(predictions[["experiment", "row"]])
    predictions = predictions.assign(cell=keys.map(places).astype("Int64")).dropna(subset=["cell"])
    predictions["method"] = [found.cells[place].source for place in predictions["cell"]]
    for values, group in groupby(enumerate(found.cells), key=lambda item: item[1].values):
        chosen = [place for place, _ in group]
        names = ", ".join(value.name for value in values)
        condition = f"{label}{'' if label.endswith(':') else ','} {names}" if names else label
        yield _compared(condition, found, chosen, predictions[predictions["cell"].isin(chosen)])


def _compared(condition: str, found: Runs, cells: list[int], predictions: pd.DataFrame) -> pd.DataFrame:
    metric, first, last = tables.metric(found), found.sets[0], found.sets[-1]
    frame = found.frame[found.frame["cell"].isin(cells) & found.frame["seed"].isin(found.seeds)]
    values = statistics.estimates(predictions, metric)
    once = frame[frame["set"] == first].set_index(["method", "seed"])
    seconds = np.log(once["train_seconds"]).groupby("method").mean()
    table = values[values["set"] == last].merge(
        values.loc[values["set"] == first, ["method", "value"]].rename(columns={"value": "first_value"}), on="method"
    )
    family, oracle = found.of_methods("family"), found.of_methods("oracle")
    isnets = [row for row in table["method"] if family[row] == "isnet"]
    pairs = statistics.pairwise(predictions[predictions["set"] == last], metric)
    columns = {"other": "reference", "low": "difference_low", "high": "difference_high"}
    best = statistics.against_best(pairs, isnets).drop(columns=["value", "other_value"]).rename(columns=columns)
    looks = list(found.looks)
    return (
        table.merge(best, on=["set", "method"], how="left")
        .assign(
            condition=condition,
            metric=metric,
            first_set=first,
            label=table["method"].map(found.labels),
            reference_label=lambda rows: rows["reference"].map(found.labels),
            family=table["method"].map(family),
            oracle=table["method"].map(oracle),
            slowdown=np.exp(table["method"].map(seconds) - seconds[looks[0]]),
            data=found.data,
            stand_in=found.stand_in,
        )
        .sort_values("method", key=lambda rows: rows.map(looks.index), ignore_index=True)
    )


def write(found: Overview, out: Path) -> None:
    """Write ``out.csv``, ``out.md``, ``out.tex`` and ``out.html``: one table of all, and one for each condition."""
    table = found.table
    conditions = list(table["condition"].unique())
    grids = [_grid(table), *(_compared_with_best(table[table["condition"] == name]) for name in conditions)]
    heads = [("All conditions", []), *((name, _said(table[table["condition"] == name])) for name in conditions)]
    parts = [
        markup.Part(grid if found.seconds else grid.drop(columns=_COST), title=title, label=f"{number}", before=before)
        for number, (grid, (title, before)) in enumerate(zip(grids, heads, strict=True))
    ]
    markup.write(out, table, found.heading, _caption(found), parts)


def _grid(table: pd.DataFrame) -> pd.DataFrame:
    shown = pd.DataFrame({"Method": _labels(table)})
    cells = table.set_index(["condition", "method"])["value"]
    for condition in table["condition"].unique():
        shown[condition] = [
            f"{100 * cells[condition, row]:.1f}" if (condition, row) in cells else "" for row in shown.index
        ]
    shown[_COST] = [f"{value:.1f} ×" for value in _slowdowns(table)]
    return shown.reset_index(drop=True)


def _labels(table: pd.DataFrame) -> pd.Series:
    once = table.drop_duplicates("method").set_index("method")
    return once["label"] + np.where(once["oracle"], " (oracle)", "")


def _slowdowns(table: pd.DataFrame) -> pd.Series:
    """Geometric mean over conditions of each row's slowdown."""
    return np.exp(np.log(table["slowdown"]).groupby(table["method"], sort=False).mean())


def _compared_with_best(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of one condition, for people."""
    metric, first, last = rows[["metric", "first_set", "set"]].iloc[0]
    return pd.DataFrame(
        {
            "Method": _labels(rows).to_numpy(),
            f"{SCORES[metric]}, {first} (%)": [f"{100 * value:.1f}" for value in rows["first_value"]],
            f"{last} (%)": [f"{100 * value:.1f}" for value in rows["value"]],
            "95 % interval": tables.intervals(rows[["low", "high"]]),
            "Difference (points)": ["" if pd.isna(x) else f"{100 * x:+.1f}" for x in rows["difference"]],
            "95 % interval ": tables.intervals(rows[["difference_low", "difference_high"]], "+"),
            "p (Holm)": [tables.p_value(value) for value in rows["p_holm"]],
            _COST: [f"{value:.1f} ×" for value in rows["slowdown"]],
        }
    )


def _said(rows: pd.DataFrame) -> list[str]:
    """Return what stands above the table of one condition."""
    reference = rows["reference_label"].dropna().unique()
    return [f"Best ISNet: {reference[0]}. Data: {rows['data'].iloc[0]}."] if len(reference) else []


def _caption(found: Overview) -> str:
    seeds = sorted(found.table["seeds"].unique())
    return (
        f"{found.heading}. Scores are those of the last test set, on which the background names another class, with "
        f"95 % intervals over seeds and test images; {' or '.join(map(str, seeds))} seeds. Difference: percentage "
        "points above the best ISNet, on the same images; p: two-sided, corrected by Holm's method for all pairs of "
        "methods under the condition."
    ) + " Training time: multiple of the first row's." * found.seconds


def draw(found: Overview, out: Path) -> None:
    """Draw the score on the last test set: lines where the overview has points, else a grid of rows by conditions.

    A cell of the grid has the score as colour and number; a column beside it says what training costs.
    """
    if found.points is not None:
        overview_lines.draw(found.heading, found.points, found.looks, out)
        return
    table = found.table
    labels, conditions = _labels(table), list(table["condition"].unique())
    values = 100 * table.pivot(index="method", columns="condition", values="value").loc[labels.index, conditions]
    with matplotlib.rc_context(style.RC):
        fig = style.figure(_HEAD_MM + _ROW_MM * len(labels), style.PAGE_MM)
        panel = fig.subplots()
        colors = matplotlib.colormaps["cividis"].with_extremes(bad="white")
        image = panel.imshow(values, cmap=colors, vmin=0, vmax=100, aspect="auto")
        for (row, column), value in np.ndenumerate(values.to_numpy()):
            text, dark = ("not run", True) if np.isnan(value) else (f"{value:.1f}", value > 100 * _DARK)
            panel.text(column, row, text, ha="center", va="center", fontsize=6.5, color="black" if dark else "white")
        for row, cost in enumerate(_slowdowns(table)) if found.seconds else ():
            panel.text(len(conditions), row, f"{cost:.1f} ×", ha="center", va="center", fontsize=6.5)
        heads = [textwrap.fill(name, _CONDITION_CHARACTERS) for name in conditions]
        heads += ["training\ntime"] * found.seconds
        panel.set_xticks(range(len(heads)), heads)
        panel.set_yticks(range(len(labels)), [textwrap.fill(label, _NAME_CHARACTERS) for label in labels])
        panel.set_xlim(-0.5, len(heads) - 0.5)
        panel.xaxis.tick_top()
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        fig.colorbar(image, ax=panel, aspect=30, pad=0.01).set_label("Score (%)", fontsize=6.5)
        metrics = " or ".join(SCORES[name] for name in table["metric"].unique())
        how = f"{metrics} where the background names another class"
        repeats = f"mean of {' or '.join(map(str, sorted(table['seeds'].unique())))} seeds"
        cost = "; training time: multiple of the first row's" * found.seconds
        style.title(fig, style.PAGE_MM, found.heading, f"{how}; {repeats}{cost}")
        style.save(fig, out)
