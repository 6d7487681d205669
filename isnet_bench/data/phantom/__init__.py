"""A generated chest phantom: X-ray-like images with exact lung masks and a background that gives the label away."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data import bias as synthetic
from isnet_bench.data.base import Arrays, DataSet
from isnet_bench.data.mask_quality import MaskQuality, degrade
from isnet_bench.data.phantom import anatomy, background, disease

log = logging.getLogger(__name__)

PUBLISHABLE = True

_CLASSES = len(disease.CLASSES)
_CHUNK_PIXELS = 2**20
_SMALLEST_LUNGS = 32
_WHITE = 255
_SOURCE_CHANGES = {
    "source unseen": ("iid", "ood"),
    "source swapped": ("iid", "deceiving"),
    "source swapped, from unseen": ("ood", "deceiving"),
}

# One of each class.
Number = Annotated[int, Field(ge=_CLASSES)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Settings:
    """Settings of the data set.

    Attributes
    ----------
    train_images, val_images, test_images : int
        Sizes of the splits; the classes are equally frequent.
    seed : int
        Of all that is drawn; not of training. Each of the splits depends on it and on its own number of images alone.
        Bodies, diseases (apart from their texture) and sources do not depend on the size of the images.
    image_size : int
        Side of the images in pixels, at least 32.
    bias : {"source", "shape"}
        "source": images come from sources, which differ in the background; each class has a source of its own in
        training, and the ood test images come from sources unseen. "shape": all images come from the same mixture
        of sources; a circle, a triangle or a square in a corner tells the class, and the ood test images have none.
    strength : float
        Probability, in [0, 1], that a training, validation or iid test image has the source or shape of its own
        class; else it has that of another one, all others being equally likely.
    traits : tuple of {"marker", "borders", "exposure", "noise"}
        What of the background goes with the source, where `bias` is "source". The rest is that of a training source
        drawn for each image on its own, and the same in all test sets.
    mark_size : int or None
        Side of the square that holds a shape, in pixels, from 6 to a sixth of the image's; None: an eighth of it,
        but at least 6.
    disease_contrast : float
        Grey level (1 = white) that the densest disease adds to the lung, in [0, 1]; others add down to a third of it.
    noise : float
        Standard deviation of the noise in grey levels, in [0, 1]. Outside the lungs sources weaken or strengthen it.
    variation : float
        In [0, 1]: how much bodies differ; 0: all are the same, 1: ranges of the documentation.
    mask_quality : MaskQuality or None
        What is wrong with the lung masks of the training images; None: nothing. All other masks are exact.
    """

    train_images: Number = 1500
    val_images: Number = 300
    test_images: Number = 600
    seed: NonNegativeInt = 0
    image_size: Annotated[int, Field(ge=_SMALLEST_LUNGS)] = 64
    bias: Literal["source", "shape"] = "source"
    strength: Share = 1.0
    traits: tuple[background.Group, ...] = ("marker", "borders", "exposure", "noise")
    mark_size: int | None = None
    disease_contrast: Share = 0.35
    noise: Share = 0.03
    variation: Share = 1.0
    mask_quality: MaskQuality | None = None

    def __post_init__(self) -> None:
        largest = max(synthetic.SMALLEST_SHAPE, self.image_size // 6)
        if self.mark_size is not None and not synthetic.SMALLEST_SHAPE <= self.mark_size <= largest:
            raise ValueError(
                f"mark_size must lie between {synthetic.SMALLEST_SHAPE} and {largest} pixels, a sixth of image_size, "
                f"not {self.mark_size}"
            )


def make(settings: Settings) -> DataSet:
    """Draw the phantoms.

    The three test sets show the same bodies with the same lungs in the same order: "iid" with a background as in
    training, "ood" with one that is independent of the label (unseen sources; no shape), "deceiving" with that of
    another class (its training source; its shape). Inside the lung masks they agree pixel for pixel.
    """
    log.info("%d phantoms are drawn", settings.train_images + settings.val_images + settings.test_images)
    *streams, mask_rng = np.random.default_rng(settings.seed).spawn(4)
    splits, records = {}, {}
    sets = (
        (settings.train_images, {"train": settings.strength}),
        (settings.val_images, {"val": settings.strength}),
        (settings.test_images, {"iid": settings.strength, "ood": None, "deceiving": 0.0}),
    )
    for (number, strengths), stream in zip(sets, streams, strict=True):
        for name, (arrays, table) in _same_bodies(number, strengths, settings, stream).items():
            splits[name], records[name] = arrays, table
    splits["train"] = degrade(splits["train"], settings.mask_quality, mask_rng)
    return DataSet(
        name="phantom",
        title="generated chest phantom",
        stand_in=False,
        classes=disease.CLASSES,
        splits=splits,
        test_sets=("iid", "ood", "deceiving"),
        background_changes=_SOURCE_CHANGES if settings.bias == "source" else synthetic.CHANGES,
        records=records,
    )


def _same_bodies(
    number: int, strengths: Mapping[str, float | None], settings: Settings, rng: np.random.Generator
) -> dict[str, tuple[Arrays, pd.DataFrame]]:
    """Draw bodies once for each set: its name to the probability of the own background, or to None."""
    body_rng, disease_rng, pixel_rng, source_rng = rng.spawn(4)
    labels = body_rng.permutation(np.arange(number) % _CLASSES)
    bodies = anatomy.draw(number, settings.variation, body_rng)
    diseases = disease.draw(labels, disease_rng)
    backgrounds = _backgrounds(labels, strengths, settings, source_rng)
    shape = (number, 1, settings.image_size, settings.image_size)
    masks = np.empty(shape, np.uint8)
    images = {name: np.empty(shape, np.uint8) for name in strengths}
    for rows in _chunks(number, settings.image_size):
        scene = anatomy.render(bodies[rows], settings.image_size, pixel_rng)
        shadow = disease.render(diseases[rows], scene, pixel_rng)
        noise = settings.noise * pixel_rng.standard_normal(scene.image.shape, dtype=np.float32)
        lungs = scene.inside > 0
        foreground = scene.image + settings.disease_contrast * shadow + noise
        masks[rows, 0] = lungs
        for name, (traits, _) in backgrounds.items():
            around = background.render(scene.image, scene.inside, noise, traits[rows])
            images[name][rows, 0] = np.round(_WHITE * np.clip(np.where(lungs, foreground, around), 0, 1))
    made = {}
    for name, (traits, which) in backgrounds.items():
        arrays = Arrays(images[name], masks, labels)
        made[name] = _mark(arrays, which, settings), _table(traits, which)
    return made


def _backgrounds(
    labels: np.ndarray, strengths: Mapping[str, float | None], settings: Settings, rng: np.random.Generator
) -> dict[str, tuple[background.Traits, np.ndarray | None]]:
    """Draw for each set where its images seem to come from, and the class whose shape each bears."""
    streams = dict(zip(strengths, rng.spawn(len(strengths)), strict=True))
    mixed = background.draw(rng.integers(0, _CLASSES, len(labels)), rng)
    if settings.bias == "shape":
        return {name: (mixed, _choose(labels, strengths[name], stream)) for name, stream in streams.items()}
    drawn = {}
    for name, stream in streams.items():
        own = _choose(labels, strengths[name], stream)
        unseen = stream.integers(_CLASSES, len(background.SOURCES), len(labels))
        traits = background.draw(unseen if own is None else own, stream)
        drawn[name] = background.mix(traits, mixed, settings.traits), None
    return drawn


def _choose(labels: np.ndarray, strength: float | None, rng: np.random.Generator) -> np.ndarray | None:
    return None if strength is None else synthetic.choose(labels, _CLASSES, strength, rng)


def _mark(arrays: Arrays, which: np.ndarray | None, settings: Settings) -> Arrays:
    if which is None:
        return arrays
    size = settings.mark_size or max(synthetic.SMALLEST_SHAPE, settings.image_size // 8)
    marks = synthetic.make_marks(synthetic.Bias("corner_shape", settings.strength, size), _CLASSES, settings.image_size)
    return arrays._replace(images=synthetic.apply(arrays.images, arrays.masks, marks, which))


def _table(traits: background.Traits, which: np.ndarray | None) -> pd.DataFrame:
    shapes = "" if which is None else np.array(synthetic.SHAPES)[which]
    sources = np.array([source.name for source in background.SOURCES])[traits.sources]
    return pd.DataFrame({"source": sources, "mask_origin": "exact", "mark": shapes})


def _chunks(number: int, image_size: int) -> Iterator[slice]:
    step = max(1, _CHUNK_PIXELS // image_size**2)
    for start in range(0, number, step):
        yield slice(start, min(start + step, number))
