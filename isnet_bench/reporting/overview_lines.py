"""The figure of an overview against a setting, such as the number of masks: a line for each row, a dot for each run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from isnet_bench.reporting import style, tables
from isnet_bench.reporting.runs import SCORES, Runs

_COLUMNS = 3
_PANEL_MM, _HEAD_MM, _LEGEND_MM = 50, 22, 4.5
_TITLE_CHARACTERS = 88
_LEGEND_CHARACTERS = 84
# Share of the distance between two values over which the rows are spread, and that distance where there is one value.
_SPREAD = 0.3
_ALONE = 2.0


def points(label: str, found: Runs, against: str) -> pd.DataFrame:
    """Return the score of each run of a study on the last test set, and where it stands in the figure.

    Columns: method (the row), seed, label, metric, set; value, a fraction of 1; x, the value of the setting `against`;
    axis, what that is called; panel, the names of the other values, behind the label if there is one.
    """
    frame, metric = found.frame[found.frame["set"] == found.sets[-1]], tables.metric(found)
    place = [axis.setting for axis in found.axes].index(against)
    values = [found.cells[cell].values for cell in frame["cell"]]
    others = [", ".join(one.name for number, one in enumerate(each) if number != place) for each in values]
    return frame[["method", "seed", "set"]].assign(
        value=frame[metric],
        metric=metric,
        label=frame["method"].map(found.labels),
        x=[float(each[place].given) for each in values],
        axis=found.axes[place].label,
        panel=[", ".join(filter(None, [label.rstrip(":"), other])) for other in others],
    )


def draw(heading: str, points: pd.DataFrame, looks: Mapping[str, style.Look], out: Path) -> None:
    """Draw a panel for each combination of the other values: mean over seeds of each row (line), each run (dot)."""
    names = points["panel"].unique()
    columns = min(_COLUMNS, len(names))
    lines = -(-len(names) // columns)
    labels = points.drop_duplicates("method").set_index("method")["label"]
    in_a_line = max(1, min(3, _LEGEND_CHARACTERS // labels.str.len().max()))
    with matplotlib.rc_context(style.RC):
        legend_mm = _LEGEND_MM * -(-len(looks) // in_a_line)
        fig = style.figure(_HEAD_MM + legend_mm + _PANEL_MM * lines, style.PAGE_MM)
        panels = fig.subplots(lines, columns, squeeze=False, sharey=True)
        for panel, name in zip(panels.flat, names, strict=False):
            part = points[points["panel"] == name]
            _panel(panel, part, looks)
            panel.set_title(textwrap.fill(name, _TITLE_CHARACTERS // columns))
            panel.set_xlabel(textwrap.fill(part["axis"].iloc[0], _TITLE_CHARACTERS // columns))
        for panel in panels.flat[len(names) :]:
            panel.set_axis_off()
        metrics = " or ".join(SCORES[name] for name in points["metric"].unique())
        for panel in panels[:, 0]:
            panel.set_ylabel(f"{metrics} (%)")
        shown = [panels[0, 0].plot([], [], **_style(look), label=labels[row])[0] for row, look in looks.items()]
        fig.legend(handles=shown, loc="outside lower center", ncols=in_a_line, handlelength=2.4)
        seeds = " or ".join(map(str, sorted(points.groupby(["panel", "x", "method"])["seed"].nunique().unique())))
        how = f"{metrics} on {' or '.join(points['set'].unique())} images, whose background names another class"
        style.title(fig, style.PAGE_MM, heading, f"{how}; lines: mean of {seeds} seeds; dots: each seed")
        style.save(fig, out)


def _style(look: style.Look) -> dict[str, str]:
    return {"color": look.color, "marker": look.marker, "markerfacecolor": look.face, "linestyle": look.line}


def _panel(panel: Axes, part: pd.DataFrame, looks: Mapping[str, style.Look]) -> None:
    at = np.sort(part["x"].unique())
    step = np.diff(np.log(at)).min() if len(at) > 1 else np.log(_ALONE)
    for number, (row, look) in enumerate(looks.items()):
        runs = part[part["method"] == row]
        means = 100 * runs.groupby("x")["value"].mean()
        # Runs of several rows would cover each other.
        shift = np.exp(_SPREAD * step * ((number + 0.5) / len(looks) - 0.5))
        panel.plot(runs["x"] * shift, 100 * runs["value"], ".", color=look.color, markersize=3, alpha=0.8, zorder=2)
        panel.plot(means.index * shift, means.to_numpy(), **_style(look), zorder=3)
    panel.set(xscale="log", xlim=(at[0] * np.exp(-step / 2), at[-1] * np.exp(step / 2)), ylim=(-3, 103))
    panel.set_xticks(at, [f"{value:g}" for value in at])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(axis="y", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)
