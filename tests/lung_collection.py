"""A small collection of drawn radiographs with lung masks, and the configuration of its segmentation."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from isnet_bench import config as configuration

# timm's own network for tests, in place of a ResNet-18.
TINY = "tu-test_resnet"
SECTION = {
    "masks": "set/lungs/masks.csv",
    "manifest": "set/manifest.csv",
    "image_size": 64,
    "encoder": TINY,
    "epochs": 6,
    "batch_size": 2,
    "learning_rate": 1e-2,
}


def lungs(height, width, rng):
    """Two ellipses, bool (H, W)."""
    rows, columns = np.mgrid[:height, :width] / np.array([height, width])[:, None, None]
    shift = rng.uniform(-0.04, 0.04, 2)
    return sum(
        ((rows - 0.5 - shift[0]) / 0.36) ** 2 + ((columns - middle - shift[1]) / 0.15) ** 2 < 1 for middle in (0.3, 0.7)
    ).astype(bool)


def draw(folder, name, rng, mask=None, size=(72, 88)):
    """Draw an image, and its mask where that has a name."""
    shape = lungs(*size, rng)
    image = np.where(shape, 60, 190) + rng.normal(0, 12, size)
    for path, array in ((name, image), (mask, shape * 255)):
        if path:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(array, 0, 255).astype(np.uint8)).save(folder / path)


def make(root):
    """Eight images to train on, two to test on, and a data set of five, two of which have masks; return its folder."""
    folder, rng = root / "set", np.random.default_rng(0)
    masks = [(f"lungs/{i}.png", f"lungs/mask{i}.png", "train" if i < 8 else "val") for i in range(10)]
    manifest = [
        ("images/a/0.png", "x", "a", "train", "masks/0.png"),
        ("images/a/1.png", "y", "a", "test_iid", "masks/1.png"),
        ("images/a/2.jpg", "x", "a", "val", ""),
        ("images/b/3.png", "y", "b", "test_ood", ""),
        ("images/b/4.png", "y", "b", "train", ""),
    ]
    for image, mask, _ in masks:
        draw(folder, image, rng, mask)
    for i, (image, *_, mask) in enumerate(manifest):
        draw(folder, image, rng, mask, size=(80 + i, 70))
    pd.DataFrame(masks, columns=["image", "mask", "split"]).to_csv(folder / "lungs/masks.csv", index=False)
    columns = ["image", "label", "source", "split", "mask"]
    pd.DataFrame(manifest, columns=columns).to_csv(folder / "manifest.csv", index=False)
    return folder


def checked(**changes):
    section = {**SECTION, **changes}
    return configuration.check({"seeds": [0], "device": "cpu", "experiments": {}, "segment": section}, "mine.yaml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    return make(tmp_path)


def read(path):
    return np.asarray(Image.open(path))
