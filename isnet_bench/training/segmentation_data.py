"""What the lung segmentation is told and given: its settings, the two manifests, images and masks.

The masks' manifest has the columns image, mask and split (train or val). The other one is that of the X-ray data set,
of which only image, mask, source and split matter here. Paths in both are relative to the folder of the latter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from isnet_bench.config import Segment
from isnet_bench.data.base import Split
from isnet_bench.data.images import manifest
from isnet_bench.data.images import reading as images
from isnet_bench.io.errors import BenchError
from isnet_bench.io.inputs import data_root

_PARTS = ("train", "val")
_MASK_COLUMNS = ("image", "mask", "split")
_COLUMNS = ("image", "mask", "source", "split")


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


def find(settings: Segment) -> Sources:
    """Read both manifests, and check what they name without looking into the images.

    Raises BenchError if a manifest is missing or lacks a column, if it names files that do not exist or lie elsewhere,
    if a part has no images, or if an image or mask to train on is one to test on, here or in the data set.
    """
    root = data_root()
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
    """Read an image, uint8 (H, W), and its mask, bool (H, W). Raises BenchError, also for a mask that is all black."""
    image, mask = images.read_pair(folder / pair.image, folder / pair.mask)
    if not mask.any():
        raise BenchError(f"the mask {folder / pair.mask} is all black; correct it, or delete its line")
    return image, mask


def split(folder: Path, pairs: Sequence[Pair], size: int) -> Split:
    """Read pairs for the network: images (N, 1, size, size) in [0, 1], masks alike, and labels of the pixels."""
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
