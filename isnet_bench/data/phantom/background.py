"""Where an image of the chest phantom seems to come from: what a source leaves on the background of its images."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from isnet_bench.data.phantom.anatomy import grid, soft

Range = tuple[float, float]
Group = Literal["marker", "borders", "exposure", "noise"]
_TAPER = 0.12
_NOWHERE = (0.0, 0.0)


@dataclass(frozen=True)
class Source:
    """A source of images. Ranges are uniformly distributed; lengths are parts of the image's side.

    A marker has letters, `text`, in one of Matplotlib's own fonts, black in a bright frame if `framed`; `letter_x` and
    `letter_y` say where its middle lies, from the left and from the top. `left`, `top`, `right`, `bottom` are widths of
    black borders. Exposure: a grey level g becomes gain · g^gamma + offset; by `across`, `down` and `corners` the image
    becomes brighter to the right, downwards and towards the corners. `noise` is a factor of the noise, `grain` the
    standard deviation of the blur that makes it grainy, in pixels of 64.
    """

    name: str
    text: str
    font: str
    letter_x: Range
    letter_y: Range
    framed: bool = False
    letter_size: Range = (0.09, 0.12)
    letter_level: Range = (0.85, 1.0)
    left: Range = _NOWHERE
    top: Range = _NOWHERE
    right: Range = _NOWHERE
    bottom: Range = _NOWHERE
    gamma: Range = (0.9, 1.1)
    gain: Range = (0.95, 1.05)
    offset: Range = (-0.03, 0.03)
    across: Range = (-0.03, 0.03)
    down: Range = (-0.03, 0.03)
    corners: Range = (-0.04, 0.02)
    noise: Range = (0.9, 1.1)
    grain: Range = (0.0, 0.3)


# The first three are the training sources of the three classes; the others are seen in no training image.
SOURCES = (
    Source(
        "archive", "R", "DejaVuSans-Bold", (0.06, 0.14), (0.06, 0.14),
        gamma=(0.75, 0.9), offset=(0.0, 0.06), down=(0.03, 0.1), noise=(0.5, 0.8),
    ),
    Source(
        "clinic", "L", "DejaVuSerif", (0.86, 0.94), (0.06, 0.16),
        left=(0.03, 0.09), right=(0.03, 0.09), gain=(0.85, 0.95), corners=(-0.16, -0.08),
    ),
    Source(
        "ward", "AP", "DejaVuSansMono", (0.86, 0.93), (0.86, 0.94), framed=True,
        top=(0.0, 0.03), bottom=(0.03, 0.09), gamma=(1.1, 1.35), across=(0.03, 0.12),
        noise=(1.1, 1.4), grain=(0.4, 0.7),
    ),
    Source(
        "harbour", "PA", "DejaVuSans", (0.07, 0.14), (0.8, 0.93),
        top=(0.03, 0.08), gamma=(0.8, 1.2), across=(-0.1, -0.03), noise=(0.8, 1.3), grain=(0.0, 0.6),
    ),
    Source(
        "island", "L", "DejaVuSans-Bold", (0.88, 0.95), (0.18, 0.32), framed=True,
        left=(0.0, 0.06), bottom=(0.0, 0.06), gain=(0.85, 1.05), down=(-0.1, 0.06), noise=(0.6, 1.5),
    ),
    Source(
        "valley", "R", "DejaVuSerif", (0.06, 0.15), (0.18, 0.4),
        left=(0.0, 0.05), top=(0.0, 0.05), right=(0.0, 0.05), bottom=(0.0, 0.05), gamma=(0.75, 1.3),
        corners=(-0.14, 0.04),
    ),
)  # fmt: skip
GROUPS: dict[Group, tuple[str, ...]] = {
    "marker": ("letter_x", "letter_y", "letter_size", "letter_level"),
    "borders": ("left", "top", "right", "bottom"),
    "exposure": ("gamma", "gain", "offset", "across", "down", "corners"),
    "noise": ("noise", "grain"),
}
"""The ranges of a source that belong together; a marker's letters, font and frame go along with its group."""


@dataclass(frozen=True)
class Traits:
    """The background of each image: where it and its marker come from, (N,), indices of `SOURCES`; and values (N,).

    Each range of a source has a value of it.
    """

    sources: np.ndarray
    markers: np.ndarray
    values: dict[str, np.ndarray]

    def __getitem__(self, rows: slice) -> Traits:
        values = {name: values[rows] for name, values in self.values.items()}
        return Traits(self.sources[rows], self.markers[rows], values)


def draw(sources: np.ndarray, rng: np.random.Generator) -> Traits:
    """Draw the background of images from ``sources`` (N,), indices of `SOURCES`."""
    values = {}
    for name in (name for group in GROUPS.values() for name in group):
        low, high = np.array([getattr(source, name) for source in SOURCES]).T
        part = rng.random(len(sources))
        values[name] = (low[sources] + (high - low)[sources] * part).astype(np.float32)
    return Traits(sources, sources, values)


def mix(own: Traits, other: Traits, groups: Collection[Group]) -> Traits:
    """Return the traits of the sources that are `own` in these groups, and those of `other` in the rest."""
    kept = {name for group in groups for name in GROUPS[group]}
    values = {name: (own if name in kept else other).values[name] for name in own.values}
    return Traits(own.sources, own.markers if "marker" in groups else other.markers, values)


def render(plain: np.ndarray, inside: np.ndarray, noise: np.ndarray, traits: Traits) -> np.ndarray:
    """Give images, grey levels (N, H, W) without noise, the background of their sources.

    `inside` is that of `anatomy.Scene`, and the noise is that inside the lungs. The background sets in gradually where
    `inside` is negative; inside the lungs the result is no foreground: it remains to be put in.
    """
    value = {name: values[:, None, None] for name, values in traits.values.items()}
    x, y = grid(plain.shape[1])
    exposed = value["gain"] * np.clip(plain, 1e-3, 1) ** value["gamma"] + value["offset"]
    exposed += value["across"] * x + value["down"] * y + value["corners"] * (x**2 + y**2)
    images = plain + np.clip(-inside / _TAPER, 0, 1) * (exposed - plain)
    images += value["noise"] * _grainy(noise, traits.values["grain"])
    images *= _frame(value, x, y)
    for image, source, *placed in zip(
        images, traits.markers, *(traits.values[f"letter_{name}"] for name in ("x", "y", "size", "level")), strict=True
    ):
        _mark(image, SOURCES[source], *placed)
    return images


def _grainy(noise: np.ndarray, grain: np.ndarray) -> np.ndarray:
    """Blur the noise of each image without weakening it."""
    blurred = np.empty_like(noise)
    for image, out, width in zip(noise, blurred, grain * noise.shape[1] / 64, strict=True):
        ndimage.gaussian_filter(image, width, output=out, truncate=2)
    weaker = np.maximum(blurred.std((1, 2), keepdims=True), 1e-6) / np.maximum(noise.std((1, 2), keepdims=True), 1e-6)
    return blurred / weaker


def _frame(value: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return 0 on black borders and 1 between them."""
    edge = 1 / x.shape[2]
    open_ = np.float32(1)
    for distance, name in ((x, "left"), (-x, "right"), (y, "top"), (-y, "bottom")):
        width = value[name]
        open_ = open_ * np.where(width > 0, soft((1 + distance) / 2 - width, edge), 1)
    return open_


def _mark(image: np.ndarray, source: Source, x: float, y: float, size: float, level: float) -> None:
    side = len(image)
    glyph = _glyph(source.text, source.font, source.framed, max(5, round(float(size) * side)))
    height, width = glyph.shape
    top = int(np.clip(round(y * side - height / 2), 0, side - height))
    left = int(np.clip(round(x * side - width / 2), 0, side - width))
    part = image[top : top + height, left : left + width]
    if source.framed:
        part[:] = level * glyph
    else:
        part += glyph * (level - part)


@cache
def _glyph(text: str, font: str, framed: bool, height: int) -> np.ndarray:
    """Return how much letters of that height in pixels cover each pixel, from 0 to 1; framed, how much they do not."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    # A capital is about 0.73 of the font's size high.
    face = ImageFont.truetype(str(path), round(height / 0.73))
    left, top, right, bottom = face.getbbox(text)
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), text, font=face, fill=255)
    glyph = np.asarray(image, np.float32) / 255
    return 1 - np.pad(glyph, max(1, height // 6)) if framed else glyph
