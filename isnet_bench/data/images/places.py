"""Places: the same few pictures are the backgrounds of a class again and again, as are the scenes of camera traps.

Beery, Van Horn, Perona, "Recognition in Terra Incognita", ECCV 2018; that the class is pasted onto a place of its own
is how Waterbirds was made (Sagawa, Koh, Hashimoto, Liang, ICLR 2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from scipy import ndimage

from isnet_bench.data import bias
from isnet_bench.data.base import Arrays
from isnet_bench.data.images import planted
from isnet_bench.data.images.collection import Part, changed
from isnet_bench.data.stored import Room, in_memory, release
from isnet_bench.io.errors import BenchError

CHANGES = {
    "place removed": ("iid", "ood"),
    "place swapped": ("iid", "deceiving"),
    "place planted": ("ood", "deceiving"),
}
"""Changes of the background between the test sets of a data set with places."""

# Of the blur that fills an object in, as a share of the image's side; pixels around the object that show some of it.
_BLUR = 1 / 16
_EDGE = 2


@dataclass(frozen=True)
class Places:
    """Which pictures are backgrounds of which class.

    Attributes
    ----------
    strength : float
        Probability, in [0, 1], that the place is one of the image's class; else it is one of another class, all others
        being equally likely.
    pictures : int
        Pictures that each class has as places: training images, drawn whatever they show, no two classes the same.
    """

    strength: Annotated[float, Field(ge=0, le=1)] = 1.0
    pictures: PositiveInt = 4


def with_places(
    parts: Mapping[str, Part], places: Places, labels: Sequence[str], seed: int, room: Room = in_memory
) -> dict[str, Part]:
    """Return "train", "val", "iid", "ood" and "deceiving": the images of `parts` on places, "ood" as they are.

    `parts` are "train", "val" and "test_iid", whose images the three test sets show. What changes goes into the
    `room`. Records get the columns place, the
    label whose place it is, and place_image, the picture, and those of `planted.with_groups`. Raises BenchError if
    there are fewer training images than places.
    """
    rng = np.random.default_rng(seed)
    arrays, records = parts["train"]
    wanted = len(labels) * places.pictures
    if wanted > len(arrays.labels):
        raise BenchError(
            f"{len(arrays.labels)} training images are fewer than the {wanted} places of {len(labels)} classes; lower "
            "places.pictures"
        )
    drawn = rng.permutation(len(arrays.labels))[:wanted]
    scenes = np.stack([filled(arrays.images[one], arrays.masks[one, 0] > 0) for one in drawn])
    names = records["image"].to_numpy()[drawn]
    made = {}
    for name, strength in bias.strengths(bias.Bias(strength=places.strength)).items():
        part = parts.get(name, parts["test_iid"])
        if strength is None:
            made[name] = part._replace(records=part.records.assign(place="", place_image=""))
            continue
        which = bias.choose(part.arrays.labels, len(labels), strength, rng)
        scene = which * places.pictures + rng.integers(0, places.pictures, len(which))
        told = part.records.assign(place=np.array(labels)[which], place_image=names[scene])
        made[name] = Part(on(part.arrays, scenes, scene, room), told)
    return planted.with_groups(made, "place", labels) if places.strength < 1 else made


def filled(image: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Return an image, uint8 (C, H, W), whose foreground, bool (H, W), is a smooth continuation of its background.

    So are the two pixels around it, which may show some of it. The continuation is a normalised convolution (Knutsson,
    Westin, CVPR 1993): the mean of background pixels, weighted by a Gaussian of their distance; deep inside, it
    approaches the mean of all of them.
    """
    foreground = ndimage.binary_dilation(foreground, iterations=_EDGE)
    outside = ~foreground
    values, sigma = image.astype(np.float64), _BLUR * image.shape[-1]
    mean = values[:, outside].mean(1) if outside.any() else np.full(len(image), values.mean())
    weight = ndimage.gaussian_filter(outside.astype(np.float64), sigma) + 1e-3
    smooth = [
        (ndimage.gaussian_filter(channel * outside, sigma) + 1e-3 * level) / weight
        for channel, level in zip(values, mean, strict=True)
    ]
    return np.where(foreground, np.round(smooth), image).astype(np.uint8)


def on(arrays: Arrays, backgrounds: np.ndarray, which: np.ndarray, room: Room) -> Arrays:
    """Put the foreground of each image onto the background number ``which``, (N,), of some, uint8 (M, C, H, W)."""

    def put(rows: slice) -> np.ndarray:
        around = backgrounds[which[rows]]
        release(backgrounds)
        return np.where(arrays.masks[rows] > 0, arrays.images[rows], around)

    return arrays._replace(images=changed(arrays[:2], put, room))
