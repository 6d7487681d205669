"""Synthetic background bias: marks outside the foreground that give the label away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from isnet_bench.errors import BenchError

__all__ = ["Bias", "Marks", "apply", "choose", "make_marks", "make_room"]

_WHITE = 255
_STRONGEST_TINT = 0.5


@dataclass(frozen=True)
class Bias:
    """How the background gives the label away.

    Attributes
    ----------
    pattern : {"border_pixel", "corner_patch", "tinted_background"}
        "border_pixel": a white square on the left border, whose row encodes the class. "corner_patch": a
        square in the corner number class % 4 (clockwise from the upper left), the darker the larger class //
        4. "tinted_background": all background at the grey level 0.5 (class + 1) / classes, where white is 1.
    strength : float
        Probability, in [0, 1], that the mark is that of the image's class; else it is that of another one,
        all others being equally likely.
    size : int
        Side of the square in pixels; without meaning for tinted_background.
    """

    pattern: Literal["border_pixel", "corner_patch", "tinted_background"] = "border_pixel"
    strength: float = 1.0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise BenchError(f"strength must lie in [0, 1], not {self.strength}")
        if self.size < 1:
            raise BenchError(f"size must be at least 1 pixel, not {self.size}")


class Marks(NamedTuple):
    """Mark of each class: grey levels uint8 (classes, H, W), and the pixels that it covers, bool (classes, H,
    W).

    ``sides``: widths in pixels of the left and the right border strip that hold all marks, to be kept free of
    foreground; None for marks that lie wherever there is no foreground.
    """

    levels: np.ndarray
    covers: np.ndarray
    sides: tuple[int, int] | None


def make_marks(bias: Bias, classes: int, image_size: int) -> Marks:
    """Draw the mark of each class.

    Raises
    ------
    BenchError
        If the marks of two classes would overlap.
    """
    if bias.pattern == "tinted_background":
        levels = np.round(_WHITE * _STRONGEST_TINT * np.arange(1, classes + 1) / classes)
        shape = (classes, image_size, image_size)
        return Marks(np.broadcast_to(levels[:, None, None], shape).astype(np.uint8), np.ones(shape, bool), None)
    draw = _border_squares if bias.pattern == "border_pixel" else _corner_squares
    return draw(bias.size, classes, image_size)


def choose(labels: np.ndarray, classes: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the class whose mark each image bears: its own with probability `strength`, else any other."""
    agrees = rng.random(len(labels)) < strength
    other = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(agrees, labels, other)


def apply(images: np.ndarray, masks: np.ndarray, marks: Marks, which: np.ndarray) -> np.ndarray:
    """Return the images (N, C, H, W) with the mark of class ``which`` (N,); images are not changed.

    Raises
    ------
    BenchError
        If a mark would touch the foreground ``masks`` (N, 1, H, W).
    """
    foreground = masks[:, 0] > 0
    covers = marks.covers[which]
    if marks.sides is None:
        covers &= ~foreground
    touching = int((covers & foreground).any((1, 2)).sum())
    if touching:
        raise BenchError(f"marks touch the foreground of {touching} images; lower bias.size or mask_dilation")
    marked = images.copy()
    np.copyto(marked, marks.levels[which][:, None], where=covers[:, None])
    return marked


def make_room(images: np.ndarray, left: int, right: int) -> tuple[np.ndarray, int]:
    """Shift images (N, C, H, W) sideways, as little as needed, until ``left`` and ``right`` columns are
    black.

    Returns
    -------
    images : ndarray
        A copy.
    moved : int
        Number of images that had to be shifted.

    Raises
    ------
    BenchError
        If what an image shows is too wide for that.
    """
    width = images.shape[3]
    ink = images.any((1, 2))
    blank = ~ink.any(1)
    first = np.where(blank, left, ink.argmax(1))
    last = np.where(blank, left, width - 1 - ink[:, ::-1].argmax(1))
    limit = width - 1 - right
    shift = np.maximum(left - first, 0) + np.minimum(limit - last, 0)
    too_wide = int(((first + shift < left) | (last + shift > limit)).sum())
    if too_wide:
        raise BenchError(
            f"{too_wide} images leave no room for marks ({left} columns on the left, {right} on the right); "
            "lower bias.size or mask_dilation"
        )
    images = images.copy()
    for amount in np.unique(shift[shift != 0]):
        images[shift == amount] = np.roll(images[shift == amount], amount, axis=3)
    return images, int((shift != 0).sum())


def _border_squares(size: int, classes: int, image_size: int) -> Marks:
    if size * classes > image_size:
        raise BenchError(
            f"{classes} marks of {size} pixels do not fit above each other into {image_size}; lower bias.size"
        )
    covers = np.zeros((classes, image_size, image_size), bool)
    for index, row in enumerate(np.linspace(0, image_size - size, classes).round().astype(int)):
        covers[index, row : row + size, :size] = True
    return Marks(covers.astype(np.uint8) * _WHITE, covers, (size, 0))


def _corner_squares(size: int, classes: int, image_size: int) -> Marks:
    if 2 * size > image_size:
        raise BenchError(f"squares of {size} pixels in the corners of {image_size} overlap; lower bias.size")
    near, far = slice(0, size), slice(image_size - size, image_size)
    corners = [(near, near), (near, far), (far, far), (far, near)]
    steps = -(-classes // len(corners))
    levels = np.zeros((classes, image_size, image_size), np.uint8)
    for index in range(classes):
        levels[index][corners[index % len(corners)]] = round(_WHITE * (1 - index // len(corners) / steps))
    return Marks(levels, levels > 0, (size, size))
