"""The digits of MNIST, found, downloaded, or stood in for, loudly; what all data sets made of them share."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch.nn import functional as F

from isnet_bench.io import torchvision_shim
from isnet_bench.io.errors import BenchError
from isnet_bench.io.inputs import data_root

torchvision_shim.ensure()

from torchvision import datasets  # noqa: E402
from torchvision.datasets.mnist import read_image_file, read_label_file  # noqa: E402

log = logging.getLogger(__name__)

READS = ("MNIST/raw/*", "mnist/MNIST/raw/*")
"""Where MNIST may be, below the data root."""

CLASSES = 10
SIDE = 28
_TIMEOUT_SECONDS = 20
# Training images, training labels, test images, test labels.
_FILES = [Path(archive).stem for archive, _ in datasets.MNIST.resources]
_DIGITS = "scikit-learn 8x8 digits, upsampled (stand-in for MNIST)"
# One of each class.
Number = Annotated[int, Field(ge=CLASSES)]


@dataclass(frozen=True)
class Settings:
    """Settings of all data sets that are made of these digits.

    Attributes
    ----------
    train_images, val_images, test_images : int or None
        Sizes of the splits; None: all that there are. Classes keep their proportions. Validation images are
        split from the training images. The stand-in is shared out in the same proportions.
    seed : int
        Of subsets, splits and what is put on the digits; not of training.
    download : bool
        Whether MNIST may be downloaded into the data root (environment variable ISNET_BENCH_DATA, else
        ``data/``).
    """

    train_images: Number | None = None
    val_images: Number = 1000
    test_images: Number | None = None
    seed: NonNegativeInt = 0
    download: bool = True


class Digits(NamedTuple):
    """Digits uint8 (N, 28, 28) and their labels, for "train", "val" and "test"."""

    title: str
    stand_in: bool
    subsets: dict[str, tuple[np.ndarray, np.ndarray]]


def find(settings: Settings, rng: np.random.Generator) -> Digits:
    """Find the digits, and split them.

    Raises BenchError if the files are damaged, the data root cannot be written to, or there are too few images.
    """
    return _mnist(settings, rng) or _stand_in(settings, rng)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Enlarge images uint8 (N, H, W) bilinearly to (N, size, size)."""
    if images.shape[-1] == size:
        return images
    floats = torch.from_numpy(images).float()[:, None]
    return F.interpolate(floats, size=(size, size), mode="bilinear")[:, 0].round().byte().numpy()


def _mnist(settings: Settings, rng: np.random.Generator) -> Digits | None:
    root = data_root()
    folder = _find(root)
    if folder is None and settings.download and _download(root):
        folder = _find(root)
    if folder is None:
        return None
    images, labels, test_images, test_labels = _read(folder)
    sizes = _sizes(settings, len(labels), len(test_labels))
    for wanted, available, keys in (
        (sizes["train"] + sizes["val"], len(labels), "train_images and val_images"),
        (sizes["test"], len(test_labels), "test_images"),
    ):
        if wanted > available or sizes["train"] < CLASSES:
            raise BenchError(f"MNIST has {available} images for {keys}, which ask for {wanted}; lower them")
    order = _stratified(labels, sizes["train"] + sizes["val"], rng)
    rows = {"train": order[sizes["val"] :], "val": order[: sizes["val"]]}
    subsets = {name: (images[chosen], labels[chosen]) for name, chosen in rows.items()}
    chosen = _stratified(test_labels, sizes["test"], rng)
    return Digits("MNIST", False, {**subsets, "test": (test_images[chosen], test_labels[chosen])})


def _stand_in(settings: Settings, rng: np.random.Generator) -> Digits:
    """Share scikit-learn's digits out in the proportions that are asked for."""
    log.warning("MNIST is neither in the data root nor to be had: %s are used, and every result says so", _DIGITS)
    from sklearn.datasets import load_digits  # a second of start-up that jobs with MNIST do without

    digits = load_digits()
    sizes = _sizes(settings, 60_000, 10_000)
    share = min(1.0, len(digits.target) / sum(sizes.values()))
    if share < 1:
        sizes = {name: max(CLASSES, int(size * share)) for name, size in sizes.items()}
        sizes["train"] = len(digits.target) - sizes["val"] - sizes["test"]
    # As in MNIST: the digit in the inner 20 x 20 pixels.
    images = np.pad(resize(np.round(digits.images * 255 / 16).astype(np.uint8), 20), ((0, 0), (4, 4), (4, 4)))
    order = _stratified(digits.target, sum(sizes.values()), rng)
    ends = np.cumsum([sizes["test"], sizes["val"]])
    rows = dict(zip(("test", "val", "train"), np.split(order, ends), strict=True))
    return Digits(_DIGITS, True, {name: (images[rows[name]], digits.target[rows[name]]) for name in sizes})


def _sizes(settings: Settings, training: int, testing: int) -> dict[str, int]:
    return {
        "train": training - settings.val_images if settings.train_images is None else settings.train_images,
        "val": settings.val_images,
        "test": testing if settings.test_images is None else settings.test_images,
    }


def _stratified(labels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Draw indices such that every beginning of the sequence has the classes in their proportions."""
    order = rng.permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        position[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(position, kind="stable")[:number]


def _find(root: Path) -> Path | None:
    for folder in (root / "MNIST" / "raw", root / "mnist" / "MNIST" / "raw"):
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if not missing:
            return folder
        if len(missing) < len(_FILES):
            raise BenchError(f"{folder / missing[0]} is missing; {_remedy(folder)}")
    return None


def _read(folder: Path) -> list[np.ndarray]:
    """Return training images (N, 28, 28), labels (N,), test images, test labels, all uint8 or int64."""
    arrays = []
    for name in _FILES:
        kind, read = ("images", read_image_file) if "images" in name else ("labels", read_label_file)
        path = folder / name
        try:
            array = read(str(path)).numpy()
        # Damaged files make torchvision stumble over many things.
        except Exception as error:
            raise BenchError(f"{path} is no whole MNIST file; {_remedy(folder)}") from error
        sound = array.shape[1:] == (SIDE, SIDE) if kind == "images" else array.max(initial=0) < CLASSES
        if not sound or (kind == "labels" and len(array) != len(arrays[-1])):
            raise BenchError(f"{path} does not hold MNIST's {kind}; {_remedy(folder)}")
        arrays.append(array)
    return arrays


def _remedy(folder: Path) -> str:
    return f"put MNIST's four files into {folder}, or delete that folder to have them downloaded"


def _download(root: Path) -> bool:
    try:
        root.mkdir(parents=True, exist_ok=True)
        workplace = tempfile.TemporaryDirectory(dir=root, prefix=".mnist-")
    except OSError as error:
        raise BenchError(
            f"the data root {root} cannot be written to ({error}); let ISNET_BENCH_DATA name a folder that "
            "holds MNIST or can be written to, or set download: false in the configuration's data section"
        ) from error
    with workplace as temporary:
        try:
            with _patience(_TIMEOUT_SECONDS):
                datasets.MNIST(temporary, download=True)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            log.warning("MNIST could not be downloaded into %s: %s", root, " ".join(str(error).split()))
            return False
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            os.replace(Path(temporary) / "MNIST" / "raw" / name, folder / name)
    return True


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Limit how long a connection may be silent; torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
