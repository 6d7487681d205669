"""The one look of every figure: size, fonts, and the order, colour and marker of each method."""

from __future__ import annotations

import io
import textwrap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from isnet_bench.config import Row
from isnet_bench.io.files import replacing

COLUMN_MM = 88.0
# The text of an A4 page; shown 700 pixels wide, letters of 7 points are 11 pixels high.
PAGE_MM = 160.0
MM_PER_INCH = 25.4
_CHARACTERS_PER_MM = 0.7
# Of a picture's palette.
_COLOURS = 256

RC = matplotlib.rc_params_from_file(Path(__file__).with_name("figures.mplstyle"), use_default_template=False)
"""Sizes, fonts and lines of all figures."""
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


# Okabe and Ito's colour-blind-safe palette; markers differ too, because gray print loses the colours. A method that is
# not named here has a spare look by its own name alone, so that a further method changes no other's.
_LOOKS = {
    "resnet": ("#000000", "o"),
    "original_isnet": ("#D55E00", "s"),
    "dual_isnet": ("#CC79A7", "D"),
    "selective_isnet": ("#009E73", "^"),
    "stochastic_isnet": ("#0072B2", "v"),
    "ag_sononet": ("#E69F00", "P"),
    "gain": ("#56B4E9", "X"),
    "gradcam_loss": ("#7F7F7F", "<"),
    "ham": ("#8C6BB1", ">"),
    "masked_input": ("#A6761D", "p"),
    "multitask_unet": ("#66A61E", "h"),
    "rrr": ("#E69F00", "d"),
    "softmax_grad_input": ("#56B4E9", "8"),
    "background_swap": ("#E41A1C", "P"),
    "unet_swap": ("#7F7F7F", "P"),
    "random_background": ("#E41A1C", "X"),
    "masked_training": ("#E41A1C", "<"),
    "activation_difference": ("#17BECF", ">"),
    "pgd_ex": ("#17BECF", "p"),
    "ibp_ex": ("#17BECF", "h"),
    "energy_loss": ("#7570B3", "d"),
    "cdep": ("#7570B3", "8"),
    "lrp_distillation": ("#7570B3", "*"),
    "unet_classifier": ("#7F7F7F", "*"),
    "vit": ("#8C6BB1", "H"),
    "group_dro": ("#A6761D", "X"),
    "jtt": ("#A6761D", "d"),
}
_SPARE_COLORS = ("#E69F00", "#56B4E9", "#7F7F7F", "#8C6BB1", "#A6761D", "#66A61E")
_SPARE_MARKERS = ("P", "X", "<", ">", "p", "h", "d", "8", "*", "H")
_BROKEN = ("--", ":", "-.")


def row_looks(rows: Mapping[str, Row]) -> dict[str, Look]:
    """Return the look of each row, in the order of tables and figures.

    The order is that of the configuration, but that variants of a method follow it. Variants, the rows whose id is not
    their method's name, have its colour and marker, open, with a broken line. What the configuration says of a row goes
    before all that.
    """
    looks = {}
    for method in dict.fromkeys(row.method for row in rows.values()):
        same = [row for row in rows.values() if row.method == method]
        variants = [row for row in same if row.id != method]
        for row in sorted(same, key=lambda row: row.id != method):
            color, marker = _LOOKS.get(method) or _spare(method)
            look = Look(row.color or color, row.marker or marker)
            if row in variants:
                look = replace(look, line=_BROKEN[variants.index(row) % len(_BROKEN)], filled=False)
            looks[row.id] = look
    return looks


def _spare(method: str) -> tuple[str, str]:
    number = zlib.crc32(method.encode())
    return _SPARE_COLORS[number % len(_SPARE_COLORS)], _SPARE_MARKERS[number // 7 % len(_SPARE_MARKERS)]


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
    """Write ``prefix.pdf`` (vector, fonts embedded) and ``prefix.png`` (a palette); same figure, same bytes."""
    metadata = {"CreationDate": None, "Producer": None, "Creator": None}
    with matplotlib.rc_context(RC):
        with replacing(prefix.parent / f"{prefix.name}.pdf") as part:
            fig.savefig(part, format="pdf", metadata=metadata)
        drawn = io.BytesIO()
        fig.savefig(drawn, format="png")
    # A third of the bytes, and nothing that can be seen is lost; a repository keeps every version of a figure.
    picture = Image.open(drawn).convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    with replacing(prefix.parent / f"{prefix.name}.png") as part:
        picture.save(part, format="png", optimize=True, dpi=(RC["savefig.dpi"], RC["savefig.dpi"]))
