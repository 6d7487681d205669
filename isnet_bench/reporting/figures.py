"""The figures of an experiment: scores on each test set, relevance of images, both in short, score against time."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from adjustText import adjust_text
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from isnet_bench.io.errors import BenchError
from isnet_bench.reporting import snapshot, statistics, style, tables
from isnet_bench.reporting.runs import SCORES, Runs

EXAMPLES = 4
# More rows than a column has room for, or more panels, take the width of a page.
_COLUMN_ROWS = 9
_COLUMN_PANELS = 4
# Characters of a label's line by the figure's width, height of that line, and height of a row at least.
_LABEL_CHARACTERS = {style.COLUMN_MM: 18, style.PAGE_MM: 36}
_LINE_MM = 2.8
_ROW_MM = {style.COLUMN_MM: 6.5, style.PAGE_MM: 5.0}
# Rows so near to the best one (percentage points) have a panel of their own, if there are enough of them to crowd.
_CLOSE = 12
_CROWD = 5
# In points: where a label's lower left corner is before it moves, from its marker; half a marker.
_START = np.array([4.0, 2.5])
_MARKER = 2.5
# Points of per cent that a mean beside a whisker takes.
_MEAN_ROOM = 18
# Channels of a photograph, and the contrast that is left of it below relevance.
_COLOURS = 3
# Contrast of a photograph below its relevance: colours must be told from its greys, in print, too.
_PALE = 0.3


def accuracy(runs: Runs, out: Path) -> None:
    """The experiment's score of each method on each test set: every seed, mean and sample standard deviation.

    With one seed, bars are its 95 % intervals over test images.
    """
    narrow = len(runs.sets) <= _COLUMN_PANELS and len(runs.looks) <= _COLUMN_ROWS
    width = style.COLUMN_MM if narrow else style.PAGE_MM
    labels = [textwrap.fill(label, _LABEL_CHARACTERS[width]) for label in runs.labels.values()]
    row = max(_ROW_MM[width], _LINE_MM * max(label.count("\n") + 1 for label in labels))
    with matplotlib.rc_context(style.RC):
        fig = style.figure(28 + row * len(runs.looks), width)
        panels = fig.subplots(1, len(runs.sets), sharey=True, squeeze=False)[0]
        for panel, name in zip(panels, runs.sets, strict=True):
            _accuracy_panel(panel, runs, name)
        panels[0].set_yticks(range(len(runs.looks)), labels)
        panels[0].set_ylim(len(runs.looks) - 0.35, -0.6)
        many = "; bars: 95 % over test images" if len(runs.seeds) == 1 else " (dots); mean ± sample std (bars)"
        fig.supxlabel(f"{SCORES[runs.score]} (%)", fontsize=7)
        style.title(
            fig,
            width,
            runs.heading,
            f"Data: {runs.data}",
            f"{runs.repeats}{many}; dotted: chance",
        )
        style.save(fig, out)


def heatmaps(runs: Runs, out: Path) -> None:
    """Example images of one test set: image, foreground mask, relevance by each method (first seed).

    Relevance is shown as per cent of the image's summed absolute relevance, on one symmetric scale. Raises BenchError
    if the gallery is empty.
    """
    examples, maps = _gallery(runs)
    with matplotlib.rc_context(style.RC):
        columns, rows = 2 + len(maps), len(examples["images"])
        width = style.COLUMN_MM if columns <= 6 else style.PAGE_MM
        fig = style.figure(32 + rows * (width / columns + 2), width)
        fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        panels = fig.subplots(rows, columns, squeeze=False)
        _example_columns(panels[:, :2], **examples)
        scale = _relevance_columns(panels[:, 2:], maps, **examples)
        for panel, label in zip(
            panels[0],
            ["Image", "Mask", *(runs.labels[row] + tables.MARK * (row in runs.exceptions) for row in maps)],
            strict=True,
        ):
            panel.set_title(textwrap.fill(label, 11), fontsize=6)
        bar = fig.colorbar(scale, ax=panels, location="bottom", shrink=0.6, aspect=width / 2.2, extend="both", pad=0.02)
        others = sorted({name for row, name in runs.exceptions.items() if row in maps})
        how = "\n".join([runs.explainer, *(f"{tables.MARK} by {name}" for name in others)])
        bar.set_label(f"Relevance for the true class, % of Σ|R| of the image\n{how}", fontsize=6.5)
        which = f"{runs.gallery_set} test images, seed {runs.seeds[0]}; below: share of |R| outside the mask"
        style.title(fig, width, runs.heading, f"Data: {runs.data}", which)
        style.save(fig, out)


def chosen(labels: np.ndarray) -> np.ndarray:
    """Return which of the stored examples, given their labels (n,), are drawn: the first of each of some classes.

    Where there are fewer classes than places, further examples of them follow.
    """
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    return np.sort([*np.sort(first), *rest][:EXAMPLES])


def _accuracy_panel(panel: Axes, runs: Runs, name: str) -> None:
    table = runs.frame[runs.frame["set"] == name].set_index("method")[[runs.score, "low", "high"]]
    panel.axvline(100 / len(runs.classes), color=style.GREY, linestyle=":", linewidth=0.8, zorder=0)
    for place, (row, look) in enumerate(runs.looks.items()):
        seeds, ends = table.loc[[row], runs.score].to_numpy(), table.loc[[row], ["low", "high"]].to_numpy()
        # In per cent after the mean, as in the tables: both round to the same digit.
        mean, seeds, ends = 100 * seeds.mean(), 100 * seeds, 100 * ends
        reach = np.full((2, 1), seeds.std(ddof=1)) if len(seeds) > 1 else np.abs(ends - mean).T
        panel.errorbar(mean, place, xerr=reach, fmt=look.marker, color=look.color, mfc=look.face, capsize=3)
        if len(seeds) > 1:
            panel.plot(seeds, np.full(len(seeds), place + 0.35), ".", color=look.color, markersize=2, alpha=0.8)
        _write_mean(panel, mean, seeds, place, reach[:, 0])
    panel.set(xlim=(-5, 107), xticks=(0, 50, 100), title=name)
    panel.grid(axis="x", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)


def _write_mean(panel: Axes, mean: float, seeds: np.ndarray, place: float, reach: np.ndarray) -> None:
    """Write the mean beside the whisker, on the side where the panel has more room; above it if there is none."""
    low, high = np.fmin(mean - reach[0], seeds.min()), np.fmax(mean + reach[1], seeds.max())
    left = low > 100 - high
    end, shift, ha, va = (low, (-4, 0), "right", "center") if left else (high, (4, 0), "left", "center")
    if max(low, 100 - high) < _MEAN_ROOM:
        end, shift, ha, va = mean, (0, 2.5), "center", "bottom"
    panel.annotate(
        f"{mean:.1f}", (end, place), shift, textcoords="offset points", fontsize=6, ha=ha, va=va,
        path_effects=[style.halo()],
    )  # fmt: skip


def _gallery(runs: Runs) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    if not runs.gallery:
        raise BenchError(f"the gallery of experiment {runs.name} is empty: add some of its rows to the key gallery")
    found = snapshot.read(runs.folder, {runs.name}, []).examples(runs.name)
    lost = [row for row in runs.gallery if row not in found]
    if lost:
        raise BenchError(f"{runs.folder} has no heatmaps of {', '.join(lost)}; collect the finished runs again")
    places = chosen(found["labels"])
    examples = {key: found[key][places] for key in ("images", "masks")}
    return examples, {row: _percent(found[row][places]) for row in runs.gallery}


def _percent(relevance: np.ndarray) -> np.ndarray:
    """Relevance (n, C, H, W) summed over channels (n, H, W), in per cent of each image's absolute sum."""
    summed = relevance.sum(axis=1)
    total = np.abs(summed).sum(axis=(1, 2), keepdims=True)
    return 100 * np.divide(summed, total, out=np.zeros_like(summed), where=total > 0)


def _example_columns(panels: np.ndarray, images: np.ndarray, masks: np.ndarray) -> None:
    for (left, right), image, mask in zip(panels, images, masks, strict=True):
        picture = image.transpose(1, 2, 0) if len(image) == _COLOURS else image.mean(axis=0)
        for panel in (left, right):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
            _frame(panel)
        # On colours of any kind a line is seen where it has a dark edge.
        _outline(right, mask, "#F0E442", 1.0, edge=len(image) == _COLOURS)


def _relevance_columns(
    panels: np.ndarray, maps: dict[str, np.ndarray], masks: np.ndarray, images: np.ndarray | None = None
) -> ScalarMappable:
    """Draw maps (n, H, W); over photographs (n, 3, H, W), if these are given, in pale grey."""
    over = images is not None and images.shape[1] == _COLOURS
    limit = np.percentile(np.abs(list(maps.values())), 99.5) or 1.0
    for column, relevance in zip(panels.T, maps.values(), strict=True):
        for number, (panel, values, mask) in enumerate(zip(column, relevance, masks, strict=True)):
            if over:
                panel.imshow(1 - _PALE * (1 - images[number].mean(0)), cmap="gray", vmin=0, vmax=1)
            # The root, since colours of weak relevance are pale by themselves.
            opacity = np.sqrt(np.minimum(np.abs(values) / limit, 1)) if over else None
            scale = panel.imshow(values, cmap=style.RELEVANCE, vmin=-limit, vmax=limit, alpha=opacity)
            _outline(panel, mask, "black" if over else style.GREY, 0.5)
            _frame(panel)
            outside = np.abs(values)[mask[0] < 0.5].sum()
            panel.set_xlabel(f"{outside:.0f} %" if values.any() else "no map", fontsize=5.5, labelpad=1)
    return scale


def _outline(panel: Axes, mask: np.ndarray, color: str, width: float, edge: bool = False) -> None:
    lines = panel.contour(mask[0], levels=[0.5], colors=color, linewidths=width)
    if edge:
        lines.set_path_effects([withStroke(linewidth=2 * width, foreground="black")])


def _frame(panel: Axes) -> None:
    panel.set(xticks=(), yticks=())
    panel.spines[:].set(visible=True, linewidth=0.4, color=style.GREY)


def idea(runs: Runs, out: Path) -> None:
    """An image, where the first and the last row of the gallery look, and both rows' scores on each test set.

    Of the stored images it is that on whose background the first row's network looks most. Raises BenchError if the
    gallery is empty.
    """
    examples, maps = _gallery(runs)
    pair = {row: maps[row] for row in (runs.gallery[0], runs.gallery[-1])}
    first, *_ = pair.values()
    outside = (np.abs(first) * (examples["masks"][:, 0] < 0.5)).sum((1, 2))
    one = slice(outside.argmax(), outside.argmax() + 1)
    with matplotlib.rc_context(style.RC):
        fig = style.figure(60, style.PAGE_MM)
        panels = fig.subplots(1, 4, width_ratios=(1, 1, 1, 1.7))
        picture, mask = examples["images"][one], examples["masks"][one]
        _example_columns(np.array([[panels[0], panels[0]]]), picture, mask)
        scale = _relevance_columns(panels[None, 1:3], {row: shown[one] for row, shown in pair.items()}, mask, picture)
        fig.colorbar(scale, ax=panels[1:3], location="bottom", shrink=0.6, aspect=25).set_label(
            "Relevance for the class, % of Σ|R|", fontsize=6
        )
        panels[0].set_title("An image with its mark\nand its mask (outline)")
        for panel, row in zip(panels[1:3], pair, strict=True):
            panel.set_title(f"What it looks at:\n{runs.labels[row]}")
            panel.set_xlabel(f"{panel.get_xlabel()} outside the outline", fontsize=6)
        _idea_scores(panels[3], runs, list(pair))
        style.title(fig, style.PAGE_MM, runs.heading, f"Data: {runs.data}. {runs.repeats}")
        style.save(fig, out)


def _idea_scores(panel: Axes, runs: Runs, rows: list[str]) -> None:
    """Mean scores of rows as bars, a group for each test set."""
    means = 100 * runs.frame.groupby(["method", "set"])[runs.score].mean()
    for place, row in enumerate(rows):
        at = np.arange(len(runs.sets)) + 0.36 * place
        bars = panel.bar(at, [means[row, name] for name in runs.sets], 0.32, color=runs.looks[row].color)
        panel.bar_label(bars, fmt="%.1f", fontsize=6, padding=1)
        bars.set_label(runs.labels[row])
    panel.set_xticks(np.arange(len(runs.sets)) + 0.18, runs.sets)
    panel.set(ylim=(0, 112), yticks=(0, 50, 100), title=f"{SCORES[runs.score]} on test images (%)")
    panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def tradeoff(runs: Runs, out: Path) -> None:
    """Score on out-of-distribution images against training seconds (log scale) of every row, with 95 % intervals.

    Where many rows are close to the best one, a second panel enlarges these.
    """
    table = costs(runs)
    close = table["score"] > table["score"].max() - _CLOSE
    parts = [~close, close] if close.sum() >= _CROWD and not close.all() else [close | ~close]
    width = style.PAGE_MM if len(parts) > 1 or len(table) > _CROWD else style.COLUMN_MM
    with matplotlib.rc_context({**style.RC, "figure.dpi": style.RC["savefig.dpi"]}):
        fig = style.figure(150 if width == style.PAGE_MM else 65, width)
        panels = fig.subplots(1, len(parts), squeeze=False)[0]
        for panel, part in zip(panels, parts, strict=True):
            _tradeoff_panel(panel, table if panel is panels[0] else table[part], runs)
        panels[0].set_ylabel(f"{SCORES[tables.metric(runs)]}, {_shown(runs)} (%)")
        for panel in panels[1:]:
            panel.set_title("enlarged: the best")
        fig.supxlabel("Training time (s)", fontsize=7)
        style.title(fig, width, runs.heading, f"Data: {runs.data}", _tradeoff_bars(runs))
        fig.draw_without_rendering()
        for panel, part in zip(panels, parts, strict=True):
            _label(panel, table[part], runs)
        style.save(fig, out)


def costs(runs: Runs) -> pd.DataFrame:
    """Return for each row the score on shifted images (per cent) and the training seconds, with 95 % intervals.

    Columns: score, score_low, score_high over seeds and images (`isnet_bench.reporting.statistics.estimates`);
    seconds, the geometric mean over seeds, seconds_low and seconds_high, a t interval of the logarithm (empty with a
    single seed). In the order of the figures.
    """
    predictions = runs.table("predictions.parquet")
    chosen = predictions[predictions["set"] == _shown(runs)]
    scores = 100 * statistics.estimates(chosen, tables.metric(runs)).set_index("method")[["value", "low", "high"]]
    once = runs.frame.drop_duplicates(["method", "seed"]).groupby("method")["train_seconds"]
    times = {row: np.exp(statistics.seed_interval(np.log(seconds))) for row, seconds in once}
    seconds = pd.DataFrame.from_dict(times, orient="index", columns=["seconds", "seconds_low", "seconds_high"])
    renamed = {"value": "score", "low": "score_low", "high": "score_high"}
    return scores.rename(columns=renamed).join(seconds).loc[list(runs.looks)]


def _shown(runs: Runs) -> str:
    return "ood" if "ood" in runs.sets else runs.sets[-1]


def _tradeoff_bars(runs: Runs) -> str:
    if len(runs.seeds) == 1:
        return "1 seed; bars: 95 % intervals over test images"
    return f"{runs.repeats}; bars: 95 % intervals, vertical over seeds and test images, horizontal over seeds"


def _tradeoff_panel(panel: Axes, table: pd.DataFrame, runs: Runs) -> None:
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


def _label(panel: Axes, table: pd.DataFrame, runs: Runs) -> None:
    """Write each row's label where it covers no other label, marker or bar if that can be had, tied to its marker."""
    points, pixel, data = table[["seconds", "score"]].to_numpy(), panel.figure.dpi / 72, panel.transData.inverted()
    at = panel.transData.transform(points)
    texts = [
        panel.text(*start, runs.labels[row], fontsize=6, zorder=4, path_effects=[style.halo()])
        for row, start in zip(table.index, data.transform(at + _START * pixel), strict=True)
    ]
    lying = table[["seconds_low", "score", "seconds_high", "score"]].dropna().to_numpy()
    markers = np.hstack([data.transform(at - _MARKER * pixel), data.transform(at + _MARKER * pixel)])
    adjust_text(
        texts,
        target_x=points[:, 0],
        target_y=points[:, 1],
        objects=[Bbox.from_extents(box) for box in (*markers, *lying)],
        ax=panel,
        avoid_self=False,
        # Limited by steps and not by time, so that the same points have the same labels.
        iter_lim=1000,
        force_static=(0.05, 0.3),
        force_explode=(0, 0),
        min_arrow_len=12 * pixel,
        arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": style.GREY},
    )
