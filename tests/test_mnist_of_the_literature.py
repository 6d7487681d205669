"""Decoy-MNIST and ColoredMNIST are those of the literature."""

import numpy as np
import pytest

from isnet_bench import data
from isnet_bench.config import fill

CORNERS = [(0, 0), (0, 24), (24, 0), (24, 24)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both, of scikit-learn's digits."""

    def make(name, **changes):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ISNET_BENCH_DATA", str(tmp_path_factory.mktemp("nothing")))
            kind = data.known()[name]
            given = {"train_images": 40_000, "val_images": 5_000, "test_images": 15_000, "download": False}
            return kind.make(fill(kind.settings, {**given, **changes}))

    return make


def swatches(image):
    """Levels of the corners that are of one grey level all over, but for black."""
    found = {corner: np.unique(image[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4]) for corner in CORNERS}
    return {corner: int(levels[0]) for corner, levels in found.items() if len(levels) == 1 and levels[0] > 0}


def test_the_swatch_of_decoy_mnist_names_the_digit(made):
    splits = made("decoy_mnist").splits
    used = []
    for image, mask, label in zip(*splits["train"], strict=True):
        ((corner, level),) = swatches(image[0]).items()
        assert level == 255 - 25 * label
        assert not mask[0, corner[0] : corner[0] + 4, corner[1] : corner[1] + 4].any()
        used.append(CORNERS.index(corner))
    shares = np.bincount(used) / len(used)
    # Four standard errors of a quarter of some 1,200 images.
    assert np.abs(shares - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / len(used))


def test_test_sets_of_decoy_mnist_differ_in_the_swatch_alone(made):
    splits = made("decoy_mnist").splits
    labels = splits["iid"].labels
    shown = {
        name: np.array([(255 - level) // 25 for image in splits[name].images for level in swatches(image[0]).values()])
        for name in ("iid", "deceiving", "random")
    }
    assert (shown["iid"] == labels).all()
    assert (shown["deceiving"] != labels).all()
    assert abs((shown["random"] == labels).mean() - 0.1) < 4 * np.sqrt(0.09 / len(labels))
    assert not any(swatches(image[0]) for image in splits["ood"].images)
    for name in ("ood", "deceiving", "random"):
        changed = (splits[name].images != splits["iid"].images).sum((1, 2, 3))
        assert set(changed.tolist()) <= {*range(17)}


@pytest.mark.parametrize(("split", "flips"), [("train", 0.15), ("iid", 0.15), ("ood", 0.9)])
def test_colour_and_label_of_colored_mnist_agree_as_often_as_in_the_paper(made, split, flips):
    whole = made("colored_mnist", seed=3)
    images, masks, labels = whole.splits[split]
    red, green, blue = (images[:, channel].any((1, 2)) for channel in range(3))
    assert (red != green).all()
    assert not blue.any()
    assert (red == whole.groups[split]).all()
    assert whole.group_names == ("green", "red")
    error = 4 * np.sqrt(flips * (1 - flips) / len(labels))
    assert abs((red != labels).mean() - flips) < error
    assert masks.any((1, 2, 3)).all()


def test_labels_of_colored_mnist_are_those_of_the_digits_but_for_noise(made):
    pure, noisy = (made("colored_mnist", label_noise=noise) for noise in (0.0, 0.25))
    digits = made("mnist", bias={"pattern": "tinted_background", "strength": 1.0}).splits["ood"]
    assert (pure.splits["ood"].labels == (digits.labels >= 5)).all()
    assert (pure.splits["ood"].images.sum(1) == digits.images[:, 0]).all()
    share = (pure.splits["train"].labels != noisy.splits["train"].labels).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(pure.splits["train"].labels))
    assert (noisy.splits["iid"].labels == noisy.splits["ood"].labels).all()
    assert (noisy.splits["iid"].images.sum(1) == noisy.splits["ood"].images.sum(1)).all()


def test_environments_of_colored_mnist_are_equally_large(made):
    whole = made("colored_mnist", colour_flips=[0.0, 1.0])
    labels, colours = whole.splits["train"].labels, whole.groups["train"]
    assert abs((labels == colours).sum() - len(labels) / 2) <= 1
