"""What the lung segmentation is told and given: its settings, the two manifests, images and masks.

The masks' manifest has the columns image, mask and split (train or val). The other one is that of the X-ray data set,
of which only image, mask, source and split matter here. Paths in both are relative to the folder of the latter.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from isnet_bench.data.base import Split
from isnet_bench.errors import BenchError

__all__ = ["Augmentation", "Pair", "Settings", "Sources", "find", "read_image", "read_pair", "resize", "split"]

_PARTS = ("train", "val")
_MASK_COLUMNS = ("image", "mask", "split")
_COLUMNS = ("image", "mask", "source", "split")
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed, each anew in every epoch; masks move with them.

    Attributes
    ----------
    degrees : float
        Largest rotation, either way.
    translate : float
        Largest shift, either way, as a share of the side.
    scale : (float, float)
        Smallest and largest magnification.
    gamma : float
        The largest exponent of the intensities in [0, 1]; the smallest is its inverse. 1: none.
    """

    degrees: float = 10.0
    translate: float = 0.1
    scale: tuple[float, float] = (0.8, 1.4)
    gamma: float = 1.8

    def __post_init__(self) -> None:
        if not 0 <= self.degrees <= 180:
            raise BenchError(f"degrees must lie in [0, 180], not {self.degrees}")
        if not 0 <= self.translate <= 1:
            raise BenchError(f"translate must lie in [0, 1], not {self.translate}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise BenchError(f"scale must be a smaller and a larger positive number, not {list(self.scale)}")
        if self.gamma < 1:
            raise BenchError(f"gamma must be at least 1, not {self.gamma}")


@dataclass(frozen=True)
class Settings:
    """Settings of the lung segmentation: the key ``segment`` of the configuration.

    Attributes
    ----------
    masks : str
        Manifest of the images with masks, to train on (split train) and to test on (split val), under the data root.
    manifest : str
        Manifest of the X-ray data set, under the data root; its images without a mask get one.
    image_size : int
        Side in pixels of the square to which images are brought for the network, a multiple of 32, at least 64.
    encoder : str
        Encoder of the U-Net, as segmentation-models-pytorch names it; its weights are random at first.
    epochs, batch_size : int
        As for the classifiers (`isnet_bench.fitting.Settings`); the batch size is at least 2.
    learning_rate, weight_decay, gradient_clip : float
        As for the classifiers; the learning rate is the highest of a one-cycle schedule.
    augmentation : Augmentation
        Of the training images.
    seed : int
        Of initial weights, batches and augmentation.
    """

    masks: str
    manifest: str
    image_size: int = 128
    encoder: str = "resnet18"
    epochs: int = 40
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    gradient_clip: float | None = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image_size < 64 or self.image_size % 32:
            raise BenchError(f"image_size must be a multiple of 32, at least 64, not {self.image_size}")
        for name, least in (("epochs", 1), ("batch_size", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise BenchError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise BenchError(f"learning_rate must be positive, not {self.learning_rate}")


class Pair(NamedTuple):
    """Names, relative to the folder, of an image and of its mask."""

    image: str
    mask: str


class Sources(NamedTuple):
    """What the manifests name, found and checked.

    ``folder`` is that of all names; ``train`` and ``val`` are the images to train and to test on; ``manifest`` has one
    row for each image of the data set, with the columns image, mask (empty: none), source and split.
    """

    folder: Path
    train: list[Pair]
    val: list[Pair]
    manifest: pd.DataFrame


def find(settings: Settings) -> Sources:
    """Read both manifests, and check that what they name is there.

    Raises
    ------
    BenchError
        If a manifest is missing or lacks a column, if it names files that do not exist or lie elsewhere, if a part has
        no images, or if a mask to train on belongs to a test image of the data set.
    """
    root = Path(os.environ.get("ISNET_BENCH_DATA", "data"))
    masks_file, manifest_file = root / settings.masks, root / settings.manifest
    folder = manifest_file.parent
    masks = _table(masks_file, _MASK_COLUMNS)
    manifest = _table(manifest_file, _COLUMNS)[list(_COLUMNS)]
    _check_files(masks_file, masks, folder, may_lack_mask=False)
    _check_files(manifest_file, manifest, folder, may_lack_mask=True)
    _check_names(manifest_file, manifest)
    _check_parts(masks_file, masks)
    train, val = (_pairs(masks_file, masks, part) for part in _PARTS)
    _check_leaks(masks_file, folder, train, val, "the part val")
    tests = manifest[~manifest["split"].isin(_PARTS)]
    pairs = (Pair(row.image, row.mask) for row in tests.itertuples())
    _check_leaks(masks_file, folder, train, pairs, f"a test set of {manifest_file}")
    return Sources(folder, train, val, manifest)


def read_image(path: Path) -> np.ndarray:
    """Read an image as grey values.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W).

    Raises
    ------
    BenchError
        If the file is no image, or not a whole one.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L"))
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise BenchError(
            f"{path} cannot be read as an image ({reason}): replace it, or take it out of the manifest"
        ) from error


def read_pair(folder: Path, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its mask, whose foreground is what is brighter than half of its brightest pixel.

    Returns
    -------
    tuple of numpy.ndarray
        Image uint8 (H, W), and mask bool (H, W).

    Raises
    ------
    BenchError
        If a file cannot be read, if their sizes differ, or if the mask is all black.
    """
    image, mask = read_image(folder / pair.image), read_image(folder / pair.mask)
    if image.shape != mask.shape:
        sizes = [f"{array.shape[1]} x {array.shape[0]}" for array in (mask, image)]
        raise BenchError(
            f"{folder / pair.mask} has {sizes[0]} pixels, but its image {pair.image} has {sizes[1]}: resize the mask"
        )
    if not mask.any():
        raise BenchError(
            f"{folder / pair.mask} is all black, so it shows no lungs: mend it, or take it out of the manifest"
        )
    return image, mask > mask.max() / 2


def split(folder: Path, pairs: Sequence[Pair], size: int) -> Split:
    """Read pairs for the network.

    Returns
    -------
    Split
        Images (N, 1, size, size) in [0, 1], masks (N, 1, size, size), and the masks once more, as labels of the pixels
        (N, size, size).
    """
    images, masks = zip(*(read_pair(folder, pair) for pair in pairs), strict=True)
    foreground = torch.cat([F.interpolate(_tensor(mask), size=(size, size), mode="nearest-exact") for mask in masks])
    return Split(torch.cat([resize(image, size) for image in images]), foreground, foreground[:, 0].long())


def resize(image: np.ndarray, size: int) -> Tensor:
    """Bring an image, uint8 (H, W), to the network's size, as a whole: float32 (1, 1, size, size) in [0, 1]."""
    return F.interpolate(_tensor(image) / 255, size=(size, size), mode="bilinear", antialias=True)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))[None, None]


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise BenchError(
            f"there is no manifest {path}: let ISNET_BENCH_DATA name the folder that holds it, or mend the key segment"
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read as CSV ({' '.join(str(error).split())}): mend it") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise BenchError(f"{path} lacks the column {missing[0]}: it needs {', '.join(columns)}")
    return table


def _check_files(path: Path, table: pd.DataFrame, folder: Path, *, may_lack_mask: bool) -> None:
    # The header is line 1.
    for line, row in enumerate(table.itertuples(), start=2):
        for what, name in (("image", row.image), ("mask", row.mask)):
            if not name and what == "mask" and may_lack_mask:
                continue
            if not name:
                raise BenchError(f"{path}, line {line}: the {what} is empty; name the file, or delete the line")
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BenchError(
                    f"{path}, line {line}: {name} does not lie in {folder}; give a path relative to that folder"
                )
            if not (folder / name).is_file():
                raise BenchError(
                    f"{path}, line {line}: there is no {what} {folder / name}; put it there, or delete the line"
                )


def _check_names(path: Path, manifest: pd.DataFrame) -> None:
    """Check that no two images would have their masks in one file."""
    stems = manifest["image"].map(lambda name: str(PurePosixPath(name).with_suffix("")))
    twins = manifest["image"][stems.duplicated(keep=False)]
    if len(twins):
        raise BenchError(
            f"{path}: {', '.join(twins.iloc[:2])} differ in nothing but the suffix; rename or delete one of them"
        )


def _check_parts(path: Path, masks: pd.DataFrame) -> None:
    unknown = masks[~masks["split"].isin(_PARTS)]
    if len(unknown):
        line, given = unknown.index[0] + 2, unknown["split"].iloc[0]
        raise BenchError(f"{path}, line {line}: the split is {given!r}; write train or val")


def _pairs(path: Path, masks: pd.DataFrame, part: str) -> list[Pair]:
    rows = masks[masks["split"] == part]
    if rows.empty:
        raise BenchError(f"{path} has no image with split {part}: give it some")
    return [Pair(row.image, row.mask) for row in rows.itertuples()]


def _check_leaks(path: Path, folder: Path, train: Sequence[Pair], tests: Iterable[Pair], place: str) -> None:
    """Check that no image or mask to train on is one to test on, under the same name or another one."""
    tests = list(tests)
    masks = {pair.mask for pair in tests}
    shared = [pair.mask for pair in train if pair.mask in masks]
    shared += _twins(folder, [pair.image for pair in train], [pair.image for pair in tests])
    if shared:
        raise BenchError(f"{path}: {shared[0]} has split train, but is in {place}, too; take it out of one of them")


def _twins(folder: Path, names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return those of the names whose files have the same content as one of the others."""
    sizes = {(folder / name).stat().st_size for name in names}
    # A collection may be large: only files that can be the same are read.
    candidates = [folder / other for other in others if (folder / other).stat().st_size in sizes]
    known = {_digest(path) for path in candidates}
    return [name for name in names if _digest(folder / name) in known]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
