"""Tables and figures of the measured operations: time and memory of training steps against the number of classes."""

from __future__ import annotations

import logging
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from isnet_bench.config import Config, Row
from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import markup, style
from isnet_bench.timing import summary as timing

log = logging.getLogger(__name__)

_LABEL_CHARACTERS = 28
_EXTRAPOLATED = (0, (2.5, 1.5))
_DOTTED = (0, (1, 1.5))
# Beyond so many powers of ten, ticks at 2 and 5 crowd the axis.
_FEW_DECADES = 2.5
_HEADROOM = 1.6
# Of a figure with a line for each method: length of a name's lines, height of a row.
_NAME_CHARACTERS = 24
_ROW_MM = 6.5

_COLUMNS = [
    *("method", "label", "classes", "median_seconds", "iqr_seconds", "ratio_to_plain", "rounds", "device", "threads"),
    *("min_seconds", "growth", "peak_memory_mb", "memory_ratio", "gflop", "gflop_ratio", "operation"),
    *timing.SETTING,
]
_SHOWN = {
    "median_seconds": ("Time of one training step (ms), median", 1000, "{:,.1f}"),
    "ratio_to_plain": ("Time as a multiple of the plain network's, in the same sweep", 1, "{:,.2f}"),
    "peak_memory_mb": ("Peak memory of one training step (MB)", 1, "{:,.1f}"),
}

Steps = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class _Quantity:
    """What is drawn: columns of the timing summary, `column` and `spread` times `unit`; `ratio`: over a plain step."""

    name: str
    axis: str
    missing: str
    column: str
    ratio: str
    unit: float = 1.0
    spread: tuple[str, ...] = ()


QUANTITIES = {
    "time": _Quantity(
        name="Training time",
        axis="One training step (ms)",
        missing="step",
        column="median_seconds",
        ratio="ratio_to_plain",
        unit=1000,
        spread=("lower_seconds", "upper_seconds"),
    ),
    "memory": _Quantity(
        name="Peak memory of training",
        axis="Peak memory of one training step (MB)",
        missing="peak memory of a step",
        column="peak_memory_mb",
        ratio="memory_ratio",
    ),
}
"""What may be drawn."""


def write(timing_json: Path, out: Path) -> None:
    """Write ``out.csv`` (all operations), ``out.md``, ``out.tex`` and ``out.html`` (training steps).

    Raises what `isnet_bench.timing.summary.summary` raises.
    """
    table = timing.summary(timing_json)
    steps = table[table["operation"] == timing.STEP]
    title, rounds = "Training steps against the number of classes", steps["rounds"].max()
    how = f"{title}: {timing.setting(timing_json)}, {rounds} round{'s' if rounds > 1 else ''}. Empty: not measured."
    markup.write(out, table[_COLUMNS], title, how, list(_parts(steps)))


def _parts(steps: pd.DataFrame) -> Iterator[markup.Part]:
    for column, (title, unit, form) in _SHOWN.items():
        if steps[column].notna().any():
            table = steps.pivot(index="label", columns="classes", values=column).loc[steps["label"].unique()]
            shown = (unit * table).map(lambda value, form=form: "" if pd.isna(value) else form.format(value))
            shown.columns = [f"{classes} classes" for classes in shown.columns]
            shown.insert(0, "Method", shown.index)
            yield markup.Part(shown, title=title, label=column, what=f"{title}.")


def draw(kind: str, cfg: Config, case: str, timing_json: Path, out: Path) -> None:
    """Draw one of `QUANTITIES` of a training step against the number of classes; times with the interquartile range.

    The legend tells each method's fitted slope. Where a method was not timed with as many classes as the others, its
    line goes on dashed, and says that it is extrapolated. ISNets and baselines have a panel each. If there is but one
    number of classes, the methods stand below each other, with their multiples of a plain step.

    Raises BenchError if the file is missing or unreadable, or holds no step of a method that the case names and that
    was not left out as too slow or too large.
    """
    quantity, rows = QUANTITIES[kind], cfg.case(case).rows
    steps = _steps(quantity, timing_json, rows)
    family = {row: cfg.catalog.methods[one.method].family for row, one in rows.items()}
    families = _families({row: one for row, one in rows.items() if row in steps}, family)
    numbers = {number for table in steps.values() for number in table["classes"]}
    panels = _at_one_number if len(numbers) == 1 else _against_classes
    with matplotlib.rc_context(style.RC):
        fig = panels(quantity, steps, families, {row: one.label for row, one in rows.items()})
        against = f"with {numbers.pop()} classes" if len(numbers) == 1 else "against the number of classes"
        style.title(fig, style.COLUMN_MM, f"{quantity.name} {against}", _how(quantity, steps, timing_json))
        style.save(fig, out)


def _against_classes(
    quantity: _Quantity, steps: Steps, families: list[dict[str, style.Look]], labels: Mapping[str, str]
) -> Figure:
    legend_rows = sum(math.ceil(len(family) / 2) for family in families)
    fig = style.figure(16 + 52 * len(families) + 6 * legend_rows)
    panels = fig.subplots(len(families), squeeze=False)[:, 0]
    most = max(table["classes"].max() for table in steps.values())
    for panel, family in zip(panels, families, strict=True):
        for row, look in family.items():
            _line(panel, quantity, steps[row], look, labels[row])
            _extrapolation(panel, steps[row], look, most)
        _axes(panel, quantity, pd.concat([steps[row] for row in family]))
        panel.legend(loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=2, columnspacing=1.2, handlelength=2.4)
    return fig


def _at_one_number(
    quantity: _Quantity, steps: Steps, families: list[dict[str, style.Look]], labels: Mapping[str, str]
) -> Figure:
    looks = {row: look for family in families for row, look in family.items()}
    names = [textwrap.fill(labels[row], _NAME_CHARACTERS) for row in looks]
    fig = style.figure(26 + _ROW_MM * len(looks))
    panel = fig.subplots()
    for place, (row, look) in enumerate(looks.items()):
        case = steps[row].iloc[0]
        spread = [[abs(case[end] - case["value"])] for end in ("lower", "upper")] if quantity.spread else None
        panel.errorbar(
            case["value"], place, xerr=spread, color=look.color, marker=look.marker, mfc=look.face, capsize=2
        )
        end = case["upper"] if quantity.spread else case["value"]
        panel.annotate(
            f"{case['value']:,.0f} ({case[quantity.ratio]:.2f} ×)", (end, place), (5, 0),
            textcoords="offset points", fontsize=6, va="center",
        )  # fmt: skip
    panel.set(xscale="log", xlabel=quantity.axis, ylim=(len(looks) - 0.5, -0.5))
    panel.set_yticks(range(len(looks)), names)
    low, high = panel.get_xlim()
    # Room for what is written beside the last marker.
    panel.set_xlim(low, high * (high / low) ** 0.35)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:,.10g}")
    panel.minorticks_off()
    panel.grid(axis="x", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)
    return fig


def _steps(quantity: _Quantity, timing_json: Path, rows: Iterable[str]) -> dict[str, pd.DataFrame]:
    """For each row its training steps: classes, value, lower and upper (in the quantity's unit), rounds."""
    table = timing.summary(timing_json)
    table = table[table["operation"] == timing.STEP].dropna(subset=[quantity.column])
    columns = dict(zip(("value", "lower", "upper"), (quantity.column, *quantity.spread), strict=False))
    table = table.assign(**{name: quantity.unit * table[column] for name, column in columns.items()})
    steps = {row: table[table["method"] == row] for row in rows if row in set(table["method"])}
    left_out = timing.refused(timing_json)
    lost = [row for row in rows if row not in steps and (row not in left_out or not steps)]
    if lost:
        what = f"{quantity.missing} of {', '.join(lost)}"
        raise BenchError(f"{timing_json} holds no {what}; {timing.REMEDY}")
    for row in left_out - steps.keys():
        log.warning("%s is not in the figure: it takes too much time or memory with the fewest classes already", row)
    return steps


def _families(rows: Mapping[str, Row], family: Mapping[str, str]) -> list[dict[str, style.Look]]:
    """The rows of each panel: the plain network with the ISNets, and with the baselines."""
    looks = style.row_looks(rows)
    plain = {name for name, row in rows.items() if row.method == timing.PLAIN}
    panels = [
        {row: look for row, look in looks.items() if row in plain or family[row] == name}
        for name in ("isnet", "baseline")
    ]
    return [panel for panel in panels if panel.keys() - plain] or [looks]


def _line(panel: Axes, quantity: _Quantity, steps: pd.DataFrame, look: style.Look, label: str) -> None:
    slope = timing.slope(steps["classes"], steps["value"])
    label = label if np.isnan(slope) else f"{label}\N{NO-BREAK SPACE}[{round(slope, 2) + 0.0:.2f}]"
    panel.plot(
        steps["classes"], steps["value"], look.line, label=textwrap.fill(label, _LABEL_CHARACTERS),
        color=look.color, marker=look.marker, mfc=look.face,
    )  # fmt: skip
    if quantity.spread:
        spread = np.abs(steps[["lower", "upper"]].sub(steps["value"], axis=0))
        panel.errorbar(steps["classes"], steps["value"], yerr=spread.T, fmt="none", ecolor=look.color, capsize=2)


def _extrapolation(panel: Axes, steps: pd.DataFrame, look: style.Look, most: int) -> None:
    """Go on from the last case to the most classes, where the row was not measured with as many."""
    last, value = steps[["classes", "value"]].to_numpy()[-1]
    if last == most or len(steps) < 2:
        return
    classes = np.geomspace(last, most, 20)
    values = timing.extrapolate(steps["classes"], steps["value"], classes)
    # From the measured value on: where the fit passes beside it, the line would start beside its marker.
    line = [value, *np.maximum(values[1:], value)]
    panel.plot(classes, line, color=look.color, linestyle=_EXTRAPOLATED, linewidth=0.9)
    # Said once: two such lines lie too close to each other for two labels.
    if not panel.texts:
        middle = len(classes) // 2
        panel.annotate(
            "extrapolated", (classes[middle], line[middle]), (3, -2), textcoords="offset points",
            color=look.color, fontsize=6, va="top", path_effects=[style.halo()],
        )  # fmt: skip


def _axes(panel: Axes, quantity: _Quantity, steps: pd.DataFrame) -> None:
    """Axes, and gray guides of constant and of linear growth from the highest value at the fewest classes."""
    classes = np.array(sorted(steps["classes"].unique()), dtype=float)
    panel.set(xscale="log", yscale="log", xlabel="Number of classes", ylabel=quantity.axis)
    few = np.log10(steps["value"].max() / steps["value"].min()) < _FEW_DECADES
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    panel.yaxis.set_major_formatter("{x:,.10g}")
    panel.set_xticks(classes, [f"{count:g}" for count in classes])
    panel.minorticks_off()
    start = steps[steps["classes"] == classes[0]]["value"].max()
    # Where nothing grows, a whole line of linear growth would press all others together.
    room = classes[0] * _HEADROOM * panel.dataLim.y1 / start
    for power, label in enumerate(("constant", "linear")):
        ends = np.array([classes[0], min(classes[-1], room) if power else classes[-1]])
        line = start * (ends / ends[0]) ** power
        panel.plot(ends, line, color=style.GREY, linestyle=_DOTTED, linewidth=0.8, zorder=0)
        panel.annotate(label, (ends[-1], line[-1]), (3, 0), textcoords="offset points", color=style.GREY, va="center")


def _how(quantity: _Quantity, steps: Mapping[str, pd.DataFrame], timing_json: Path) -> str:
    rounds = max(table["rounds"].max() for table in steps.values())
    measured = f"Median and IQR of {rounds} round{'s' if rounds > 1 else ''}; " if quantity.spread else ""
    several = any(len(table) > 1 for table in steps.values())
    return f"{measured}{timing.setting(timing_json)}; in brackets: {'log-log slope' if several else 'over plain'}"
