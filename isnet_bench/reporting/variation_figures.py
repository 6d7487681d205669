"""The figure of a study: a panel for each test set, the varied setting on the x axis, and intervals."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from isnet_bench.reporting import collect, style, variations
from isnet_bench.reporting.variations import Outcome
from isnet_bench.variations import Variation

__all__ = ["draw"]

_SECONDS = "training"
_PANEL_MM = 46
_LEGEND_COLUMNS = 4
_LABEL_CHARACTERS = 96
# Share of the distance between two values over which the points of several rows are spread.
_SPREAD = 0.6


def draw(config: dict[str, Any], study: str, results: Path, out: Path) -> None:
    """Score of each row against the first varied setting: mean and 95 % t interval over seeds, or images for one seed.

    Numbers are joined by lines; values of other kinds stand beside each other. Each value of the second varied setting
    has a row of panels. Raises what `isnet_bench.reporting.variations.outcome` raises.
    """
    found = variations.outcome(config, study, Path(results))
    table = variations.summary(found)
    columns = [*found.sets, *[_SECONDS] * config["studies"][study].get("seconds", False)]
    rows = _rows(table, found)
    with matplotlib.rc_context(style.RC):
        legend_mm = 5 * -(-len(found.looks) // _LEGEND_COLUMNS)
        names_mm = 0 if found.variations[0].numeric else max(len(value.name) for value in found.variations[0].values)
        fig = style.figure(24 + legend_mm + names_mm + _PANEL_MM * len(rows), style.PAGE_MM)
        panels = fig.subplots(len(rows), len(columns), squeeze=False)
        limits = _limits(table)
        for line, (name, part) in zip(panels, rows.items(), strict=True):
            for panel, column in zip(line, columns, strict=True):
                draw_panel = _seconds if column == _SECONDS else _score
                draw_panel(panel, part[part["set"] == (found.sets[0] if column == _SECONDS else column)], found)
                panel.set_ylim(limits[column == _SECONDS])
                _ticks(panel, found.variations[0])
            line[0].set_ylabel(f"{name}\n{line[0].get_ylabel()}".strip())
        for panel, column in zip(panels[0], columns, strict=True):
            panel.set_title(column)
        for panel in panels[-1]:
            panel.set_xlabel(textwrap.fill(found.variations[0].label, _LABEL_CHARACTERS // len(columns)))
        handles, labels = panels[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, handlelength=2.4)
        style.title(fig, style.PAGE_MM, found.heading, f"Data: {found.data}", _how(found, limits[0][0]))
        style.save(fig, Path(out))


def _rows(table: pd.DataFrame, found: Outcome) -> dict[str, pd.DataFrame]:
    """What each row of panels shows: one value of the second setting, or everything."""
    if len(found.variations) == 1:
        return {"": table}
    second = found.variations[1]
    return {
        f"{second.label}: {value.name}": table[table[second.setting] == place]
        for place, value in enumerate(second.values)
    }


def _score(panel: Axes, table: pd.DataFrame, found: Outcome) -> None:
    _lines(panel, table.assign(**{name: 100 * table[name] for name in ("mean", "low", "high")}), found)
    panel.axhline(100 / found.classes, color=style.GREY, linestyle=":", linewidth=0.8, zorder=0)
    if panel.get_subplotspec().is_first_col():
        panel.set_ylabel(f"{collect.SCORES[found.score]} (%)")


def _seconds(panel: Axes, table: pd.DataFrame, found: Outcome) -> None:
    columns = {f"train_seconds_{name}": name for name in ("mean", "low", "high")}
    _lines(panel, table.drop(columns=list(columns.values())).rename(columns=columns), found)
    panel.set(yscale="log", ylabel="Training (s)")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())


def _lines(panel: Axes, table: pd.DataFrame, found: Outcome) -> None:
    """Mean and interval (columns mean, low, high) of each row at each value."""
    varied = found.variations[0]
    at = _places(varied)
    for number, (row, look) in enumerate(found.looks.items()):
        points = table[table["method"] == row].sort_values(varied.setting, key=lambda places: at[places])
        shift = 0.0 if varied.numeric else _SPREAD * ((number + 0.5) / len(found.looks) - 0.5)
        spread = np.abs(points[["low", "high"]].sub(points["mean"], axis=0)).to_numpy().T
        panel.errorbar(
            at[points[varied.setting]] + shift, points["mean"].to_numpy(), yerr=spread, label=found.labels[row],
            color=look.color, marker=look.marker, mfc=look.face, linestyle=look.line if varied.numeric else "none",
            capsize=2, elinewidth=0.8,
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
    panel.xaxis.set_minor_locator(NullLocator())
    if varied.numeric and varied.scale == "linear" and not varied.named:
        return
    panel.set_xticks(_places(varied), [value.name for value in varied.values])
    if not varied.numeric:
        panel.set_xlim(-0.5, len(varied.values) - 0.5)
        panel.tick_params(axis="x", length=0)
        panel.set_xticks(panel.get_xticks(), panel.get_xticklabels(), rotation=45, ha="right", rotation_mode="anchor")


def _limits(table: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of the axes of scores (percent) and of seconds.

    Scores begin at a multiple of 20, so that small differences can be seen.
    """
    lowest = np.clip(20 * np.floor(5 * np.nanmin(table[["mean", "low"]].to_numpy())), 0, 80)
    # A little more than what can be, so that no marker is cut.
    room = 0.03 * (100 - lowest)
    seconds = table["train_seconds_mean"]
    return (lowest if lowest else -room, 100 + room), (seconds.min() / 1.5, 1.5 * seconds.max())


def _how(found: Outcome, lowest: float) -> str:
    bars = "; bars: 95 % t interval over seeds"
    if len(found.seeds) == 1:
        bars = "; bars: 95 % interval over test images" if found.frame["low"].notna().any() else ""
    dotted = "; dotted: one over the number of classes" if lowest < 100 / found.classes else ""
    return f"{found.repeats}{bars}{dotted}"
