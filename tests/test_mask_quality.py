"""Worse training masks, on masks drawn by hand and in the data sets that have them."""

import numpy as np
import pytest

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.data.base import Arrays
from isnet_bench.data.mask_quality import MaskQuality, degrade, dilate
from isnet_bench.io.errors import BenchError

SQUARE = """
.......
.#####.
.#####.
.#####.
.#####.
.#####.
.......
"""
CROSS = """
.......
.......
...#...
..###..
...#...
.......
.......
"""
DOT = """
.......
.......
.......
...#...
.......
.......
.......
"""
BLOCK = """
.......
.......
..###..
..###..
..###..
.......
.......
"""


def mask(text):
    return np.array([[character == "#" for character in line] for line in text.split()], dtype=np.uint8)


def changed(change, pixels, *texts, seed=0):
    masks = np.stack([mask(text) for text in texts])[:, None]
    arrays = Arrays(np.zeros_like(masks), masks, np.arange(len(masks)))
    worse = degrade(arrays, MaskQuality(change, pixels), np.random.default_rng(seed))
    assert worse.images is arrays.images
    assert worse.labels is arrays.labels
    assert worse.masks.dtype == np.uint8
    return worse.masks[:, 0]


@pytest.mark.parametrize(
    ("change", "pixels", "before", "after"),
    [
        ("erode", 1, SQUARE, BLOCK),
        ("erode", 1, CROSS, DOT),
        ("erode", 1, BLOCK, DOT),
        ("dilate", 1, DOT, CROSS),
    ],
)
def test_erosion_and_dilation_by_a_disc(change, pixels, before, after):
    assert (changed(change, pixels, before)[0] == mask(after)).all()


def test_a_disc_has_round_corners():
    rows, columns = np.mgrid[-3:4, -3:4]
    assert (changed("dilate", 3, DOT)[0] == (np.hypot(rows, columns) <= 3)).all()


def test_the_innermost_pixels_outlive_erosion_and_other_masks_are_as_they_would_be():
    eroded = changed("erode", 2, CROSS, SQUARE, BLOCK)
    assert [text.tolist() for text in eroded] == [mask(DOT).tolist()] * 3
    empty = changed("erode", 1, DOT.replace("#", "."), BLOCK)
    assert not empty[0].any()


def test_erosion_spares_the_border_of_the_image():
    whole = SQUARE.replace(".", "#")
    assert changed("erode", 2, whole).all()


def test_a_shift_goes_as_far_as_asked_in_every_direction():
    shifted = changed("shift", 3, *[DOT] * 400)
    assert (shifted.sum((1, 2)) == 1).all()
    offsets = np.argwhere(shifted)[:, 1:] - 3
    assert (abs(np.hypot(*offsets.T) - 3) < 0.7).all()
    assert {(3, 0), (-3, 0), (0, 3), (0, -3)} <= set(map(tuple, offsets))
    assert abs(offsets.mean(0)).max() < 0.4


def test_a_shift_that_loses_a_mask_is_refused():
    with pytest.raises(BenchError, match=r"leaves no foreground in \d+ images; lower mask_quality.pixels"):
        changed("shift", 6, *[DOT] * 20)


def test_random_masks_are_those_of_other_images():
    texts = [SQUARE, CROSS, DOT, BLOCK]
    exchanged = changed("random", 1, *texts, seed=3)
    assert sorted(part.sum() for part in exchanged) == sorted(mask(text).sum() for text in texts)
    assert all((part != mask(text)).any() for part, text in zip(exchanged, texts, strict=True))


def test_true_masks_stay():
    arrays = Arrays(*[np.ones((2, 1, 3, 3), np.uint8)] * 2, np.zeros(2))
    assert degrade(arrays, None, np.random.default_rng(0)) is arrays
    foreground = arrays.masks > 0
    assert dilate(foreground, 0) is foreground


@pytest.mark.parametrize("name", ["mnist", "phantom"])
def test_only_the_training_masks_are_worse(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    given = {"train_images": 30, "val_images": 12, "test_images": 12}
    given |= {"download": False} if name == "mnist" else {"image_size": 32}
    made = {}
    for quality in (None, {"change": "dilate", "pixels": 2}):
        data = {"name": name, **given, "mask_quality": quality}
        folder = tmp_path / str(quality is None)
        config = configuration.check({"seeds": [0], "experiments": {"one": {"data": data}}}, "the test's configuration")
        datasets.prepare("one", config, folder)
        made[quality is None] = {split: datasets.load(folder, split) for split in datasets.info(folder)["splits"]}
    for split, true in made[True].items():
        worse = made[False][split]
        assert (worse.images == true.images).all()
        assert (worse.labels == true.labels).all()
        if split == "train":
            assert (worse.masks.sum((1, 2, 3)) > true.masks.sum((1, 2, 3))).all()
            assert (worse.masks >= true.masks).all()
        else:
            assert (worse.masks == true.masks).all()
