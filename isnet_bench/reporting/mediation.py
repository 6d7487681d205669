"""The figure of a mediation: how many changed predictions the silenced units of each layer are to blame for."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from isnet_bench.reporting import snapshot, style
from isnet_bench.reporting.runs import Runs

_KIND = "silenced"
_COLUMNS = 3
_HEAD_MM, _PANEL_MM, _LEGEND_MM = 17, 55, 5
_LEGEND_COLUMNS = 5
_TITLE_CHARACTERS = 88


def restored(found: Runs) -> pd.DataFrame:
    """Return what silenced units explain of the last change of the background that was examined.

    One row for each experiment, row and layer, in the order of the network's layers: experiment, condition (the names
    of the experiment's values), change, method (the row that takes part), layer, restored (mean over seeds of the share
    of the changed predictions, in [0, 1]). Empty where nothing of this was examined.
    """
    experiments = {cell.experiment for cell in found.cells}
    tables = snapshot.read(found.folder, experiments, ["mediation.parquet"]).tables
    if "mediation.parquet" not in tables:
        return pd.DataFrame()
    table = tables["mediation.parquet"]
    cells = pd.DataFrame(
        [
            (cell.experiment, cell.row, cell.source, ", ".join(value.name for value in cell.values))
            for cell in found.cells
        ],
        columns=["experiment", "row", "method", "condition"],
    )
    table = table[(table["kind"] == _KIND) & (table["change"] == table["change"].iloc[-1])].merge(cells)
    keys = ["experiment", "condition", "change", "method", "layer"]
    return table.groupby(keys, sort=False)["restored"].mean().reset_index()


def draw(found: Runs, out: Path) -> None:
    """Draw the share of changed predictions that are restored against the layer: a panel for each experiment."""
    table = restored(found)
    conditions = table["condition"].unique()
    columns = min(_COLUMNS, len(conditions))
    lines = -(-len(conditions) // columns)
    with matplotlib.rc_context(style.RC):
        legend_mm = _LEGEND_MM * -(-len(found.looks) // _LEGEND_COLUMNS)
        fig = style.figure(_HEAD_MM + _PANEL_MM * lines + legend_mm, style.PAGE_MM)
        panels = fig.subplots(lines, columns, sharey=True, squeeze=False)
        for panel, name in zip(panels.flat, conditions, strict=False):
            _panel(panel, table[table["condition"] == name], found)
            panel.set_title(textwrap.fill(name, _TITLE_CHARACTERS // columns))
        for panel in panels.flat[len(conditions) :]:
            panel.set_axis_off()
        for panel in panels[:, 0]:
            panel.set_ylabel("Predictions restored (%)")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=_LEGEND_COLUMNS, handlelength=2.4)
        how = (
            f"Of the predictions that change with the background ({table['change'].iloc[0]}): the share that is "
            "restored if the units of one layer that become 0 keep their output"
        )
        style.title(fig, style.PAGE_MM, f"{found.heading}. Mediation", f"Data: {found.data}. {found.repeats}", how)
        style.save(fig, out)


def _panel(panel: Axes, part: pd.DataFrame, found: Runs) -> None:
    layers = list(part["layer"].unique())
    for row, look in found.looks.items():
        values = part[part["method"] == row].set_index("layer")["restored"].reindex(layers)
        panel.plot(
            np.arange(len(layers)), 100 * values.to_numpy(), label=found.labels[row], color=look.color,
            marker=look.marker, markerfacecolor=look.face, linestyle=look.line,
        )  # fmt: skip
    panel.set(ylim=(-3, 103), xlabel="Layer, from the image to the class")
    panel.set_xticks(np.arange(len(layers)), layers, rotation=45, ha="right", rotation_mode="anchor")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.grid(axis="y", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)
