"""Worse training masks: how good must the masks be that an ISNet learns from?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from scipy import ndimage

from isnet_bench.data.base import Arrays
from isnet_bench.io.errors import BenchError


@dataclass(frozen=True)
class MaskQuality:
    """What is wrong with the training masks.

    `change` is "erode" or "dilate", by a disc with a radius of so many `pixels`; "shift", by so many, in a direction
    that is drawn for each image; or "random": each image has the mask of another one, drawn at random.
    """

    change: Literal["erode", "dilate", "shift", "random"]
    pixels: PositiveInt = 1


def degrade(arrays: Arrays, quality: MaskQuality | None, rng: np.random.Generator) -> Arrays:
    """Return a split with worse masks; with None it stays as it is.

    No mask gets lost: one that erosion would delete keeps its innermost pixels. Raises BenchError if shifts move the
    whole foreground of an image out of it.
    """
    if quality is None:
        return arrays
    worse = {"erode": _erode, "dilate": _dilated, "shift": _shift, "random": _exchange}[quality.change]
    masks = worse(arrays.masks > 0, quality.pixels, rng)
    lost = int((arrays.masks.any((1, 2, 3)) & ~masks.any((1, 2, 3))).sum())
    if lost:
        raise BenchError(f"mask_quality leaves no foreground in {lost} images; lower mask_quality.pixels")
    return arrays._replace(masks=masks.astype(np.uint8))


def dilate(foreground: np.ndarray, radius: int) -> np.ndarray:
    """Dilate bool masks (N, 1, H, W) by a disc of this radius in pixels."""
    return ndimage.binary_dilation(foreground, _disc(radius)) if radius else foreground


def _disc(radius: int) -> np.ndarray:
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return (rows**2 + columns**2 <= radius**2)[None, None]


def _erode(foreground: np.ndarray, radius: int, _: np.random.Generator) -> np.ndarray:
    # Beyond the border of the image, the foreground goes on.
    eroded = ndimage.binary_erosion(foreground, _disc(radius), border_value=1)
    for number in np.flatnonzero(foreground.any((1, 2, 3)) & ~eroded.any((1, 2, 3))):
        depth = ndimage.distance_transform_edt(foreground[number])
        eroded[number] = depth == depth.max()
    return eroded


def _dilated(foreground: np.ndarray, radius: int, _: np.random.Generator) -> np.ndarray:
    return dilate(foreground, radius)


def _shift(foreground: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Shift each mask; what leaves the image is lost."""
    angles = rng.uniform(0, 2 * np.pi, len(foreground))
    steps = np.round(length * np.stack([np.sin(angles), np.cos(angles)], axis=1)).astype(int)
    padded = np.pad(foreground, ((0, 0), (0, 0), (length, length), (length, length)))
    height, width = foreground.shape[2:]
    return np.stack(
        [
            mask[:, length - down : length - down + height, length - right : length - right + width]
            for mask, (down, right) in zip(padded, steps, strict=True)
        ]
    )


def _exchange(foreground: np.ndarray, _: int, rng: np.random.Generator) -> np.ndarray:
    """Give each image the mask of the next one in a random order, so that none keeps its own."""
    order = rng.permutation(len(foreground))
    exchanged = np.empty_like(foreground)
    exchanged[order] = foreground[np.roll(order, -1)]
    return exchanged
