"""Made-up photographs with masks and a manifest, for trials without data: a blob on a blurred background."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from isnet_bench.config import Data, fill
from isnet_bench.data import images
from isnet_bench.data.images.checks import SPLITS
from isnet_bench.io.inputs import data_root_at

_COARSE = 8
_GROUPS = ("meadow", "forest")
_FOREGROUND = 255


def write(
    manifest: Path, numbers: Mapping[str, int], labels: Sequence[str], side: int, foreground: int = _FOREGROUND
) -> None:
    """Write a manifest, and beside it the JPEG and PNG files that it names; the same each time.

    `numbers` says how many images each split has; they have the labels in turn, and groups. Images are squares with a
    `side` in pixels; an ellipse in the middle, in a colour of its own, is the foreground, which has the value
    `foreground` in the masks.
    """
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (manifest.parent / name).mkdir(parents=True, exist_ok=True)
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "label", "split", "mask", "source", "group"])
        for split, number in numbers.items():
            for index in range(number):
                names = f"images/{split}_{index}.jpg", f"masks/{split}_{index}.png"
                pixels, inside = _drawn(side, rng)
                Image.fromarray(pixels).save(manifest.parent / names[0], quality=95)
                mask = Image.fromarray(inside.astype(np.uint8) * np.uint8(foreground))
                mask.save(manifest.parent / names[1], compress_level=1)
                group = _GROUPS[index // len(labels) % len(_GROUPS)]
                rows.writerow([names[0], labels[index % len(labels)], split, names[1], "made_up", group])


@contextmanager
def standing_in(asked: Data, root: Path, number: int) -> Iterator[None]:
    """Let made-up photographs stand in for those that an experiment asks for, below `root`, meanwhile.

    Each split has so many of them, or as many as places need; where the settings name no labels, there are two. Other
    data sets than photographs stay as they are.
    """
    if asked.name != "images":
        yield
        return
    settings = fill(images.Settings, asked.settings, "data")
    labels = settings.labels or ("first", "second")
    needed = max(len(labels), 0 if settings.places is None else len(labels) * settings.places.pictures)
    numbers = dict.fromkeys(SPLITS, number) | {"train": max(number, needed)}
    foreground = next(iter(settings.mask.foreground), _FOREGROUND)
    write(root / settings.manifest, numbers, labels, settings.image_size, foreground)
    with data_root_at(root):
        yield


def _drawn(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a picture, uint8 (side, side, 3), and where its foreground is, bool (side, side)."""
    coarse = Image.fromarray(rng.integers(0, 256, (_COARSE, _COARSE, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC))
    rows, columns = np.linspace(-1, 1, side)[:, None], np.linspace(-1, 1, side)
    height, width = rng.uniform(0.3, 0.6, 2)
    inside = (rows / height) ** 2 + (columns / width) ** 2 <= 1
    pixels[inside] = pixels[inside] // 4 + rng.integers(0, 192, 3, dtype=np.uint8)
    return pixels, inside
