"""Decoy-MNIST: a grey swatch in a random corner gives the digit away, in the form in which RRR was tested.

Ross, Hughes, Doshi-Velez, "Right for the Right Reasons", IJCAI 2017, and the code of that paper.
"""

from __future__ import annotations

import numpy as np
from pydantic import NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data.base import Arrays, DataSet
from isnet_bench.data.mask_quality import dilate
from isnet_bench.data.mnist import digits as known
from isnet_bench.data.mnist.digits import CLASSES, READS, SIDE

__all__ = ["PUBLISHABLE", "READS", "Settings", "make"]

PUBLISHABLE = True

_SWATCH = 4
_WHITE, _STEP = 255, 25
_TEST_SETS = ("iid", "ood", "deceiving", "random")


@dataclass(frozen=True)
class Settings(known.Settings):
    """Settings of the data set, beside those of the digits.

    Attributes
    ----------
    mask_dilation : int
        Radius, in pixels, of the disc by which the digit is dilated to become the foreground mask.
    """

    mask_dilation: NonNegativeInt = 2


def make(settings: Settings) -> DataSet:
    """Put a swatch of 4 x 4 pixels, grey 255 - 25 * digit, into a corner of each image, drawn at random.

    The test sets show the same digits, and swatches in the same corners: "iid" as in training, "ood" without any,
    "deceiving" with that of another digit, "random" with that of any digit, which is the literature's test set. A
    swatch is background, also where it covers the digit. Raises BenchError as `isnet_bench.data.mnist.digits.find`.
    """
    split_rng, rng = np.random.default_rng(settings.seed).spawn(2)
    digits = known.find(settings, split_rng)
    splits = {}
    for name, (images, labels) in digits.subsets.items():
        labels, corners = labels.astype(np.int64), _corners(len(labels), rng)
        masks = (dilate(images[:, None] > 0, settings.mask_dilation) & ~corners).astype(np.uint8)
        shown = {name: labels}
        if name == "test":
            others = (labels + rng.integers(1, CLASSES, len(labels))) % CLASSES
            drawn = rng.integers(0, CLASSES, len(labels))
            shown = dict(zip(_TEST_SETS, (labels, None, others, drawn), strict=True))
        for split, which in shown.items():
            splits[split] = Arrays(_with_swatches(images[:, None], corners, which), masks, labels)
    return DataSet(
        name=f"decoy_{'digits' if digits.stand_in else 'mnist'}",
        title=f"Decoy-MNIST of {digits.title}" if digits.stand_in else "Decoy-MNIST",
        stand_in=digits.stand_in,
        classes=tuple(str(digit) for digit in range(CLASSES)),
        splits=splits,
        test_sets=_TEST_SETS,
        background_changes={
            "swatch removed": ("iid", "ood"),
            "swatch swapped": ("iid", "deceiving"),
            "swatch randomised": ("iid", "random"),
        },
    )


def _corners(number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a corner for each image, bool (N, 1, H, W)."""
    far = (SIDE - _SWATCH) * rng.integers(0, 2, (number, 2))
    inside = (far[..., None] <= np.arange(SIDE)) & (np.arange(SIDE) < far[..., None] + _SWATCH)
    return (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]


def _with_swatches(images: np.ndarray, corners: np.ndarray, which: np.ndarray | None) -> np.ndarray:
    if which is None:
        return images
    levels = (_WHITE - _STEP * which).astype(np.uint8)
    return np.where(corners, levels[:, None, None, None], images)
