"""Images in files: what is indexed is read, as it would be in memory, and no number changes."""

import json

import numpy as np
import pytest
import torch
from photo_collection import GIVEN, Photographs
from safetensors.torch import load_file

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.config import MaskSubset, fill
from isnet_bench.data import images, stored
from isnet_bench.data.base import NO_MASK, Split
from isnet_bench.evaluation import evaluate as evaluation
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import locked
from isnet_bench.training import runs
from isnet_bench.training import train as training
from isnet_bench.training.mask_subset import keep_masks

KEYS = [
    torch.tensor([5, 0, 5]),
    np.array([2, 1]),
    slice(1, 4),
    torch.tensor([True, False, True, False, False, True]),
    slice(None),
]


@pytest.fixture
def arrays(tmp_path):
    """Images and masks of which the second is missing, in files, and the same as tensors."""
    rng = np.random.default_rng(0)
    pixels, masks = rng.integers(0, 256, (6, 3, 4, 4), dtype=np.uint8), rng.integers(0, 2, (6, 1, 4, 4), dtype=np.uint8)
    masks[1] = NO_MASK
    for name, array in (("a", pixels), ("b", masks)):
        stored.save(tmp_path / f"{name}.npy", array)
    files = [stored.opened(tmp_path / f"{name}.npy", "do it again") for name in "ab"]
    lacking = torch.from_numpy(masks).float()
    lacking[1] = torch.nan
    labels = torch.arange(6) % 2
    return (
        Split(stored.StoredImages(files[0]), stored.StoredMasks(files[1]), labels),
        Split(torch.from_numpy(pixels).float() / 255, lacking, labels),
    )


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_stored_rows_are_those_of_a_tensor(arrays, key):
    for found, expected in zip(*arrays, strict=True):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0, equal_nan=True)
        assert (len(found), found.shape, found.size(0)) == (6, expected.shape, 6)


@pytest.mark.parametrize("choose", ["random", "per_class"])
def test_fewer_masks_are_the_same_ones_in_files_and_in_memory(arrays, choose):
    subset = MaskSubset(number=3, choose=choose)
    found, expected = (keep_masks(split, split, subset, 4) for split in arrays)
    for stored_part, part in zip(found, expected, strict=True):
        torch.testing.assert_close(stored_part.masks[:], part.masks, rtol=0, atol=0, equal_nan=True)
        assert stored.masks_there(stored_part.masks).equal(~part.masks[:, 0, 0, 0].isnan())
    assert int(stored.masks_there(arrays[0].masks).sum()) == 5


def test_a_file_that_is_replaced_is_still_the_old_one(arrays, tmp_path):
    found, expected = arrays[0].images, arrays[1].images
    stored.save(tmp_path / "a.npy", np.zeros((6, 3, 4, 4), np.uint8))
    torch.testing.assert_close(found[:], expected)


def test_pieces_are_all_rows_in_order(monkeypatch):
    monkeypatch.setattr(stored, "_PIECE_BYTES", 20)
    array = np.zeros((7, 9), np.uint8)
    assert [len(array[rows]) for rows in stored.pieces(array)] == [2, 2, 2, 1]
    assert len(list(stored.pieces(array, np.zeros((7, 99))))) == 7


# --- scratch files ------------------------------------------------------------------------------------------


def test_scratch_files_become_the_data_or_are_removed(tmp_path):
    with locked(tmp_path), stored.Scratch(tmp_path) as room:
        whole, other, backwards = room((4, 2)), room((4, 2)), room((4, 2))
        for array in (whole, other, backwards):
            array[:] = np.arange(8).reshape(4, 2)
        stored.save(tmp_path / "whole.npy", whole)
        stored.save(tmp_path / "again.npy", whole)
        stored.save(tmp_path / "part.npy", other[:3])
        stored.save(tmp_path / "backwards.npy", backwards[::-1])
        assert len(list(tmp_path.glob(".scratch-*"))) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"whole.npy", "again.npy", "part.npy", "backwards.npy"}
    expected = np.arange(8).reshape(4, 2)
    for name, array in (
        ("whole", expected),
        ("again", expected),
        ("part", expected[:3]),
        ("backwards", expected[::-1]),
    ):
        np.testing.assert_array_equal(np.load(tmp_path / f"{name}.npy"), array)


def test_a_full_disk_is_a_sentence_before_anything_is_drawn(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(stored.os, "posix_fallocate", full)
    with (
        stored.Scratch(tmp_path) as room,
        pytest.raises(BenchError, match=r"cannot be written \(disk full\): free the"),
    ):
        room((4, 2))
    assert not list(tmp_path.iterdir())


def test_a_file_of_the_user_is_never_moved(tmp_path):
    np.save(tmp_path / "mine.npy", np.arange(4))
    stored.save(tmp_path / "copy.npy", np.load(tmp_path / "mine.npy", mmap_mode="r"))
    assert np.array_equal(np.load(tmp_path / "mine.npy"), np.load(tmp_path / "copy.npy"))


# --- data sets ----------------------------------------------------------------------------------------------

PLANTED = {
    "plain": {},
    "marks": {"marks": {"pattern": "corner_shape", "size": 12, "strength": 0.7}},
    "places": {"places": {"pictures": 2}},
}


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "data"))
    return Photographs(tmp_path / "data")


@pytest.mark.parametrize("planted", PLANTED)
def test_photographs_in_pieces_on_disk_are_those_in_memory(photographs, tmp_path, monkeypatch, planted):
    settings = fill(images.Settings, {**GIVEN, **PLANTED[planted]})
    whole = images.make(settings)
    monkeypatch.setattr(stored, "_PIECE_BYTES", 2 * 3 * GIVEN["image_size"] ** 2)
    folder = tmp_path / "scratch"
    folder.mkdir()
    with stored.Scratch(folder) as room:
        made = images.make(settings, room)
        assert all(isinstance(array, np.memmap) for split in made.splits.values() for array in split[:2])
        for name, split in whole.splits.items():
            for one, other in zip(split, made.splits[name], strict=True):
                np.testing.assert_array_equal(one, other)
    assert not list(folder.iterdir())


ROWS = {"resnet": {}, "rrr": {}}
RECIPE = {"epochs": 2, "batch_size": 5, "learning_rate": 2e-3, "masked_images": 2}


def test_training_and_evaluation_from_files_change_no_number(photographs, tmp_path, monkeypatch):
    photographs.change(3, mask="")
    section = {
        "data": {"name": "images", **GIVEN, "masks": {"number": 6}},
        "backbone": {"name": "resnet_small"},
        "training": {**RECIPE, "augmentation": {"flip": 0.5, "shift": 3, "color": 0.2}},
        "methods": ROWS,
    }
    config = configuration.check({"seeds": [0], "device": "cpu", "experiments": {"x": section}}, "test")
    datasets.prepare("x", config, tmp_path / "prepared")
    found = {}
    for largest in (datasets.IN_MEMORY, 0):
        monkeypatch.setattr(datasets, "IN_MEMORY", largest)
        kind = type(datasets.load(tmp_path / "prepared", "train").images)
        assert kind is (torch.Tensor if largest else stored.StoredImages)
        for row in ROWS:
            out = tmp_path / str(largest) / row
            job = runs.Job(config, "x", row, 0, tmp_path / "prepared")
            training.train(job, out, None)
            evaluation.evaluate(job, out)
            metrics = json.loads((out / "metrics.json").read_text())
            kept = {key: metrics[key] for key in ("sets", "swap_changes", "prediction_changes")}
            found.setdefault(row, []).append((load_file(out / "weights.safetensors"), kept))
    for (weights, metrics), (others, other_metrics) in found.values():
        assert metrics == other_metrics
        for name, value in weights.items():
            assert value.equal(others[name]), name
