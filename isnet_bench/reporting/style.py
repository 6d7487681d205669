"""The one look of every figure: size, fonts, and the order, colour and marker of each method."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from isnet_bench import methods
from isnet_bench.config import MethodEntry
from isnet_bench.files import replacing

COLUMN_MM = 88.0
PAGE_MM = 180.0
MM_PER_INCH = 25.4
_CHARACTERS_PER_MM = 0.7

RC = {
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "image.interpolation": "nearest",
}

GREY = "0.45"
# An odd number of levels, so that 0 is exactly white.
RELEVANCE = LinearSegmentedColormap.from_list(
    "relevance", ["#053061", "#2166AC", "#92C5DE", "#FFFFFF", "#F4A582", "#B2182B", "#67001F"], N=257
)


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of one row of the results."""

    color: str
    marker: str
    line: str = "-"
    filled: bool = True

    @property
    def face(self) -> str:
        """Fill of the marker: variants of a method keep its colour and are drawn open."""
        return self.color if self.filled else "white"


# Okabe and Ito's colour-blind-safe palette; markers differ too, because gray print loses the colours.
_PLAIN = {"resnet": Look("#000000", "o")}
_ISNETS = {
    "original_isnet": Look("#D55E00", "s"),
    "dual_isnet": Look("#CC79A7", "D"),
    "selective_isnet": Look("#009E73", "^"),
    "stochastic_isnet": Look("#0072B2", "v"),
}
_SPARE_COLORS = ("#E69F00", "#56B4E9", "#7F7F7F", "#8C6BB1", "#A6761D", "#66A61E")
_SPARE_MARKERS = ("P", "X", "<", ">", "p", "h", "d", "8", "*", "H")
_BROKEN = ("--", ":", "-.")


def method_looks() -> dict[str, Look]:
    """Every registered method with its look, in the order of tables and figures.

    Plain network first, the baselines by name, the ISNet family last. A method without a look of its own
    gets a spare one by its place among such methods, so a new method needs no entry here.
    """
    baselines = sorted(set(methods.names()) - _PLAIN.keys() - _ISNETS.keys())
    spare = {
        name: Look(_SPARE_COLORS[i % len(_SPARE_COLORS)], _SPARE_MARKERS[i % len(_SPARE_MARKERS)])
        for i, name in enumerate(baselines)
    }
    return {**_PLAIN, **spare, **_ISNETS}


def row_looks(entries: Iterable[MethodEntry]) -> dict[str, Look]:
    """Order and look of the rows of one experiment.

    Parameters
    ----------
    entries : iterable of MethodEntry
        In the order of the configuration.

    Returns
    -------
    dict of row id to Look
        In the order to draw: by method, each followed by its variants in the configuration's order. Rows
        whose id is not the method's name are variants: its colour and marker, open, with a broken line.
    """
    entries = list(entries)
    looks = {}
    for method, base in method_looks().items():
        same = [entry.row for entry in entries if entry.method == method]
        variants = [row for row in same if row != method]
        if method in same:
            looks[method] = base
        for place, row in enumerate(variants):
            looks[row] = replace(base, line=_BROKEN[place % len(_BROKEN)], filled=False)
    return looks


def figure(height_mm: float, width_mm: float = COLUMN_MM) -> Figure:
    """Empty figure of exactly this printed size; call inside ``matplotlib.rc_context(RC)``."""
    return Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), layout="constrained")


def halo() -> withStroke:
    """Return the white border of letters that lie on lines."""
    return withStroke(linewidth=1.5, foreground="white")


def title(fig: Figure, width_mm: float, *lines: str) -> None:
    """Write lines above all panels of a figure of this printed width, each wrapped where it is too long."""
    characters = int(width_mm * _CHARACTERS_PER_MM)
    fig.suptitle("\n".join(textwrap.fill(line, characters) for line in lines), x=0.01, ha="left", fontsize=7)


def save(fig: Figure, prefix: Path) -> None:
    """Write ``prefix.pdf`` (vector, fonts embedded) and ``prefix.png`` (300 dpi); same figure, same bytes."""
    metadata = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    for kind, entries in metadata.items():
        with replacing(prefix.parent / f"{prefix.name}.{kind}") as part, matplotlib.rc_context(RC):
            fig.savefig(part, format=kind, metadata=entries)
