"""Table and figure of a study, and the choice among candidates by images that are distributed as those of training."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import yaml
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from isnet_bench.config import Axis
from isnet_bench.io.files import write_text
from isnet_bench.reporting import markup, statistics, style
from isnet_bench.reporting.runs import SCORES, VALIDATION, Runs

RULE = "the first candidate within one standard error of the method's best accuracy on iid validation images"

_SECONDS = "training"
_PANEL_MM = 46
_LEGEND_COLUMNS = 4
# Of the labels in a line of the legend.
_LEGEND_CHARACTERS = 84
_LABEL_CHARACTERS = 96
# Of the names of values below all panels of a line.
_NAME_CHARACTERS = 90
_NAME_LINES = 3
# Share of the distance between two values over which the points of several rows are spread.
_SPREAD = 0.6


def write(found: Runs, out: Path) -> None:
    """Write ``out.csv`` (fractions of 1), ``out.md``, ``out.tex`` and ``out.html`` (percent)."""
    table = summary(found)
    part = markup.Part(_readable(table, found), text_columns=len(found.axes) + 1)
    markup.write(out, _named(table, found), found.heading, _caption(found), [part])


def summary(found: Runs) -> pd.DataFrame:
    """One row per combination of values, row and test set, in the order of `Runs.frame`.

    Columns: the setting of each variation (the place of its value), method, label, set, metric, seeds; mean, std
    (sample standard deviation, ddof = 1), low and high (95 % t interval of the mean over seeds; of a single seed its
    interval over test images) of the score, a fraction of 1; the same of the training seconds (train_seconds_…), which
    a single seed has no interval of; background_relevance_mean and _std; data, stand_in. A single seed has no std;
    where a run has no background relevance, its mean has none.
    """
    rows = []
    for (cell, name), group in found.frame.groupby(["cell", "set"], sort=False):
        chosen, relevance = found.cells[cell], group["background_relevance"]
        rows.append(
            {
                **{
                    axis.setting: axis.values.index(value)
                    for axis, value in zip(found.axes, chosen.values, strict=True)
                },
                "method": chosen.source,
                "label": found.labels[chosen.source],
                "set": name,
                "metric": found.score,
                "seeds": len(group),
                **(_measured(group[found.score], "") | _over_images(group)),
                **_measured(group["train_seconds"], "train_seconds_"),
                # skipna: a mean over some of the seeds must not pass for one over all of them.
                "background_relevance_mean": relevance.mean(skipna=False),
                "background_relevance_std": relevance.std(skipna=False),
            }
        )
    return pd.DataFrame(rows).assign(data=found.data, stand_in=found.stand_in)


def _measured(values: pd.Series, prefix: str) -> dict[str, float]:
    interval = statistics.seed_interval(values)
    measured = {"mean": interval.value, "std": values.std(), "low": interval.low, "high": interval.high}
    return {f"{prefix}{name}": value for name, value in measured.items()}


def _over_images(group: pd.DataFrame) -> dict[str, float]:
    return {name: group[name].item() for name in ("low", "high")} if len(group) == 1 else {}


def _readable(table: pd.DataFrame, found: Runs) -> pd.DataFrame:
    """The summary for people: one row per combination of values and row, percent, mean ± std over seeds."""
    settings = [axis.setting for axis in found.axes]
    lines = []
    for (*places, _, label), group in table.groupby([*settings, "method", "label"], sort=False):
        by_set = group.set_index("set")
        pairs = zip(found.axes, places, strict=True)
        line = {axis.label: axis.values[place].name for axis, place in pairs} | {"Method": label}
        for name in found.sets:
            line[f"{name} (%)"] = markup.cell(by_set.loc[name, "mean"], by_set.loc[name, "std"], 100)
        first = by_set.loc[found.sets[0]]
        relevance = first["background_relevance_mean"], first["background_relevance_std"]
        line["Background relevance (%)"] = markup.cell(*relevance, 100)
        line["Training (s)"] = markup.cell(first["train_seconds_mean"], first["train_seconds_std"], 1)
        lines.append(line)
    return pd.DataFrame(lines)


def _caption(found: Runs) -> str:
    spread = "" if len(found.seeds) == 1 else " (mean ± sample standard deviation)"
    return (
        f"{found.heading}. Data: {found.data}. {SCORES[found.score]} on {', '.join(found.sets)} test images, "
        f"{found.repeats}{spread}. Background relevance: share of the absolute relevance outside the foreground mask, "
        f"on {found.sets[0]} images."
    )


def _named(table: pd.DataFrame, found: Runs) -> pd.DataFrame:
    return table.assign(
        **{
            axis.setting: [
                axis.values[place].given if axis.numeric else axis.values[place].name for place in table[axis.setting]
            ]
            for axis in found.axes
        }
    )


def draw(found: Runs, out: Path, seconds: bool = False) -> None:
    """Score of each row against the first varied setting: mean and 95 % t interval over seeds, or images for one seed.

    Numbers are joined by lines; values of other kinds stand beside each other. Each value of the second varied setting
    has a row of panels. `seconds` adds a panel of training times.
    """
    table = summary(found)
    columns = [*found.sets, *[_SECONDS] * seconds]
    rows = _rows(table, found)
    with matplotlib.rc_context(style.RC):
        columns_of_legend = max(1, min(_LEGEND_COLUMNS, _LEGEND_CHARACTERS // max(map(len, found.labels.values()))))
        legend_mm = 5 * -(-len(found.looks) // columns_of_legend)
        names = _names(found.axes[0], len(columns))
        names_mm = 0 if names else max(len(value.name) for value in found.axes[0].values)
        fig = style.figure(24 + legend_mm + names_mm + _PANEL_MM * len(rows), style.PAGE_MM)
        panels = fig.subplots(len(rows), len(columns), squeeze=False)
        limits = _limits(table)
        for line, (name, part) in zip(panels, rows.items(), strict=True):
            for panel, column in zip(line, columns, strict=True):
                draw_panel = _seconds if column == _SECONDS else _score
                draw_panel(panel, part[part["set"] == (found.sets[0] if column == _SECONDS else column)], found)
                panel.set_ylim(limits[column == _SECONDS])
                _ticks(panel, found.axes[0], names)
            line[0].set_ylabel(f"{name}\n{line[0].get_ylabel()}".strip())
        for panel, column in zip(panels[0], columns, strict=True):
            panel.set_title(column)
        for panel in panels[-1]:
            panel.set_xlabel(textwrap.fill(found.axes[0].label, _LABEL_CHARACTERS // len(columns)))
        handles, labels = panels[0][0].get_legend_handles_labels()
        fig.legend(handles, labels, loc="outside lower center", ncols=columns_of_legend, handlelength=2.4)
        style.title(fig, style.PAGE_MM, found.heading, f"Data: {found.data}", _how(found, limits[0][0]))
        style.save(fig, out)


def _rows(table: pd.DataFrame, found: Runs) -> dict[str, pd.DataFrame]:
    if len(found.axes) == 1:
        return {"": table}
    second = found.axes[1]
    return {
        f"{second.label}: {value.name}": table[table[second.setting] == place]
        for place, value in enumerate(second.values)
    }


def _score(panel: Axes, table: pd.DataFrame, found: Runs) -> None:
    _lines(panel, table.assign(**{name: 100 * table[name] for name in ("mean", "low", "high")}), found)
    panel.axhline(100 / len(found.classes), color=style.GREY, linestyle=":", linewidth=0.8, zorder=0)
    panel.yaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    if panel.get_subplotspec().is_first_col():
        panel.set_ylabel(f"{SCORES[found.score]} (%)")


def _seconds(panel: Axes, table: pd.DataFrame, found: Runs) -> None:
    columns = {f"train_seconds_{name}": name for name in ("mean", "low", "high")}
    _lines(panel, table.drop(columns=list(columns.values())).rename(columns=columns), found)
    panel.set(yscale="log", ylabel="Training time (s)")
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.yaxis.set_minor_locator(NullLocator())


def _lines(panel: Axes, table: pd.DataFrame, found: Runs) -> None:
    """Mean and interval (columns mean, low, high) of each row at each value."""
    varied = found.axes[0]
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


def _places(varied: Axis) -> np.ndarray:
    if varied.numeric and varied.scale != "even":
        return np.array([value.given for value in varied.values], dtype=float)
    return np.arange(len(varied.values), dtype=float)


def _names(varied: Axis, columns: int) -> list[str]:
    """Return the names of values in lines as short as their places; none if they must slant to have room."""
    room = _NAME_CHARACTERS // columns
    names = [value.name for value in varied.values]
    if varied.numeric:
        return names if _by_itself(varied) or len(" ".join(names)) < room else []
    room //= len(names)
    if room < max(len(word) for name in names for word in name.split()):
        return []
    names = [textwrap.fill(name, room) for name in names]
    return names if max(name.count("\n") for name in names) < _NAME_LINES else []


def _by_itself(varied: Axis) -> bool:
    """Whether the axis has ticks of its own rather than one for each value."""
    return varied.numeric and varied.scale == "linear" and not varied.named


def _ticks(panel: Axes, varied: Axis, names: list[str]) -> None:
    if varied.numeric and varied.scale == "log":
        panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    if _by_itself(varied):
        return
    slanting = {} if names else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    panel.set_xticks(_places(varied), names or [value.name for value in varied.values], **slanting)
    if not varied.numeric:
        panel.set_xlim(-0.5, len(varied.values) - 0.5)
        panel.tick_params(axis="x", length=0)


def _limits(table: pd.DataFrame) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ends of the axes of scores (percent) and of seconds.

    Scores begin at a multiple of 20, so that small differences can be seen.
    """
    lowest = np.clip(20 * np.floor(5 * np.nanmin(table[["mean", "low"]].to_numpy())), 0, 80)
    # A little more than what can be, so that no marker is cut.
    room = 0.03 * (100 - lowest)
    seconds = table["train_seconds_mean"]
    return (lowest if lowest else -room, 100 + room), (seconds.min() / 1.5, 1.5 * seconds.max())


def _how(found: Runs, lowest: float) -> str:
    bars = "; bars: 95 % t interval over seeds"
    if len(found.seeds) == 1:
        bars = "; bars: 95 % interval over test images" if found.frame["low"].notna().any() else ""
    dotted = "; dotted: chance" if lowest < 100 / len(found.classes) else ""
    return f"{found.repeats}{bars}{dotted}"


def write_choice(found: Runs, out: Path) -> None:
    """Write ``out.csv``, ``out.md``, ``out.tex``, ``out.html`` and ``out.yaml``.

    The yaml has what the chosen candidates set, ready for the methods of an experiment.
    """
    table = choices(found)
    caption = (
        f"{found.heading}. Data: {found.data}. Accuracy on {table['val_images'].iloc[0]} iid validation images at the "
        f"epoch whose weights are kept, {_seeds(found)}. Chosen: {RULE}."
    )
    shown = pd.DataFrame(
        {
            "Method": table["method"],
            "Candidate": table["settings"],
            "Validation accuracy (%)": [f"{100 * value:.1f}" for value in table["val_accuracy"]],
            "Chosen": ["yes" if chosen else "" for chosen in table["chosen"]],
        }
    )
    if "test_set" in table:
        (test_set,) = table["test_set"].unique()
        caption += f" An oracle, which sees the {test_set} test images, chooses the most accurate candidate there."
        shown[f"{test_set} (%)"] = [f"{100 * value:.1f}" for value in table["test_accuracy"]]
        shown["Chosen by the oracle"] = ["yes" if chosen else "" for chosen in table["oracle_chosen"]]
    markup.write(out, table, found.heading, caption, [markup.Part(shown, text_columns=2)])
    chosen = {
        cell.source: cell.values[0].given.given()
        for cell, kept in zip(found.cells, table["chosen"], strict=True)
        if kept
    }
    write_text(out.with_name(f"{out.name}.yaml"), yaml.safe_dump({"methods": chosen}, sort_keys=False))


def choices(found: Runs) -> pd.DataFrame:
    """One row per candidate: means over seeds at the best epochs, and whether it is chosen.

    Columns: method, candidate (its place, from 1), settings, val_accuracy (fraction of 1), val_loss, val_images,
    train_seconds, data, stand_in, chosen; where candidates were tested, test_set (the last one), test_accuracy, and
    oracle_chosen, whether it is the first of the method's most accurate ones there.
    """
    columns = {"accuracy": "val_accuracy", "loss": "val_loss", "images": "val_images", "train_seconds": "train_seconds"}
    by_set = {name: group.groupby("cell", sort=False) for name, group in found.frame.groupby("set", sort=False)}
    table = by_set[VALIDATION][list(columns)].mean().rename(columns=columns)
    table = table.astype({"val_images": int}).assign(data=found.data, stand_in=found.stand_in)
    table.insert(0, "method", [cell.source for cell in found.cells])
    table.insert(1, "candidate", [int(cell.values[0].id) for cell in found.cells])
    table.insert(2, "settings", [cell.values[0].name for cell in found.cells])
    table["chosen"] = table.groupby("method", sort=False)["val_accuracy"].transform(
        lambda accuracy: np.arange(len(accuracy)) == choose(accuracy, table["val_images"].iloc[0])
    )
    if found.sets[-1] != VALIDATION:
        table["test_set"], table["test_accuracy"] = found.sets[-1], by_set[found.sets[-1]]["accuracy"].mean()
        best = table.groupby("method", sort=False)["test_accuracy"].idxmax()
        table["oracle_chosen"] = table.index.isin(best)
    return table.reset_index(drop=True)


def choose(accuracy: np.ndarray, images: int) -> int:
    """Return the place of the first accuracy within one standard error of the highest one.

    The one-standard-error rule (Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section
    3.4.3): candidates stand in the order of preference, here from the strongest supervision to the weakest, and
    accuracies, shares of `images` images, that these cannot tell apart do not overrule it. The standard error is that
    of a binomial share.
    """
    accuracy = np.asarray(accuracy, float)
    best = accuracy.max()
    return int(np.argmax(accuracy >= best - np.sqrt(best * (1 - best) / images) - 1e-12))


def _seeds(found: Runs) -> str:
    return f"seed{'s' * (len(found.seeds) > 1)} {', '.join(map(str, found.seeds))}"
