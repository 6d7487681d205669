"""Chest X-rays that a manifest lists; where there is none, a generated phantom stands in, loudly named."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data import bias as synthetic
from isnet_bench.data import phantom
from isnet_bench.data.base import DataSet
from isnet_bench.data.images import collection, manifest, places, planted
from isnet_bench.data.images import reading as images
from isnet_bench.data.images.checks import SPLITS, fingerprint
from isnet_bench.data.images.collection import SMALLEST, Part, Seen
from isnet_bench.data.stored import Room, in_memory
from isnet_bench.data.xray import checks, grey
from isnet_bench.io.errors import BenchError
from isnet_bench.io.inputs import data_root, nothing_there

log = logging.getLogger(__name__)

# Published under CC BY 4.0. Terms of the others forbid it, or are each image's own; of your own images, only you know.
PUBLISHABLE = frozenset({"covid_cxnet"})
READS = ("{manifest}",)
ON_DISK = True

_RECORDED = ["image", "source", "mask_origin"]


@dataclass(frozen=True)
class Phantom:
    """Sizes of the phantom that stands in.

    Attributes
    ----------
    train_images, val_images, test_images : int
        Number of images.
    """

    train_images: phantom.Number = 1500
    val_images: phantom.Number = 300
    test_images: phantom.Number = 600


@dataclass(frozen=True)
class Settings:
    """Settings of the data set.

    Attributes
    ----------
    manifest : str
        The manifest, relative to the data root (environment variable ISNET_BENCH_DATA, else ``data/``). Columns image,
        label, source, split (train, val, test_iid, test_ood) and mask, which may be empty; a column patient lets no
        patient of a source be in two splits. Paths are relative to its folder.
    labels : tuple of str
        The classes, in the order of their numbers.
    image_size : int
        Side of the images in pixels, at least 32. The whole frame is resized, without its aspect ratio being kept.
    predicted_masks : str or None
        Folder of the masks of images that the manifest gives none for, relative to the working directory: for the image
        a/b.jpg the file a/b.png; in a configuration "segment" stands for that of its own segmentation. None: every
        image must have a mask in the manifest.
    mask_values : tuple of int
        Values of the foreground in the manifest's masks: palette indices or grey values. Empty: see
        `isnet_bench.data.images.reading.read_mask`.
    empty_predictions : {"error", "drop"}
        What becomes of images in which the prediction finds no foreground: an error, or they are left out, and counted.
    marks : Bias or None
        Marks that tell the class; None: the images as they are.
    grey_values : {"windowed", "stored"}
        How `isnet_bench.data.images.reading.read` reads files: all by one rule, or those with 8 bits as they are.
    seed : int
        Of marks and of swapped backgrounds; not of training.
    phantom : Phantom or None
        Sizes of the phantom that stands in where there is no manifest. None: that is an error.
    """

    manifest: str = "covid/manifest.csv"
    labels: tuple[str, ...] = ("covid19", "normal", "pneumonia")
    image_size: Annotated[int, Field(ge=SMALLEST)] = 224
    predicted_masks: str | None = None
    mask_values: tuple[Annotated[int, Field(ge=0, le=65_535)], ...] = ()
    empty_predictions: Literal["error", "drop"] = "error"
    marks: synthetic.Bias | None = None
    grey_values: Literal["windowed", "stored"] = "windowed"
    seed: NonNegativeInt = 0
    phantom: Phantom | None = field(default_factory=Phantom)

    def __post_init__(self) -> None:
        manifest.require_inside(self.manifest)
        manifest.require_classes(self.labels)


def make(settings: Settings, room: Room = in_memory) -> DataSet:
    """Read, check and resize the images that the manifest lists.

    Without marks, the test sets are "iid" (split test_iid), "ood" (split test_ood) and "swapped": the iid images with
    the background of an ood image from another source. With marks, all three show the images of split test_iid: "iid"
    with marks as in training, "ood" without marks, "deceiving" with the mark of another class. The `room` gives
    their arrays. Raises BenchError if anything in the manifest is wrong (all problems are logged), or if there is none
    and nothing may stand in.
    """
    root = data_root()
    path = root / settings.manifest
    if not path.is_file():
        return _stand_in(settings, path)
    splits = [split for split in SPLITS if split != "test_ood" or settings.marks is None]
    table = manifest.read(path, checks.COLUMNS, checks.OPTIONAL)
    manifest.refuse(checks.rows(table, path, settings.labels, root))
    table = collection.chosen(table, path, splits, settings.labels, checks.OPTIONAL)
    manifest.refuse(_without_masks(table, path, settings))
    look = partial(_look, path=path, settings=settings)
    found = collection.gather(table, path, settings.labels, _RECORDED, look, "mask_values", room)
    report = checks.report(found.table, found.fingerprints, path, settings.labels)
    if settings.marks is None:
        made = _with_swapped_backgrounds(found.parts, settings, room)
    else:
        parts, cut = planted.with_marks(found.parts, settings.marks, settings.labels, settings.seed, room)
        made = _data_set(parts, settings, synthetic.CHANGES, {"masks_cut_for_marks": cut})
    return collection.reported(made, found, report, path)


def _stand_in(settings: Settings, path: Path) -> DataSet:
    remedy = "write one, or let ISNET_BENCH_DATA name the folder above it"
    if not nothing_there(path):
        raise BenchError(f"the folder {path.parent} has no file {path.name} with the manifest; {remedy}")
    if settings.phantom is None:
        raise BenchError(f"there is no manifest {path}; {remedy}")
    log.warning("there is no manifest %s: a generated chest PHANTOM stands in, and every result says so", path)
    marks = {} if settings.marks is None else {"bias": "shape", "strength": settings.marks.strength}
    drawn = phantom.make(
        phantom.Settings(
            **dataclasses.asdict(settings.phantom), seed=settings.seed, image_size=settings.image_size, **marks
        )
    )
    title = f"{drawn.title} (stand-in for the X-rays of {settings.manifest})"
    return dataclasses.replace(drawn, title=title, stand_in=True)


def _without_masks(table: pd.DataFrame, path: Path, settings: Settings) -> Iterator[str]:
    """Find images that have neither a given nor a predicted mask, or share a predicted one: problems."""
    needy = table["image"][table["mask"] == ""]
    if settings.predicted_masks is None:
        if len(needy):
            yield (
                f"{path}, line {needy.index[0]}: {needy.iloc[0]} has no mask, nor have {len(needy) - 1} others; make "
                "masks with `python -m isnet_bench segment` and let predicted_masks name their folder, or give them all"
            )
        return
    owners: dict[Path, int] = {}
    for line, image in needy.items():
        file = _predicted(image, settings.predicted_masks)
        other = owners.setdefault(file, line)
        if other != line and table["image"][other] != image:
            yield f"{path}, lines {other} and {line}: both images would have the mask {file}; rename one of them"
        elif not file.is_file():
            yield (
                f"{path}, line {line}: {image} has no mask, and there is no predicted one, {file}; make it with "
                "`python -m isnet_bench segment`, or give one in the manifest"
            )


def _predicted(image: str, folder: str) -> Path:
    return Path(folder) / PurePosixPath(image).with_suffix(".png")


def _look(row: Any, path: Path, settings: Settings) -> Seen | None:
    """Read one image and its mask; None if it is to be left out."""
    file = path.parent / row.mask if row.mask else _predicted(row.image, settings.predicted_masks)
    values, windowed = settings.mask_values if row.mask else (), settings.grey_values == "windowed"
    image, mask = images.read_pair(path.parent / row.image, file, values, windowed)
    told = collection.describe(row.image, image, mask, "given" if row.mask else "predicted")
    small = images.resize_mask(mask, settings.image_size)
    if not small.any():
        if not row.mask and settings.empty_predictions == "drop":
            return None
        remedy = "correct it, or empty the cell" if row.mask else "draw one, or set empty_predictions: drop"
        raise BenchError(f"the mask {file} shows no foreground at image_size {settings.image_size}; {remedy}")
    resized = images.resize(image, settings.image_size)
    told |= grey.statistics(resized, small)
    return Seen(resized[None], small[None], fingerprint(image), told)


def _with_swapped_backgrounds(parts: Mapping[str, Part], settings: Settings, room: Room) -> DataSet:
    iid, ood = parts["test_iid"], parts["test_ood"]
    donors = _donors(iid.records["source"], ood.records["source"], settings, np.random.default_rng(settings.seed))
    swapped = places.on(iid.arrays, ood.arrays.images, donors, room)
    lent = ood.records.iloc[donors].reset_index(drop=True)
    records = iid.records.assign(background_image=lent["image"], background_source=lent["source"])
    named = {"train": parts["train"], "val": parts["val"], "iid": iid, "ood": ood, "swapped": Part(swapped, records)}
    return _data_set(named, settings, {"background swapped": ("iid", "swapped")}, {})


def _donors(sources: pd.Series, lending: pd.Series, settings: Settings, rng: np.random.Generator) -> np.ndarray:
    """Draw for each image another one from a different source."""
    drawn = np.empty(len(sources), np.int64)
    for source in sorted(set(sources)):
        choice = np.flatnonzero(lending != source)
        if not choice.size:
            raise BenchError(
                f"{settings.manifest}: all images with split test_ood have the source {source}, which test_iid has, "
                "too, so that there are no other backgrounds to swap; give it some"
            )
        members = (sources == source).to_numpy()
        drawn[members] = rng.choice(choice, members.sum())
    return drawn


def _data_set(
    parts: Mapping[str, Part], settings: Settings, changes: Mapping[str, tuple[str, str]], details: Mapping[str, Any]
) -> DataSet:
    title = f"chest X-rays of {settings.manifest}"
    return collection.data_set("xray", title, settings.labels, parts, changes, details)
