"""Synthetic background bias: marks outside the foreground that give the label away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass

from isnet_bench.io.errors import BenchError

CHANGES = {"mark removed": ("iid", "ood"), "mark swapped": ("iid", "deceiving"), "mark added": ("ood", "deceiving")}
"""Changes of the background between the test sets of a data set with marks."""

GROUPS = ("bias-aligned", "bias-conflicting")
"""Images with the mark of their own class, and with that of another, as Nam et al. (NeurIPS 2020) call them."""

_WHITE = 255
_STRONGEST_TINT = 0.5
SHAPES = ("circle", "triangle", "square")
SMALLEST_SHAPE = 6


@dataclass(frozen=True)
class Bias:
    """How the background gives the label away.

    Attributes
    ----------
    pattern : {"border_pixel", "corner_patch", "tinted_background", "corner_shape"}
        "border_pixel": a white square on the left border, whose row encodes the class. "corner_patch": a
        square in the corner number class % 4 (clockwise from the upper left), the darker the larger class //
        4. "tinted_background": all background at the grey level 0.5 (class + 1) / classes, where white is 1.
        "corner_shape": a circle, a triangle or a square, for the first, second and third class, white on a
        black square in the upper left corner; where that is not free of foreground, in the next one clockwise
        that is. All classes' marks cover the same square, so that its place tells nothing of the class.
    strength : float
        Probability, in [0, 1], that the mark is that of the image's class; else it is that of another one,
        all others being equally likely.
    size : int
        Side of the square in pixels, of a corner_shape at least 6; without meaning for tinted_background.
    """

    pattern: Literal["border_pixel", "corner_patch", "tinted_background", "corner_shape"] = "border_pixel"
    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    size: PositiveInt = 1

    def __post_init__(self) -> None:
        if self.pattern == "corner_shape" and self.size < SMALLEST_SHAPE:
            raise ValueError(
                f"size must be at least {SMALLEST_SHAPE} pixels for the pattern corner_shape, not {self.size}: "
                "smaller shapes look alike"
            )


class Marks(NamedTuple):
    """Mark of each class: grey levels uint8 (classes, H, W), and the pixels that it covers, bool (classes, H, W).

    ``sides``: widths in pixels of the left and the right border strip that hold all marks, to be kept free of
    foreground; None for marks that lie wherever there is no foreground. ``corner``: side of the square in the upper
    left corner that every mark fills, if each image may have it in whichever corner is free of foreground; else 0.
    """

    levels: np.ndarray
    covers: np.ndarray
    sides: tuple[int, int] | None
    corner: int = 0


def strengths(bias: Bias) -> dict[str, float | None]:
    """Return for each split of a data set with marks how often they agree with the label; None: no marks."""
    own = dict.fromkeys(("train", "val", "iid"), bias.strength)
    return {**own, "ood": None, "deceiving": 0.0}


def make_marks(bias: Bias, classes: int, image_size: int) -> Marks:
    """Draw the mark of each class. Raises BenchError if two would overlap, or if classes outnumber shapes."""
    if bias.pattern == "tinted_background":
        levels = np.round(_WHITE * _STRONGEST_TINT * np.arange(1, classes + 1) / classes)
        shape = (classes, image_size, image_size)
        return Marks(np.broadcast_to(levels[:, None, None], shape).astype(np.uint8), np.ones(shape, bool), None)
    draw = {"border_pixel": _border_squares, "corner_patch": _corner_squares, "corner_shape": _corner_shapes}
    return draw[bias.pattern](bias.size, classes, image_size)


def choose(labels: np.ndarray, classes: int, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the class whose mark each image bears: its own with probability `strength`, else any other."""
    agrees = rng.random(len(labels)) < strength
    other = (labels + rng.integers(1, classes, len(labels))) % classes
    return np.where(agrees, labels, other)


def groups(labels: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return which of `GROUPS` each image of these labels belongs to, with the mark of class ``which``; int64 (N,)."""
    return (labels != which).astype(np.int64)


def grouped(bias: Bias, groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what a `DataSet` with marks has of `groups`, by split: none where every training image is bias-aligned."""
    return {} if bias.strength == 1 else {"groups": groups, "group_names": GROUPS}


def apply(images: np.ndarray, masks: np.ndarray, marks: Marks, which: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) with the mark of class ``which`` (N,), without changing the given ones.

    Raises BenchError if a mark would touch the foreground of the masks (N, 1, H, W).
    """
    foreground = masks[:, 0] > 0
    levels, covers = marks.levels[which], marks.covers[which]
    if marks.sides is None:
        covers &= ~foreground
    elif marks.corner:
        levels, covers = _to_free_corners(levels, covers, foreground, marks.corner)
    touching = int((covers & foreground).any((1, 2)).sum())
    if touching:
        raise BenchError(f"marks touch the foreground of {touching} images; lower bias.size or mask_dilation")
    marked = images.copy()
    np.copyto(marked, levels[:, None], where=covers[:, None])
    return marked


def make_room(images: np.ndarray, left: int, right: int) -> tuple[np.ndarray, int]:
    """Shift images (N, C, H, W) sideways, as little as needed, until so many columns at their sides are black.

    Returns a copy and the number of images that had to be shifted. Raises BenchError if one shows what is too wide.
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
    corners = _corners(size, image_size)
    steps = -(-classes // len(corners))
    levels = np.zeros((classes, image_size, image_size), np.uint8)
    for index in range(classes):
        levels[index][corners[index % len(corners)]] = round(_WHITE * (1 - index // len(corners) / steps))
    return Marks(levels, levels > 0, (size, size))


def _corner_shapes(size: int, classes: int, image_size: int) -> Marks:
    if classes > len(SHAPES):
        raise BenchError(
            f"the pattern corner_shape has {len(SHAPES)} shapes ({', '.join(SHAPES)}), and the data have {classes} "
            "classes; choose another bias.pattern"
        )
    if 2 * size > image_size:
        raise BenchError(f"shapes of {size} pixels in the corners of {image_size} overlap; lower bias.size")
    levels = np.zeros((classes, image_size, image_size), np.uint8)
    for level, shape in zip(levels, SHAPES, strict=False):
        level[:size, :size] = _WHITE * _shape(shape, size)
    covers = np.zeros(levels.shape, bool)
    covers[:, :size, :size] = True
    return Marks(levels, covers, (0, 0), size)


def _shape(name: str, size: int) -> np.ndarray:
    """Draw a shape, bool (size, size), as large as a margin allows by which it can be told from its surroundings."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    radius = size / 2 - max(1, size // 10)
    if name == "circle":
        # A quarter of a pixel less: small circles would differ from squares in their corner pixels alone.
        return np.hypot(rows, columns) <= radius - 0.25
    square = np.maximum(abs(rows), abs(columns)) <= radius
    return square if name == "square" else square & (2 * abs(columns) <= rows + radius + 0.5)


def _corners(size: int, image_size: int) -> list[tuple[slice, slice]]:
    """Squares in the corners, clockwise from the upper left."""
    near, far = slice(0, size), slice(image_size - size, image_size)
    return [(near, near), (near, far), (far, far), (far, near)]


def _to_free_corners(
    levels: np.ndarray, covers: np.ndarray, foreground: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move marks (N, H, W) from the upper left corner to the first one that is free; where none is, they stay."""
    corners = _corners(size, foreground.shape[2])
    free = np.stack([~foreground[:, *corner].any((1, 2)) for corner in corners], axis=1)
    place = free.argmax(1)
    for number, (rows, columns) in enumerate(corners):
        shift = (rows.start, columns.start)
        levels[place == number] = np.roll(levels[place == number], shift, axis=(1, 2))
        covers[place == number] = np.roll(covers[place == number], shift, axis=(1, 2))
    return levels, covers
