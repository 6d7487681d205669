"""MNIST and its stand-in: where the digits come from, how they are split, and what the marks give away."""

import http.client
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy import ndimage

from isnet_bench import data as datasets
from isnet_bench.data import bias, mnist
from isnet_bench.data.mnist import digits
from isnet_bench.io.errors import BenchError

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PATTERNS = ("border_pixel", "corner_patch", "tinted_background")


def idx(array):
    """The bytes of an idx file."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, training=400, testing=150):
    """Write random bright blots, in the middle 20 x 20 pixels, as MNIST's four files."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for prefix, number in (("train", training), ("t10k", testing)):
        images = np.zeros((number, 28, 28), np.uint8)
        images[:, 4:24, 4:24] = rng.integers(0, 256, (number, 20, 20)) * (rng.random((number, 20, 20)) < 0.1)
        images[:, 14, 14] = 255
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(number) % 10))


def settings(**changes):
    pattern = changes.pop("bias", {})
    given = {"train_images": 200, "val_images": 50, "test_images": 100, "download": False, **changes}
    return mnist.Settings(bias=bias.Bias(**pattern), **given)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root."""
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def files(root):
    """A data root with MNIST's four files, and where they are."""
    write_mnist(root / "MNIST" / "raw")
    return root / "MNIST" / "raw"


@pytest.mark.parametrize("inner", [".", "mnist"])
def test_files_are_found_in_torchvisions_layout(root, inner):
    write_mnist(root / inner / "MNIST" / "raw")
    made = mnist.make(settings())
    assert (made.name, made.title, made.stand_in) == ("mnist", "MNIST", False)


def test_data_root_is_the_folder_data_where_the_variable_is_not_set(tmp_path, monkeypatch):
    monkeypatch.delenv("ISNET_BENCH_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    write_mnist(tmp_path / "data" / "MNIST" / "raw")
    assert not mnist.make(settings()).stand_in


def test_digits_stand_in_and_say_so(root, caplog):
    made = mnist.make(settings())
    assert made.stand_in
    assert made.name == "digits"
    assert "stand-in for MNIST" in made.title
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "every result says so" in caplog.text


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [((200, 50, 100), (200, 50, 100)), ((6000, 1000, 2000), (1198, 199, 399)), ((None, 5000, None), (1412, 128, 256))],
)
def test_stand_in_is_shared_out_in_proportion(root, wanted, expected):
    sizes = dict(zip(("train_images", "val_images", "test_images"), wanted, strict=True))
    made = mnist.make(settings(**sizes))
    found = [len(made.splits[name].labels) for name in ("train", "val", "iid")]
    assert found[1:] == pytest.approx(expected[1:], abs=1)
    assert found[0] == pytest.approx(expected[0], abs=2)
    assert sum(found) == min(1797, sum(size or 60_000 for size in wanted))


def test_stand_in_has_disjoint_splits(root):
    made = mnist.make(
        settings(train_images=1000, val_images=300, test_images=497, bias={"pattern": "tinted_background"})
    )
    # Without the tint, which is the mark; what is left is the digit.
    digits = [np.where(a.masks > 0, a.images, 0) for a in (made.splits[name] for name in ("train", "val", "ood"))]
    seen = [{image.tobytes() for image in images} for images in digits]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


class Download:
    """Stands in for torchvision's data set class: writes the files as it would, or fails as it may."""

    def __init__(self, failure=None):
        self.failure, self.roots = failure, []

    def __call__(self, root, download):
        self.roots.append(Path(root))
        assert download
        if self.failure is not None:
            (Path(root) / "MNIST" / "raw").mkdir(parents=True)
            (Path(root) / "MNIST" / "raw" / NAMES[0]).write_bytes(b"half a file")
            raise self.failure
        write_mnist(Path(root) / "MNIST" / "raw")


@pytest.mark.parametrize("before", [[], ["MNIST/raw/train-labels-idx1-ubyte.gz"]])
def test_download_ends_in_the_data_root(root, monkeypatch, before):
    for name in before:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("")
    download = Download()
    monkeypatch.setattr(digits.datasets, "MNIST", download)
    assert not mnist.make(settings(download=True)).stand_in
    found = {path.name for path in (root / "MNIST" / "raw").iterdir()}
    assert found == {*NAMES, *(Path(name).name for name in before)}
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    mnist.make(settings(download=True))
    assert len(download.roots) == 1


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("Error downloading"),
        URLError("no route"),
        TimeoutError("timed out"),
        http.client.BadStatusLine("?"),
    ],
)
def test_failed_download_leaves_nothing_and_digits_stand_in(root, monkeypatch, caplog, failure):
    monkeypatch.setattr(digits.datasets, "MNIST", Download(failure))
    assert mnist.make(settings(download=True)).stand_in
    assert "could not be downloaded" in caplog.text
    assert list(root.iterdir()) == []


def test_download_into_what_is_no_folder_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "file" / "inside"))
    with pytest.raises(BenchError, match=r"the data root .*inside cannot be written to .*; let ISNET_BENCH_DATA name"):
        mnist.make(settings(download=True))


@pytest.mark.parametrize("name", NAMES)
def test_missing_file_is_named(files, name):
    (files / name).unlink()
    with pytest.raises(BenchError, match=rf"{name} is missing; put MNIST's four files into .* or delete that folder"):
        mnist.make(settings())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 3, 12, 700])
def test_short_file_is_named(files, name, size):
    content = (files / name).read_bytes()
    (files / name).write_bytes(content[: min(size, len(content) - 1)])
    with pytest.raises(BenchError, match=rf"{name} (is no whole MNIST file|does not hold MNIST's).*; put MNIST's"):
        mnist.make(settings())


def test_wrong_content_is_named(files):
    (files / NAMES[1]).write_bytes(idx(np.full(400, 11)))
    with pytest.raises(BenchError, match=rf"{NAMES[1]} does not hold MNIST's labels"):
        mnist.make(settings())


@pytest.mark.parametrize(
    "sizes", [{"train_images": 399}, {"test_images": 151}, {"train_images": None, "val_images": 395}]
)
def test_too_many_images_are_refused(files, sizes):
    with pytest.raises(BenchError, match=r"MNIST has \d+ images for .*_images.*, which ask for \d+; lower them"):
        mnist.make(settings(**sizes))


def test_null_takes_all(files):
    made = mnist.make(settings(train_images=None, test_images=None))
    assert {name: len(arrays.labels) for name, arrays in made.splits.items()} == {
        "train": 350, "val": 50, "iid": 150, "ood": 150, "deceiving": 150
    }  # fmt: skip


def test_classes_keep_their_proportions(files):
    made = mnist.make(settings(train_images=203, val_images=50, test_images=100))
    for name in ("train", "val", "iid"):
        counts = np.bincount(made.splits[name].labels, minlength=10)
        assert np.ptp(counts) <= 1 + (name == "train")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_same_seed_same_data_other_seed_other_data(files, pattern):
    first, same, other = (
        mnist.make(settings(seed=seed, bias={"pattern": pattern, "strength": 0.5})) for seed in (3, 3, 4)
    )
    for name in first.splits:
        for a, b in zip(first.splits[name], same.splits[name], strict=True):
            np.testing.assert_array_equal(a, b)
        assert not np.array_equal(first.splits[name].images, other.splits[name].images)


def mark_of(arrays, plain, marks):
    """Class whose mark each image bears, found by comparing with all of them; -1: none, or more than a mark."""
    found = np.full(len(arrays.labels), -1)
    for label in range(10):
        expected = bias.apply(plain.images, plain.masks, marks, np.full(len(found), label))
        found[(expected == arrays.images).all((1, 2, 3))] = label
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [1, 2])
def test_three_test_sets_differ_in_their_marks_alone(files, pattern, size):
    made = mnist.make(settings(bias={"pattern": pattern, "size": size}))
    iid, ood, deceiving = (made.splits[name] for name in made.test_sets)
    for other in (iid, deceiving):
        np.testing.assert_array_equal(other.labels, ood.labels)
        np.testing.assert_array_equal(other.masks, ood.masks)
    marks = bias.make_marks(bias.Bias(pattern, 1.0, size), 10, 28)
    np.testing.assert_array_equal(mark_of(iid, ood, marks), iid.labels)
    wrong = mark_of(deceiving, ood, marks)
    assert (wrong >= 0).all()
    assert (wrong != deceiving.labels).all()
    assert len(np.unique(wrong)) == 10
    # Outside the digits there is nothing in the unmarked set.
    assert (ood.images[ood.masks == 0] == 0).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_marks_never_touch_the_mask(files, pattern):
    made = mnist.make(settings(bias={"pattern": pattern, "size": 2}))
    iid, ood = made.splits["iid"], made.splits["ood"]
    changed = iid.images != ood.images
    assert changed.any((1, 2, 3)).all()
    assert not (changed & (iid.masks > 0)).any()


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
def test_strength_is_the_probability_of_the_own_mark(strength):
    labels = np.random.default_rng(1).integers(0, 10, 40_000)
    which = bias.choose(labels, 10, strength, np.random.default_rng(0))
    assert np.mean(which == labels) == pytest.approx(strength, abs=0.01)
    others = ((which - labels) % 10)[which != labels]
    if len(others):
        np.testing.assert_allclose(np.bincount(others, minlength=10)[1:] / len(others), 1 / 9, atol=0.01)


@pytest.mark.parametrize("split", ["train", "val", "iid"])
def test_strength_applies_to_what_is_distributed_like_training(root, split):
    made = mnist.make(settings(train_images=900, val_images=400, test_images=490, bias={"strength": 0.5}))
    arrays = made.splits[split]
    rows = np.linspace(0, 27, 10).round().astype(int)
    marked = arrays.images[:, 0, rows, 0].argmax(1)
    assert np.mean(marked == arrays.labels) == pytest.approx(0.5, abs=0.1)
    assert (np.count_nonzero(arrays.images[:, 0, :, 0], axis=1) == 1).all()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_marks_differ_between_classes(pattern):
    marks = bias.make_marks(bias.Bias(pattern, 1.0, 2), 10, 28)
    drawn = np.where(marks.covers, marks.levels, 0).reshape(10, -1)
    assert len(np.unique(drawn, axis=0)) == 10
    assert (drawn.max(1) > 0).all()


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_mask_is_the_dilated_digit(files, radius):
    ood = mnist.make(settings(mask_dilation=radius)).splits["ood"]
    distance = ndimage.distance_transform_edt(ood.images[0, 0] == 0)
    np.testing.assert_array_equal(ood.masks[0, 0], distance <= radius)


def test_digits_at_the_border_are_moved_and_counted():
    images = np.zeros((3, 1, 28, 28), np.uint8)
    images[0, 0, 5:9, 0:6] = 7
    images[1, 0, 5:9, 10:14] = 8
    images[2, 0, 5:9, 25:28] = 9
    moved, number = bias.make_room(images, 3, 2)
    assert number == 2
    assert [np.flatnonzero(image.any((0, 1))).tolist() for image in moved] == [
        [3, 4, 5, 6, 7, 8], [10, 11, 12, 13], [23, 24, 25]
    ]  # fmt: skip
    assert [image.sum() for image in moved] == [image.sum() for image in images]
    assert images[0, 0, 5, 0] == 7


def test_no_room_for_marks_is_an_error(files):
    with pytest.raises(BenchError, match=r"images leave no room for marks .*; lower bias.size or mask_dilation"):
        mnist.make(settings(mask_dilation=9))


def test_overlapping_marks_are_an_error(files):
    with pytest.raises(BenchError, match=r"10 marks of 3 pixels do not fit .*; lower bias.size"):
        mnist.make(settings(bias={"size": 3}))


def test_mark_on_the_mask_is_an_error():
    images, masks = np.zeros((2, 1, 28, 28), np.uint8), np.ones((2, 1, 28, 28), np.uint8)
    marks = bias.make_marks(bias.Bias(), 10, 28)
    with pytest.raises(BenchError, match="marks touch the foreground of 2 images"):
        bias.apply(images, masks, marks, np.array([0, 1]))


def test_images_can_be_enlarged(root):
    made = mnist.make(settings(image_size=56, bias={"size": 3}, mask_dilation=4))
    assert made.splits["iid"].images.shape == (100, 1, 56, 56)
    assert (made.splits["iid"].images != made.splits["ood"].images).sum() == 100 * 9


def test_prepared_data_are_what_was_made(tiny_data, tiny_config):
    info = datasets.info(tiny_data)
    assert info["stand_in"]
    assert info["splits"] == {"train": 90, "val": 20, "iid": 30, "ood": 30, "deceiving": 30}
    assert (info["channels"], info["image_size"], len(info["classes"])) == (1, 28, 10)
    assert info["settings"]["bias"] == {"pattern": "border_pixel", "strength": 1.0, "size": 1}
    split = datasets.load(tiny_data, "iid")
    assert [tensor.dtype for tensor in split] == [torch.float32, torch.float32, torch.int64]
    assert float(split.images.max()) == 1
    assert info["background_area"]["iid"] == pytest.approx(1 - float(split.masks.mean()), rel=1e-6)
    assert set(split.masks.unique().tolist()) == {0.0, 1.0}


def test_unprepared_and_damaged_data_are_named(tmp_path):
    with pytest.raises(BenchError, match=r"data.json is missing: make the data with: python -m isnet_bench prepare"):
        datasets.info(tmp_path)
    for name in ("val.images.npy", "val.masks.npy", "val.npz"):
        with pytest.raises(BenchError, match=rf"{name} is missing: make the data with"):
            datasets.load(tmp_path, "val")
        (tmp_path / name).write_bytes(b"PK no zip file, nor an array")
        with pytest.raises(BenchError, match=rf"{name} is damaged .*: delete it, then make the data with"):
            datasets.load(tmp_path, "val")
        np.save(tmp_path / name, np.zeros((2, 1, 4, 4), np.uint8))


def test_failed_preparation_leaves_no_description(tiny_config, tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "nothing"))
    out = tmp_path / "out"
    datasets.prepare("tiny", tiny_config, out)
    monkeypatch.setattr(np, "savez_compressed", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(BenchError, match=r"train.npz cannot be written \(disk full\)"):
        datasets.prepare("tiny", tiny_config, out)
    assert not (out / "data.json").exists()
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_unknown_data_set_lists_the_known_ones():
    with pytest.raises(BenchError, match=r"unknown data set 'cifar'; known: .*mnist"):
        datasets.known()["cifar"]
