"""The figures of an experiment: accuracy on each test set, relevance of example images."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from isnet_bench.errors import BenchError
from isnet_bench.reporting import collect, style, tables

EXAMPLES = 4
# More rows than a column has room for, or more panels, take the width of a page.
_COLUMN_ROWS = 9
_COLUMN_PANELS = 4
# Characters of a label's line by the figure's width, height of that line, and height of a row at least.
_LABEL_CHARACTERS = {style.COLUMN_MM: 18, style.PAGE_MM: 40}
_LINE_MM = 2.8
_ROW_MM = {style.COLUMN_MM: 6.5, style.PAGE_MM: 5.0}


def accuracy(config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """The experiment's score of each method on each test set: every seed, mean and sample standard deviation.

    With one seed, bars are its 95 % intervals over test images.
    """
    runs = collect.runs(config, experiment, Path(results))
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
        fig.supxlabel(f"{collect.SCORES[runs.score]} (%)", fontsize=7)
        style.title(
            fig,
            width,
            runs.heading,
            f"Data: {runs.data}",
            f"{runs.repeats}{many}; dotted: one over the number of classes",
        )
        style.save(fig, Path(out))


def heatmaps(config: dict[str, Any], experiment: str, results: Path, out: Path) -> None:
    """Example images of one test set: image, foreground mask, relevance by each method (first seed).

    Relevance is shown as per cent of the image's summed absolute relevance, on one symmetric scale.

    Raises
    ------
    BenchError
        If a run is missing or unreadable, if the methods stored different images, or if the gallery is empty.
    """
    if not has_gallery(config, experiment):
        raise BenchError(f"the gallery of experiment {experiment} is empty: name some of its rows there")
    runs = collect.runs(config, experiment, Path(results))
    examples, maps = _gallery(runs, Path(results))
    with matplotlib.rc_context(style.RC):
        columns, rows = 2 + len(maps), len(examples["images"])
        width = style.COLUMN_MM if columns <= 6 else style.PAGE_MM
        fig = style.figure(32 + rows * (width / columns + 2), width)
        fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
        panels = fig.subplots(rows, columns, squeeze=False)
        _example_columns(panels[:, :2], **examples)
        scale = _relevance_columns(panels[:, 2:], maps, examples["masks"])
        for panel, label in zip(
            panels[0],
            ["Image", "Mask", *(runs.labels[row] + tables.MARK * (row in runs.exceptions) for row in maps)],
            strict=True,
        ):
            panel.set_title(textwrap.fill(label, 11), fontsize=6)
        bar = fig.colorbar(scale, ax=panels, location="bottom", shrink=0.6, aspect=width / 2.2, extend="both", pad=0.02)
        how = "\n".join([runs.explainer, *(f"{tables.MARK} by {name}" for name in sorted({*runs.exceptions.values()}))])
        bar.set_label(f"Relevance for the true class, % of Σ|R| of the image\n{how}", fontsize=6.5)
        which = f"{runs.gallery_set} test images, seed {runs.seeds[0]}; below: share of |R| outside the mask"
        style.title(fig, width, runs.heading, f"Data: {runs.data}", which)
        style.save(fig, Path(out))


def chosen(labels: np.ndarray) -> np.ndarray:
    """Return which of the stored examples, given their labels (n,), are drawn: the first of each of some classes.

    Where there are fewer classes than places, further examples of them follow.
    """
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    return np.sort([*np.sort(first), *rest][:EXAMPLES])


def has_gallery(config: Mapping[str, Any], experiment: str) -> bool:
    """Return whether an experiment has a figure of heatmaps: its key gallery is not empty."""
    return config["experiments"][experiment].get("gallery") != []


def _accuracy_panel(panel: Axes, runs: collect.Runs, name: str) -> None:
    table = runs.frame[runs.frame["set"] == name].set_index("method")[[runs.score, "low", "high"]] * 100
    panel.axvline(100 / len(runs.classes), color=style.GREY, linestyle=":", linewidth=0.8, zorder=0)
    for place, (row, look) in enumerate(runs.looks.items()):
        seeds, ends = table.loc[[row], runs.score].to_numpy(), table.loc[[row], ["low", "high"]].to_numpy()
        mean = seeds.mean()
        reach = np.full((2, 1), seeds.std(ddof=1)) if len(seeds) > 1 else np.abs(ends - mean).T
        panel.errorbar(mean, place, xerr=reach, fmt=look.marker, color=look.color, mfc=look.face, capsize=3)
        if len(seeds) > 1:
            panel.plot(seeds, np.full(len(seeds), place + 0.35), ".", color=look.color, markersize=2, alpha=0.8)
        _write_mean(panel, seeds, place, reach[:, 0])
    panel.set(xlim=(-5, 107), xticks=(0, 50, 100), title=name)
    panel.grid(axis="x", color="0.9", linewidth=0.5)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)


def _write_mean(panel: Axes, seeds: np.ndarray, place: float, reach: np.ndarray) -> None:
    """Write the mean beside the whisker, on the side where the panel has more room."""
    mean = seeds.mean()
    side = -1 if mean > 50 else 1
    reach = np.nanmax([reach[max(side, 0)], *side * (seeds - mean)])
    panel.annotate(
        f"{mean:.1f}",
        (mean + side * reach, place),
        (side * 4, 0),
        textcoords="offset points",
        fontsize=6,
        ha="right" if side < 0 else "left",
        va="center",
        path_effects=[style.halo()],
    )


def _gallery(runs: collect.Runs, results: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Images and masks of the first examples with different labels; each method's relevance in per cent."""
    stored = collect.gallery(results, runs)
    first = next(iter(stored))
    for row, other in stored.items():
        if not np.array_equal(other["images"], stored[first]["images"]):
            raise BenchError(f"{row} and {first} stored heatmaps of different images; evaluate both again")
    places = chosen(stored[first]["labels"])
    examples = {key: stored[first][key][places] for key in ("images", "masks")}
    return examples, {row: _percent(other["relevance"][places]) for row, other in stored.items()}


def _percent(relevance: np.ndarray) -> np.ndarray:
    """Relevance (n, C, H, W) summed over channels (n, H, W), in per cent of each image's absolute sum."""
    summed = relevance.sum(axis=1)
    total = np.abs(summed).sum(axis=(1, 2), keepdims=True)
    return 100 * np.divide(summed, total, out=np.zeros_like(summed), where=total > 0)


def _example_columns(panels: np.ndarray, images: np.ndarray, masks: np.ndarray) -> None:
    for (left, right), image, mask in zip(panels, images, masks, strict=True):
        picture = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(axis=0)
        for panel in (left, right):
            panel.imshow(picture, cmap="gray", vmin=0, vmax=1)
            _frame(panel)
        _outline(right, mask, "#F0E442", 1.0)


def _relevance_columns(panels: np.ndarray, maps: dict[str, np.ndarray], masks: np.ndarray) -> ScalarMappable:
    limit = np.percentile(np.abs(list(maps.values())), 99.5) or 1.0
    for column, relevance in zip(panels.T, maps.values(), strict=True):
        for panel, values, mask in zip(column, relevance, masks, strict=True):
            scale = panel.imshow(values, cmap=style.RELEVANCE, vmin=-limit, vmax=limit)
            _outline(panel, mask, style.GREY, 0.5)
            _frame(panel)
            outside = np.abs(values)[mask[0] < 0.5].sum()
            panel.set_xlabel(f"{outside:.0f} %" if values.any() else "no map", fontsize=5.5, labelpad=1)
    return scale


def _outline(panel: Axes, mask: np.ndarray, color: str, width: float) -> None:
    panel.contour(mask[0], levels=[0.5], colors=color, linewidths=width)


def _frame(panel: Axes) -> None:
    panel.set(xticks=(), yticks=())
    panel.spines[:].set(visible=True, linewidth=0.4, color=style.GREY)
