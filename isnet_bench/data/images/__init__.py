"""Photographs that a manifest lists, in colours or grey, and what is planted in their backgrounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from isnet_bench.data import bias
from isnet_bench.data.base import NO_MASK, DataSet
from isnet_bench.data.images import checks, collection, manifest, planted, reading
from isnet_bench.data.images import places as scenes
from isnet_bench.data.images.collection import SMALLEST, Part, Seen
from isnet_bench.data.stored import Room, in_memory
from isnet_bench.io.errors import BenchError
from isnet_bench.io.inputs import data_root

# Of your own photographs, only you know whether they may be shown.
PUBLISHABLE = False
READS = ("{manifest}",)
ON_DISK = True

_PERSONS = ("subject", "patient")
_OPTIONAL = ("source", "group", *_PERSONS)
_PLAUSIBLE_AREA = (0.01, 0.9)


@dataclass(frozen=True)
class Mask:
    """How masks are read.

    Attributes
    ----------
    foreground : tuple of int
        Values of the foreground: palette indices or grey values, such as 1 for trimaps that number foreground,
        background and border. Empty: see `isnet_bench.data.images.reading.read_mask`.
    """

    foreground: tuple[Annotated[int, Field(ge=0, le=65_535)], ...] = ()


@dataclass(frozen=True)
class Settings:
    """Settings of the data set.

    Attributes
    ----------
    manifest : str
        The manifest, relative to the data root (environment variable ISNET_BENCH_DATA, else ``data/``). Columns image,
        label, split (train, val, test_iid, and test_ood where there is any) and mask, which may be empty, or the image
        itself: then its transparency is its mask. Columns subject and patient let nobody be in two splits; source says
        of which collection; group is an attribute by which test images are told apart. Paths are relative to its
        folder.
    labels : tuple of str or None
        The classes, in the order of their numbers; None: all labels of the manifest, by name.
    image_size : int
        Side of the images in pixels, at least 32.
    frame : {"crop", "squash"}
        What of a photograph is shown: the largest square in its middle, or all of it, without its aspect ratio.
    color : {"rgb", "grey"}
        Whether images have three channels or one, the luminance.
    mask : Mask
        How masks are read.
    marks : Bias or None
        Marks in the background that tell the class; None: none.
    places : Places or None
        Pictures that are the backgrounds of a class; None: each image has its own background.
    seed : int
        Of marks and places; not of training.
    """

    manifest: str = "images/manifest.csv"
    labels: tuple[str, ...] | None = None
    image_size: Annotated[int, Field(ge=SMALLEST)] = 224
    frame: Literal["crop", "squash"] = "crop"
    color: Literal["rgb", "grey"] = "rgb"
    mask: Mask = field(default_factory=Mask)
    marks: bias.Bias | None = None
    places: scenes.Places | None = None
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        manifest.require_inside(self.manifest)
        if self.labels is not None:
            manifest.require_classes(self.labels)
        if self.marks is not None and self.places is not None:
            raise ValueError("marks and places: only one of them can be planted; set the other to null")


def make(settings: Settings, room: Room = in_memory) -> DataSet:
    """Read, check, crop and resize the photographs that the manifest lists.

    Without marks and places, the test sets are "iid" (split test_iid) and, where there is one, "ood" (split test_ood).
    With them, all three show the images of split test_iid: "iid" as in training, "ood" with their own background and no
    mark, "deceiving" with the mark or the place of another class. The `room` gives their arrays. Raises
    BenchError if there is no manifest, or anything in it is wrong (all problems are logged).
    """
    root = data_root()
    path = root / settings.manifest
    table = manifest.read(path, checks.COLUMNS, _OPTIONAL)
    labels = settings.labels or tuple(sorted(set(table["label"])))
    manifest.refuse(checks.rows(table, path, labels, root))
    changed = settings.marks or settings.places
    ood = changed is None and (table["split"] == "test_ood").any()
    splits = [split for split in checks.SPLITS if split != "test_ood" or ood]
    table = collection.chosen(table, path, splits, labels, _PERSONS)
    manifest.refuse(_incomplete(table, path, changed is not None, labels))
    recorded = ["image", "mask_origin", *(column for column in ("source", "group") if table[column].any())]
    look = partial(_look, path=path, settings=settings)
    found = collection.gather(table, path, labels, recorded, look, "mask.foreground", room)
    parts, changes, details = _planted(found.parts, settings, labels, room)
    made = collection.data_set("images", f"photographs of {settings.manifest}", labels, parts, changes, details)
    return collection.reported(made, found, _report(found, path, labels), path)


def _incomplete(table: pd.DataFrame, path: Path, planted: bool, labels: Sequence[str]) -> Iterator[str]:
    """Find what is missing: a second class, masks where backgrounds are changed, groups of some images."""
    if len(labels) < 2:
        yield f"{path} has the label {labels[0]} alone; a classifier needs another one"
    for line in table.index[table["mask"] == ""] if planted else ():
        yield f"{path}, line {line}: the mask is missing, and marks and places need one; give it, or delete the line"
    for line in table.index[table["group"] == ""] if table["group"].any() else ():
        yield f"{path}, line {line}: the group is missing, and other images have one; write it, or drop the column"


def _look(row: Any, path: Path, settings: Settings) -> Seen:
    """Read one photograph and its mask."""
    file, crop, cut_out = path.parent / row.image, settings.frame == "crop", row.mask == row.image
    image = reading.read_photograph(file, settings.color == "rgb", cut_out)
    mask, small = None, np.full((settings.image_size, settings.image_size), NO_MASK, np.uint8)
    if row.mask:
        mask = _mask(path.parent / row.mask, cut_out, settings.mask)
        reading.same_size(image, mask, f"the mask {row.mask}", f"its image {row.image}")
        small = reading.resize_mask(mask, settings.image_size, crop)
        if not small.any():
            shown = f"as it is shown (frame {settings.frame}, image_size {settings.image_size})"
            raise BenchError(f"the mask {row.mask} has no foreground {shown}; correct it, or delete the line")
    told = collection.describe(row.image, image, mask, "given" if row.mask else "none")
    channels = np.atleast_3d(reading.resize(image, settings.image_size, crop)).transpose(2, 0, 1)
    return Seen(channels, small[None], checks.fingerprint(image), told)


def _mask(file: Path, cut_out: bool, mask: Mask) -> np.ndarray:
    return reading.read_transparency(file) if cut_out else reading.read_mask(file, mask.foreground)


def _planted(
    parts: dict[str, Part], settings: Settings, labels: Sequence[str], room: Room
) -> tuple[dict[str, Part], dict[str, tuple[str, str]], dict[str, Any]]:
    """Return the splits by the names that the benchmark gives them, changes between them, and what else to tell."""
    if settings.marks is not None:
        made, cut = planted.with_marks(parts, settings.marks, labels, settings.seed, room)
        return made, bias.CHANGES, {"masks_cut_for_marks": cut}
    if settings.places is not None:
        return scenes.with_places(parts, settings.places, labels, settings.seed, room), scenes.CHANGES, {}
    return {name.removeprefix("test_"): part for name, part in parts.items()}, {}, {}


def _report(found: collection.Collection, path: Path, labels: Sequence[str]) -> checks.Report:
    seen = found.table
    warnings = [
        *checks.rare_classes(seen, labels),
        *checks.odd_masks(seen, *_PLAUSIBLE_AREA),
        *checks.alike(seen, found.fingerprints),
    ]
    by = [column for column in ("source", "group") if seen[column].any()]
    tables = {
        "Images by class": checks.counts(seen, ["split", *by], labels),
        "Masks": checks.masks(seen),
        "Frames": checks.frames(seen, ["label"]),
    }
    return checks.Report(f"Checks of {path.parent.name}/{path.name}", tuple(warnings), tables)
