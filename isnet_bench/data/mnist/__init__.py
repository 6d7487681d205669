"""MNIST with a synthetic background bias; where it cannot be had, other digits stand in, loudly named."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data import bias as background
from isnet_bench.data.base import Arrays, DataSet
from isnet_bench.data.mask_quality import MaskQuality, degrade, dilate
from isnet_bench.data.mnist import digits as known
from isnet_bench.data.mnist.digits import CLASSES, READS, SIDE

__all__ = ["PUBLISHABLE", "READS", "Settings", "make"]

PUBLISHABLE = True


@dataclass(frozen=True)
class Settings(known.Settings):
    """Settings of the data set, beside those of the digits.

    Attributes
    ----------
    bias : Bias
        The marks of the training, validation and iid test images.
    mask_dilation : int
        Radius, in pixels, of the disc by which the digit is dilated to become the foreground mask.
    mask_quality : MaskQuality or None
        What is wrong with the masks of the training images, after dilation; None: nothing. All other masks are true.
    image_size : int
        Side of the images in pixels, at least 28; digits are enlarged bilinearly.
    """

    bias: background.Bias = field(default_factory=background.Bias)
    mask_dilation: NonNegativeInt = 2
    mask_quality: MaskQuality | None = None
    image_size: Annotated[int, Field(ge=SIDE)] = SIDE


def make(settings: Settings) -> DataSet:
    """Find the digits, split them, and put marks on them.

    The three test sets show the same digits in the same order: "iid" with marks as in training, "ood" without
    marks, "deceiving" with the mark of another class. With a strength below 1, images with marks have groups:
    `isnet_bench.data.bias.GROUPS`. Raises BenchError as `isnet_bench.data.mnist.digits.find`.
    """
    split_rng, mark_rng, mask_rng = np.random.default_rng(settings.seed).spawn(3)
    digits = known.find(settings, split_rng)
    marks = background.make_marks(settings.bias, CLASSES, settings.image_size)
    plain = {name: _frame(*subset, settings, marks) for name, subset in digits.subsets.items()}
    splits, groups = {}, {}
    for name, strength in background.strengths(settings.bias).items():
        splits[name], _ = plain[name if name in plain else "test"]
        if strength is not None:
            splits[name], groups[name] = _mark(splits[name], marks, strength, mark_rng)
    splits["train"] = degrade(splits["train"], settings.mask_quality, mask_rng)
    return DataSet(
        name="digits" if digits.stand_in else "mnist",
        title=digits.title,
        stand_in=digits.stand_in,
        classes=tuple(str(digit) for digit in range(CLASSES)),
        splits=splits,
        test_sets=("iid", "ood", "deceiving"),
        background_changes=background.CHANGES,
        details={"moved_images": {name: moved for name, (_, moved) in plain.items()}},
        **background.grouped(settings.bias, groups),
    )


def _mark(
    arrays: Arrays, marks: background.Marks, strength: float, rng: np.random.Generator
) -> tuple[Arrays, np.ndarray]:
    """Put marks on images; return which of the groups each belongs to, too."""
    which = background.choose(arrays.labels, CLASSES, strength, rng)
    marked = arrays._replace(images=background.apply(arrays.images, arrays.masks, marks, which))
    return marked, background.groups(arrays.labels, which)


def _frame(images: np.ndarray, labels: np.ndarray, settings: Settings, marks: background.Marks) -> tuple[Arrays, int]:
    images = known.resize(images, settings.image_size)[:, None]
    moved = 0
    if marks.sides is not None:
        free = [side + settings.mask_dilation if side else 0 for side in marks.sides]
        images, moved = background.make_room(images, *free)
    masks = dilate(images > 0, settings.mask_dilation)
    return Arrays(images, masks.astype(np.uint8), labels.astype(np.int64)), moved
