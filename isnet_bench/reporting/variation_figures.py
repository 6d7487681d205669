"""The figure of a study: a panel for each test set, the varied setting on the x axis, intervals over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from isnet_bench.reporting import collect, statistics, style, variations
from isnet_bench.reporting.variations import Outcome
from isnet_bench.variations import Variation

__all__ = ["draw"]

_SECONDS = "training"
_PANEL_MM = 46
_LEGEND_COLUMNS = 4
# Share of the distance between two values over which the points of several rows are spread.
_SPREAD = 0.6


def draw(config: dict[str, Any], study: str, results: Path, out: Path) -> None:
    """Score of each row against the first varied setting: mean and 95 % t interval over seeds.

    Numbers are joined by lines; values of other kinds stand beside each other. Each value of the second varied setting
    has a row of panels. Raises what `isnet_bench.reporting.variations.outcome` raises.
    """
    found = variations.outcome(config, study, Path(results))
    table = variations.summary(found)
    columns = [*found.sets, *[_SECONDS] * config["studies"][study].get("seconds", False)]
    varied, *second = found.variations
    rows = [None] if not second else list(range(len(second[0].values)))
    with matplotlib.rc_context(style.RC):
        legend_mm = 5 * -(-len(found.looks) // _LEGEND_COLUMNS)
        fig = style.figure(24 + legend_mm + _PANEL_MM * len(rows), style.PAGE_MM)
        panels = fig.subplots(len(rows), len(columns), squeeze=False)
        lowest = _lowest(table)
        for line, place in zip(panels, rows, strict=True):
            here = table if place is None else table[table[second[0].setting] == place]
            for panel, column in zip(line, columns, strict=True):
                if column == _SECONDS:
                    _seconds(panel, here, found)
                else:
                    _score(panel, here[here["set"] == column], found, lowest)
                _ticks(panel, varied)
            what = f"{collect.SCORES[found.score]} (%)"
            line[0].set_ylabel(what if place is None else f"{second[0].values[place].name}\n{what}")
        for panel, column in zip(panels[0], columns, strict=True):
            panel.set_title(column)
        fig.supxlabel(varied.label, fontsize=7)
        handles, labels = panels[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, handlelength=2.4)
        style.title(fig, style.PAGE_MM, found.heading, f"Data: {found.data}", _how(found))
        style.save(fig, Path(out))


def _score(panel: Axes, table: pd.DataFrame, found: Outcome, lowest: float) -> None:
    table = table.assign(**{name: 100 * table[name] for name in ("mean", "low", "high")})
    _lines(panel, table, found)
    panel.axhline(100 / found.classes, color=style.GREY, linestyle=":", linewidth=0.8, zorder=0)
    panel.set_ylim(lowest, 100 + 0.03 * (100 - lowest))


def _seconds(panel: Axes, table: pd.DataFrame, found: Outcome) -> None:
    """Training seconds of each row: they are the same for all test sets."""
    first = found.frame[found.frame["set"] == found.sets[0]]
    keys = [*found.settings, "method"]
    intervals = first.groupby(keys)["train_seconds"].apply(lambda seconds: statistics.seed_interval(seconds)[1:])
    bounds = pd.DataFrame(intervals.tolist(), index=intervals.index, columns=["low", "high"]).reset_index()
    table = table[table["set"] == found.sets[0]].drop(columns=["low", "high"]).merge(bounds, on=keys)
    table = table.assign(mean=table["train_seconds_mean"])
    _lines(panel, table, found)
    panel.set(yscale="log", ylim=(table["mean"].min() / 1.5, table["mean"].max() * 1.5))
    panel.set_ylabel("Training (s)")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_formatter(NullFormatter())


def _lines(panel: Axes, table: pd.DataFrame, found: Outcome) -> None:
    """Mean and interval (columns mean, low, high) of each row at each value."""
    varied = found.variations[0]
    at = _places(varied)
    for number, (row, look) in enumerate(found.looks.items()):
        points = table[table["method"] == row]
        shift = 0.0 if varied.numeric else _SPREAD * ((number + 0.5) / len(found.looks) - 0.5)
        spread = np.abs(points[["low", "high"]].sub(points["mean"], axis=0)).to_numpy().T
        panel.errorbar(
            at[points[varied.setting]] + shift, points["mean"], yerr=spread, label=found.labels[row], capsize=2,
            color=look.color, marker=look.marker, mfc=look.face, linestyle=look.line if varied.numeric else "none",
            elinewidth=0.8,
        )  # fmt: skip
    panel.grid(axis="y", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)


def _places(varied: Variation) -> np.ndarray:
    """Where the values stand on the x axis."""
    if varied.numeric and varied.scale != "even":
        return np.array([value.given for value in varied.values], dtype=float)
    return np.arange(len(varied.values), dtype=float)


def _ticks(panel: Axes, varied: Variation) -> None:
    if varied.numeric and varied.scale == "log":
        panel.set_xscale("log")
    panel.minorticks_off() if panel.get_yscale() == "linear" else panel.xaxis.minorticks_off()
    if varied.numeric and varied.scale == "linear" and not varied.named:
        return
    panel.set_xticks(_places(varied), [value.name for value in varied.values])
    if not varied.numeric:
        panel.set_xlim(-0.5, len(varied.values) - 0.5)
        panel.tick_params(axis="x", length=0)
        panel.set_xticks(panel.get_xticks(), panel.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")


def _lowest(table: pd.DataFrame) -> float:
    """Lower end of the score axes in percent: a multiple of 20, so that small differences can be seen."""
    least = np.nanmin(table[["mean", "low"]].to_numpy())
    return float(np.clip(20 * np.floor(5 * least), 0, 80))


def _how(found: Outcome) -> str:
    bars = "" if len(found.seeds) == 1 else "; bars: 95 % t interval over seeds"
    return f"{found.repeats}{bars}; dotted: one over the number of classes"
