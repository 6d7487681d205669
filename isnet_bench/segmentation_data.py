"""What the lung segmentation is told and given: its settings, the two manifests, images and masks.

The masks' manifest has the columns image, mask and split (train or val). The other one is that of the X-ray data set,
of which only image, mask, source and split matter here. Paths in both are relative to the folder of the latter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from isnet_bench.data import images, manifest
from isnet_bench.data.base import Split
from isnet_bench.errors import BenchError

__all__ = ["Augmentation", "Pair", "Settings", "Sources", "find", "read_pair", "resize", "split"]

_PARTS = ("train", "val")
_MASK_COLUMNS = ("image", "mask", "split")
_COLUMNS = ("image", "mask", "source", "split")


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
        As for the classifiers (`isnet_bench.runs.Settings`); the batch size is at least 2.
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

    ``folder`` is that of all names; ``train`` and ``val`` are the images to train and to test on; ``listed`` has one
    row for each image of the data set, with the columns image, mask (empty: none), source and split.
    """

    folder: Path
    train: list[Pair]
    val: list[Pair]
    listed: pd.DataFrame


def find(settings: Settings) -> Sources:
    """Read both manifests, and check what they name without looking into the images.

    Raises
    ------
    BenchError
        If a manifest is missing or lacks a column, if it names files that do not exist or lie elsewhere, if a part has
        no images, or if an image or mask to train on is one to test on, here or in the data set.
    """
    root = manifest.data_root()
    masks_file, file = root / settings.masks, root / settings.manifest
    masks, listed = manifest.read(masks_file, _MASK_COLUMNS), manifest.read(file, _COLUMNS)
    manifest.refuse(manifest.misspelt(masks, masks_file, "split", _PARTS, "write one of them"))
    for column in ("image", "mask"):
        manifest.refuse(manifest.misplaced(masks, masks_file, column, root, folder=file.parent))
        manifest.refuse(manifest.misplaced(listed, file, column, root, optional=column == "mask"))
    manifest.refuse(_colliding(listed, file))
    manifest.refuse(
        f"{masks_file} has no image with split {part}" for part in _PARTS if part not in set(masks["split"])
    )
    train, val = (_pairs(masks[masks["split"] == part]) for part in _PARTS)
    tests = _pairs(listed[~listed["split"].isin(_PARTS)])
    manifest.refuse(_leaking(masks_file, file.parent, train, val, "in the part val"))
    manifest.refuse(_leaking(masks_file, file.parent, train, tests, f"in a test set of {file}"))
    return Sources(file.parent, train, val, listed)


def read_pair(folder: Path, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its mask.

    Returns
    -------
    tuple of numpy.ndarray
        Image uint8 (H, W), and mask bool (H, W).

    Raises
    ------
    BenchError
        If a file cannot be read, if their sizes differ, or if the mask is all black.
    """
    image, mask = images.read(folder / pair.image), images.read_mask(folder / pair.mask)
    if image.shape != mask.shape:
        sizes = [f"{array.shape[1]} x {array.shape[0]}" for array in (mask, image)]
        place = f"the mask {folder / pair.mask}"
        raise BenchError(f"{place} has {sizes[0]} pixels, and its image {pair.image} {sizes[1]}; resize the mask")
    if not mask.any():
        raise BenchError(f"the mask {folder / pair.mask} is all black; correct it, or delete its line")
    return image, mask


def split(folder: Path, pairs: Sequence[Pair], size: int) -> Split:
    """Read pairs for the network.

    Returns
    -------
    Split
        Images (N, 1, size, size) in [0, 1], masks (N, 1, size, size), and the masks once more, as labels of the pixels
        (N, size, size).
    """
    read = [read_pair(folder, pair) for pair in pairs]
    labels = torch.from_numpy(np.stack([images.resize_mask(mask, size) for _, mask in read])).long()
    return Split(torch.cat([resize(image, size) for image, _ in read]), labels[:, None].float(), labels)


def resize(image: np.ndarray, size: int) -> Tensor:
    """Bring an image, uint8 (H, W), to the network's size, as a whole: float32 (1, 1, size, size) in [0, 1]."""
    return torch.from_numpy(images.resize(image, size).copy()).float()[None, None] / 255


def _colliding(listed: pd.DataFrame, path: Path) -> Iterator[str]:
    """Find images that would have their masks in one file: problems."""
    names = listed["image"][listed["mask"] == ""].drop_duplicates()
    stems = names.map(lambda name: PurePosixPath(name).with_suffix(""))
    for line, name in names[stems.duplicated()].items():
        yield f"{path}, line {line}: another image has the name {name} but for the suffix; rename one of them"


def _pairs(rows: pd.DataFrame) -> list[Pair]:
    return [Pair(row.image, row.mask) for row in rows.itertuples()]


def _leaking(path: Path, folder: Path, train: Sequence[Pair], tests: Sequence[Pair], place: str) -> Iterator[str]:
    """Find masks, by name, and images, by content, to train on that are to test on, too: problems."""
    masks = {pair.mask for pair in tests}
    shared = [pair.mask for pair in train if pair.mask in masks]
    for name in shared + _twins(folder, [pair.image for pair in train], [pair.image for pair in tests]):
        yield f"{path}: {name} has split train, and is {place}, too; take it out of one of them"


def _twins(folder: Path, names: Sequence[str], others: Iterable[str]) -> list[str]:
    """Return those of the names whose files have the same content as one of the others."""
    sizes = {(folder / name).stat().st_size for name in names}
    # A collection may be large: only files that can be the same are read.
    candidates = [folder / other for other in others if (folder / other).stat().st_size in sizes]
    known = {_digest(path) for path in candidates}
    return [name for name in names if _digest(folder / name) in known]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
