"""Which changes of the files of a data set are noticed."""

import os

import numpy as np
import pytest

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.io.errors import BenchError

XRAY = configuration.Config().catalog.data["xray"]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with a manifest of two images, one of which has a mask."""
    folder = tmp_path / "lungs [1]"
    folder.mkdir()
    (folder / "manifest.csv").write_text(
        "image, label, source, split, mask\na.png,x,y,train, a_mask.png\nb.png,x,y,val,\n"
    )
    for name in ("a.png", "a_mask.png", "b.png", "not_listed.png"):
        (folder / name).write_text("10")
        os.utime(folder / name, (0, 0))
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    return folder


def of(folder):
    return XRAY.files({"manifest": f"{folder.name}/manifest.csv"})


def rewritten(path):
    path.write_text("01")
    os.utime(path, (0, 0))


CHANGES = {
    "another size": (lambda folder: (folder / "a_mask.png").write_text("other"), True),
    "another time": (lambda folder: os.utime(folder / "b.png", (1, 1)), True),
    "deleted": (lambda folder: (folder / "a.png").unlink(), True),
    "another line": (lambda folder: (folder / "manifest.csv").write_text("image,mask\na.png,\n"), True),
    "the manifest's time": (lambda folder: os.utime(folder / "manifest.csv", (1, 1)), False),
    "a file that is not listed": (lambda folder: (folder / "not_listed.png").unlink(), False),
    "content of the same size and time": (lambda folder: rewritten(folder / "a.png"), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_noticed(root, change):
    apply, noticed = CHANGES[change]
    before = of(root)
    assert of(root) == before
    apply(root)
    assert (of(root) != before) == noticed


def test_contents_count_on_demand(root, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_HASH", "1")
    before = of(root)
    os.utime(root / "b.png", (1, 1))
    assert of(root) == before
    rewritten(root / "a.png")
    assert of(root) != before


def test_the_data_root_counts(root, monkeypatch):
    before = of(root)
    monkeypatch.setenv("ISNET_BENCH_DATA", str(root.parent / "nothing"))
    assert of(root) != before


def test_the_segmentations_masks_are_relative_to_the_folder_of_the_images(root):
    segment = configuration.Segment(masks="lungs.csv", manifest=f"{root.name}/manifest.csv")
    (root.parent / "lungs.csv").write_text("image,mask,split\nnot_listed.png,a_mask.png,train\n")
    before = segment.files()
    os.utime(root / "not_listed.png", (1, 1))
    assert segment.files() != before


def test_digits_that_arrive_later_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    card = configuration.Config().catalog.data["mnist"]
    before = card.files({})
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").touch()
    assert card.files({}) != before


def test_what_data_are_made_of_is_recorded_and_the_splits_belong_to_it(tiny_config, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "nothing"))
    out = tmp_path / "out"
    datasets.prepare("tiny", tiny_config, out, planned="before")
    info = datasets.info(out)
    assert info == datasets.info(tiny_data)
    assert tiny_config.planned_files("tiny", out / "data.json") == "before"
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "elsewhere"))
    assert tiny_config.planned_files("tiny", out / "data.json") == tiny_config.files("tiny") != "before"
    assert tiny_config.planned_files("tiny", tmp_path / "data.json") == tiny_config.files("tiny")
    assert np.array_equal(*(datasets.load(folder, "val").images for folder in (out, tiny_data)))
    (out / "val.npz").write_bytes((out / "iid.npz").read_bytes())
    with pytest.raises(BenchError, match=r"val\.npz belongs to other data than data\.json beside it says: delete"):
        datasets.load(out, "val")
