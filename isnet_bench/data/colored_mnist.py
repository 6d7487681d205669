"""ColoredMNIST: the colour of a digit goes with a noisy label, more than its shape does.

Arjovsky, Bottou, Gulrajani, Lopez-Paz, "Invariant Risk Minimization", arXiv:1907.02893. The bias is inside the
foreground: what looks at the foreground alone does not escape it.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data.base import Arrays, DataSet
from isnet_bench.data.mask_quality import dilate
from isnet_bench.data.mnist import digits as known
from isnet_bench.data.mnist.digits import READS

__all__ = ["PUBLISHABLE", "READS", "Settings", "make"]

PUBLISHABLE = True

_COLOURS = ("green", "red")
_CHANNEL = np.array([1, 0])
_HIGH = 5

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Settings(known.Settings):
    """Settings of the data set, beside those of the digits; the defaults are the paper's.

    Attributes
    ----------
    label_noise : float
        Probability that an image has the label of the other class.
    colour_flips : tuple of float
        Probability, in each of the training environments, that an image's colour is not that of its label.
        Environments are equally large; validation and iid test images are mixed in the same way.
    ood_colour_flip : float
        The same probability in the test set "ood".
    mask_dilation : int
        Radius, in pixels, of the disc by which the digit is dilated to become the foreground mask.
    """

    label_noise: Share = 0.25
    colour_flips: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.1, 0.2)
    ood_colour_flip: Share = 0.9
    mask_dilation: NonNegativeInt = 2


def make(settings: Settings) -> DataSet:
    """Colour digits red or green; the classes are the digits below 5 and the others, with noise.

    The colour that goes with the label is green for digits below 5, and red for the others. Both test sets show the
    same digits with the same labels. Groups are label and colour. Raises BenchError as
    `isnet_bench.data.mnist.digits.find`.
    """
    split_rng, rng = np.random.default_rng(settings.seed).spawn(2)
    digits = known.find(settings, split_rng)
    splits, groups = {}, {}
    for name, (images, numbers) in digits.subsets.items():
        labels = _flipped((numbers >= _HIGH).astype(np.int64), settings.label_noise, rng)
        masks = dilate(images[:, None] > 0, settings.mask_dilation).astype(np.uint8)
        mixed = np.array(settings.colour_flips)[rng.permutation(len(labels)) % len(settings.colour_flips)]
        flips = {"iid": mixed, "ood": settings.ood_colour_flip} if name == "test" else {name: mixed}
        for split, probability in flips.items():
            groups[split] = _flipped(labels, probability, rng)
            splits[split] = Arrays(_coloured(images, groups[split]), masks, labels)
    return DataSet(
        name=f"colored_{'digits' if digits.stand_in else 'mnist'}",
        title=f"ColoredMNIST of {digits.title}" if digits.stand_in else "ColoredMNIST",
        stand_in=digits.stand_in,
        classes=("0 to 4", "5 to 9"),
        splits=splits,
        test_sets=("iid", "ood"),
        groups=groups,
        group_names=_COLOURS,
    )


def _flipped(values: np.ndarray, probability: float | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return 0 for 1 and 1 for 0 with some probability; int64 (N,)."""
    return values ^ (rng.random(len(values)) < probability)


def _coloured(images: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Return images (N, H, W) as red or green ones (N, 3, H, W)."""
    coloured = np.zeros((len(images), 3, *images.shape[1:]), np.uint8)
    coloured[np.arange(len(images)), _CHANNEL[colours]] = images
    return coloured
