"""A data set of one's own is checked when it is made, before anything is trained on it."""

import pytest

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.io.errors import BenchError

OWN = """
import numpy as np
from pydantic.dataclasses import dataclass
from isnet_bench.data import DataSet
from isnet_bench.data.base import Arrays


@dataclass(frozen=True)
class Settings:
    fault: str = "none"


def make(settings):
    side = (8, 9) if settings.fault == "not square" else (8, 8)
    images = np.random.default_rng(0).integers(0, 256, (6, 1, *side)).astype(np.uint8)
    masks = np.zeros((6, 1, *side), np.uint8)
    masks[:, :, 2:6, 2:6] = 1
    labels, test = np.arange(6) % 2, "iid"
    match settings.fault:
        case "images in [0, 1]":
            images = images / np.float32(255)
        case "masks 0 and 255":
            masks = 255 * masks
        case "masks 0 and 255, a corner set":
            masks = 255 * masks
            masks[:, :, 0, 0] = 255
        case "masks without channel":
            masks = masks[:, 0]
        case "boolean masks":
            masks = masks > 0
        case "full masks":
            masks[:] = 1
        case "int32 labels":
            labels = labels.astype(np.int32)
        case "channels last":
            images = np.moveaxis(images, 1, 3)
        case "name of a set":
            test = "my test set"
        case "a tuple":
            return DataSet("own", "Own", False, ("a", "b"), {"train": (images, masks, labels)}, ("iid",))
    arrays = Arrays(images, masks, labels)
    splits = {"train": arrays, "val": arrays, test: arrays}
    if settings.fault == "no validation":
        del splits["val"]
    return DataSet("own", "Own", False, ("a", "b"), splits, (test,))
"""


def prepare(tmp_path, fault):
    (tmp_path / "own.py").write_text(OWN)
    given = {"plugins": [str(tmp_path / "own.py")], "experiments": {"e": {"data": {"name": "own", "fault": fault}}}}
    config = configuration.check(given, "test", whole=False)
    datasets.prepare("e", config, tmp_path / "out")


def test_a_sound_data_set_is_made(tmp_path):
    prepare(tmp_path, "none")
    images, masks, labels = datasets.load(tmp_path / "out", "iid")
    assert (images.max() <= 1, masks.sum().item(), labels.tolist()) == (True, 6 * 16, [0, 1] * 3)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("images in [0, 1]", r"images of train must be uint8 \(N, C, H, W\), 0 to 255, not float32 \(6, 1, 8, 8\)"),
        ("channels last", r"masks of train must be uint8 .* as large as the images, not uint8 \(6, 1, 8, 8\)"),
        ("masks 0 and 255", r"masks of train must be 0 or 1, or 255 everywhere .*; they have \[255\]"),
        ("masks 0 and 255, a corner set", r"masks of train must be 0 or 1, or 255 everywhere .*; they have \[255\]"),
        ("masks without channel", r"masks of train must be uint8 \(N, 1, H, W\), .* not uint8 \(6, 8, 8\)"),
        ("boolean masks", r"masks of train must be uint8 .* not bool"),
        ("full masks", "100% of the masks of train have no background"),
        ("int32 labels", r"labels of train must be int64 \(N,\), not int32 \(6,\)"),
        ("name of a set", "a test set cannot have the name 'my test set': it must be letters, digits"),
        ("a tuple", r"its splits are \['train'\], and should be \['iid', 'train', 'val'\]"),
        ("no validation", r"its splits are \['iid', 'train'\], and should be \['iid', 'train', 'val'\]"),
        ("not square", r"images must be square, not \(8, 9\)"),
    ],
)
def test_a_broken_contract_is_one_sentence(tmp_path, fault, sentence):
    with pytest.raises(BenchError, match=rf"^the data set own breaks its contract: {sentence}") as caught:
        prepare(tmp_path, fault)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
