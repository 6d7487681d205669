"""The figure of what robustness costs: each method's score on shifted images against its training time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from isnet_bench.reporting import collect, comparison, labels, statistics, style

__all__ = ["draw", "summary"]

# Rows so near to the best one (percentage points) have a panel of their own, if there are enough of them to crowd.
_CLOSE = 12
_CROWD = 5


def draw(config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """Score on out-of-distribution images against training seconds (log scale) of every row, with 95 % intervals.

    Where many rows are close to the best one, a second panel enlarges these.

    Raises
    ------
    isnet_bench.errors.BenchError
        If a run is missing or unreadable, or if runs saw different images.
    """
    runs = collect.runs(config, experiment, Path(results))
    table = summary(runs, comparison.predictions(runs, Path(results)))
    close = table["score"] > table["score"].max() - _CLOSE
    parts = [~close, close] if close.sum() >= _CROWD and not close.all() else [close | ~close]
    width = style.PAGE_MM if len(parts) > 1 or len(table) > _CROWD else style.COLUMN_MM
    with matplotlib.rc_context({**style.RC, "figure.dpi": style.RC["savefig.dpi"]}):
        fig = style.figure(100 if width == style.PAGE_MM else 65, width)
        panels = fig.subplots(1, len(parts), squeeze=False)[0]
        for panel, part in zip(panels, parts, strict=True):
            _panel(panel, table if panel is panels[0] else table[part], runs)
        panels[0].set_ylabel(f"{collect.SCORES[comparison.metric(runs)]}, {_shown(runs)} (%)")
        for panel in panels[1:]:
            panel.set_title("the upper ones, enlarged")
        fig.supxlabel("Training time (s)", fontsize=7)
        style.title(fig, width, runs.heading, f"Data: {runs.data}", _how(runs))
        fig.draw_without_rendering()
        for panel, part in zip(panels, parts, strict=True):
            _label(panel, table[part], runs)
        style.save(fig, Path(out))


def summary(runs: collect.Runs, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return for each row the score on shifted images (per cent) and the training seconds, with 95 % intervals.

    Columns: score, score_low, score_high over seeds and images (`isnet_bench.reporting.statistics.estimates`);
    seconds, the geometric mean over seeds, seconds_low and seconds_high, a t interval of the logarithm (empty with a
    single seed). In the order of the figures.
    """
    chosen = predictions[predictions["set"] == _shown(runs)]
    scores = 100 * statistics.estimates(chosen, comparison.metric(runs)).set_index("method")[["value", "low", "high"]]
    once = runs.frame.drop_duplicates(["method", "seed"]).groupby("method")["train_seconds"]
    times = {row: np.exp(statistics.seed_interval(np.log(seconds))) for row, seconds in once}
    seconds = pd.DataFrame.from_dict(times, orient="index", columns=["seconds", "seconds_low", "seconds_high"])
    renamed = {"value": "score", "low": "score_low", "high": "score_high"}
    return scores.rename(columns=renamed).join(seconds).loc[list(runs.looks)]


def _shown(runs: collect.Runs) -> str:
    return "ood" if "ood" in runs.sets else runs.sets[-1]


def _how(runs: collect.Runs) -> str:
    if len(runs.seeds) == 1:
        return "1 seed; bars: 95 % intervals over test images"
    return f"{runs.repeats}; bars: 95 % intervals, upright over seeds and test images, lying over seeds"


def _panel(panel: Axes, table: pd.DataFrame, runs: collect.Runs) -> None:
    for row, values in table.iterrows():
        look = runs.looks[row]
        bars = {"xerr": _reach(values, "seconds"), "yerr": _reach(values, "score")}
        panel.errorbar(
            values["seconds"], values["score"], **bars, fmt=look.marker, color=look.color, mfc=look.face,
            elinewidth=0.6, zorder=3,
        )  # fmt: skip
    low, high = table["score_low"].min(), table["score_high"].max()
    room = 0.08 * (high - low) + 0.5
    panel.set(xscale="log", ylim=(low - room, high + room))
    # Room for labels; the long bars of very few seeds may leave the panel.
    panel.set_xlim(table["seconds"].min() / 1.5, table["seconds"].max() * 1.5)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.grid(color="0.92", linewidth=0.5)
    panel.set_axisbelow(True)


def _reach(values: pd.Series, name: str) -> np.ndarray | None:
    """How far a bar reaches down and up, (2, 1); None where there is none."""
    ends = values[[f"{name}_low", f"{name}_high"]].to_numpy(float)
    return None if np.isnan(ends).any() else np.abs(ends - values[name])[:, None]


def _label(panel: Axes, table: pd.DataFrame, runs: collect.Runs) -> None:
    points = table[["seconds", "score"]].to_numpy()
    spans = table[["seconds_low", "seconds_high", "score_low", "score_high"]].to_numpy().reshape(-1, 2, 2)
    labels.place(panel, points, [runs.labels[row] for row in table.index], spans)
