"""A small collection of X-rays on disk, drawn on the spot, and the data set that is made of it."""

import numpy as np
import pandas as pd
from PIL import Image

from isnet_bench.config import fill
from isnet_bench.data import xray
from isnet_bench.data.xray import checks as xray_checks

SIZE = 32
LABELS = ("sick", "well", "worn")
SPLITS = {"train": 9, "val": 3, "test_iid": 6, "test_ood": 6}
GIVEN = {"manifest": "chests/manifest.csv", "labels": list(LABELS), "image_size": SIZE}


def draw(rng, shape=(40, 48)):
    """A blurred random image, unlike any other."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))


def lungs(shape=(40, 48), top=10):
    mask = np.zeros(shape, np.uint8)
    mask[top:30, 8:20] = mask[top:30, 28:40] = 255
    return mask


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


class OnDisk:
    """Images in `folder`, with the manifest `table` that can be changed line by line, as people count lines."""

    @property
    def manifest(self):
        return self.folder / "manifest.csv"

    def write(self):
        self.table.to_csv(self.manifest, index=False)

    def change(self, line, **cells):
        for column, value in cells.items():
            if column not in self.table:
                self.table[column] = ""
            self.table.loc[line - 2, column] = value
        self.write()


class Collection(OnDisk):
    """A small collection of X-rays."""

    def __init__(self, root):
        self.root, self.folder = root, root / "chests"
        rng, rows = np.random.default_rng(0), []
        for split, number in SPLITS.items():
            for index in range(number):
                name, source = f"{split}/{index}.png", "away" if split == "test_ood" else "home"
                save(draw(rng), self.folder / name)
                save(lungs(top=8 + index % 4), self.folder / "masks" / name)
                rows.append((name, LABELS[index % 3], source, split, f"masks/{name}"))
        self.table = pd.DataFrame(rows, columns=xray_checks.COLUMNS)
        self.write()


def settings(**changes):
    return fill(xray.Settings, {**GIVEN, **changes})


def make(**changes):
    return xray.make(settings(**changes))
