"""Small generated phantoms, for the tests of what they show and of their backgrounds."""

import pytest

from isnet_bench.data import phantom

TEST_SETS = ("iid", "ood", "deceiving")


def make(**changes):
    sizes = {"train_images": 6, "val_images": 3, "test_images": 24, "image_size": 48}
    return phantom.make(phantom.Settings(**{**sizes, **changes}))


@pytest.fixture(scope="module")
def made():
    """Phantoms in number enough to learn from."""
    return make(train_images=300, test_images=150, image_size=32)
