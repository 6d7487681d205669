"""A small collection of photographs on disk, drawn on the spot, and the data set that is made of it."""

import numpy as np
import pandas as pd
from PIL import Image
from xray_collection import OnDisk, save

from isnet_bench.config import fill
from isnet_bench.data import images

SIZE = 32
LABELS = ("bee", "moth", "wasp")
SPLITS = {"train": 12, "val": 6, "test_iid": 9, "test_ood": 3}
GIVEN = {"manifest": "images/manifest.csv", "image_size": SIZE}
SHAPE = (SIZE, 48)


def photograph(rng, shape=SHAPE):
    """A blurred random picture in colours, unlike any other."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def blob(left=18, shape=SHAPE):
    mask = np.zeros(shape, np.uint8)
    mask[10:22, left : left + 12] = 255
    return mask


class Photographs(OnDisk):
    """A small collection of photographs."""

    def __init__(self, root):
        self.root, self.folder = root, root / "images"
        rng, rows = np.random.default_rng(0), []
        for split, number in SPLITS.items():
            for index in range(number):
                name = f"{split}/{index}.png"
                save(photograph(rng), self.folder / name)
                save(blob(left=16 + index % 4), self.folder / "masks" / name)
                rows.append((name, LABELS[index % 3], split, f"masks/{name}"))
        self.table = pd.DataFrame(rows, columns=["image", "label", "split", "mask"])
        self.write()

    def pixels(self, name):
        return np.asarray(Image.open(self.folder / name))


def make(**changes):
    return images.make(fill(images.Settings, {**GIVEN, **changes}))
