"""X-rays of a manifest: what is read, which backgrounds are exchanged, and what stands in."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from xray_collection import GIVEN, LABELS, SIZE, Collection, lungs, make, save

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.data import bias
from isnet_bench.data.images import reading as images
from isnet_bench.io.errors import BenchError

MARKS = {"pattern": "corner_shape", "size": 6}
PHANTOM = {"train_images": 6, "val_images": 3, "test_images": 3}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def collection(root):
    return Collection(root)


def test_splits_hold_what_the_manifest_lists(collection):
    made = make()
    assert (made.name, made.stand_in, made.classes) == ("xray", False, LABELS)
    assert "chests/manifest.csv" in made.title
    assert made.test_sets == ("iid", "ood", "swapped")
    assert made.background_changes == {"background swapped": ("iid", "swapped")}
    sizes = {"train": 9, "val": 3, "iid": 6, "ood": 6, "swapped": 6}
    assert {name: len(arrays.labels) for name, arrays in made.splits.items()} == sizes
    for name, arrays in made.splits.items():
        assert arrays.images.shape == arrays.masks.shape == (sizes[name], 1, SIZE, SIZE)
        assert (arrays.images.dtype, arrays.masks.dtype, arrays.labels.dtype) == (np.uint8, np.uint8, np.int64)
        np.testing.assert_array_equal(arrays.labels, np.arange(sizes[name]) % 3)
        assert list(made.records[name]["mask_origin"]) == ["given"] * sizes[name]
    assert list(made.records["ood"]["image"]) == [f"test_ood/{index}.png" for index in range(6)]
    assert set(made.records["ood"]["source"]) == {"away"}


def test_images_and_masks_are_those_of_the_files(collection):
    made = make()
    for split, file in (("train", "train/4.png"), ("ood", "test_ood/4.png")):
        np.testing.assert_array_equal(
            made.splits[split].images[4, 0], images.resize(images.read(collection.folder / file), SIZE)
        )
        mask = images.resize_mask(lungs(top=8) > 0, SIZE)
        np.testing.assert_array_equal(made.splits[split].masks[4, 0], mask)


def test_lines_in_any_order_spaces_and_blank_lines_do_no_harm(collection):
    expected = make()
    lines = collection.manifest.read_text().splitlines()
    text = "\ufeff" + " , ".join(["age", *lines[0].split(",")]) + "\n\n"
    text += "\n".join(" , ".join(["7", *line.split(",")]) for line in lines[1:]) + "\n,,,,,\n"
    collection.manifest.write_text(text, encoding="utf-8")
    found = make()
    for name in expected.splits:
        for one, other in zip(expected.splits[name], found.splits[name], strict=True):
            np.testing.assert_array_equal(one, other)


def rewrite_masks(collection, change):
    for path in collection.folder.glob("masks/*/*.png"):
        save(change(images.read_mask(path)).astype(np.uint8), path)


def test_masks_of_which_most_are_full_are_refused(collection):
    rewrite_masks(collection, lambda mask: np.full(mask.shape, 255))
    with pytest.raises(BenchError, match=r"the masks of 24 of 24 images, such as train/0\.png, are foreground through"):
        make()


def test_inverted_masks_are_told_of_in_every_title(collection, caplog):
    assert "MASKS" not in make().title
    rewrite_masks(collection, lambda mask: np.where(mask, 0, 255))
    made = make()
    said = "foreground covers the rim, or nearly all, of 100% of the images"
    assert made.title.endswith(f"(MASKS IN DOUBT: {said})")
    assert f"{said}: the masks may be inverted" in caplog.text
    assert any(said in warning for warning in made.details["warnings"])


def test_trimaps_are_masks_where_the_settings_name_the_foreground(collection):
    expected = make().splits["train"].masks
    rewrite_masks(collection, lambda mask: np.where(mask, 1, 2))
    with pytest.raises(BenchError, match="does not tell what is foreground"):
        make()
    np.testing.assert_array_equal(make(mask_values=[1]).splits["train"].masks, expected)


def test_a_swapped_background_is_that_of_another_source(collection):
    collection.change(20, source="home")
    made = make()
    iid, ood, swapped = (made.splits[name] for name in made.test_sets)
    np.testing.assert_array_equal(swapped.masks, iid.masks)
    np.testing.assert_array_equal(swapped.labels, iid.labels)
    inside = iid.masks > 0
    np.testing.assert_array_equal(swapped.images[inside], iid.images[inside])
    records, lenders = made.records["swapped"], made.records["ood"]
    assert "background_image" not in made.records["iid"]
    assert list(records["image"]) == list(made.records["iid"]["image"])
    assert set(records["background_source"]) == {"away"}
    assert records["background_image"].nunique() > 1
    for image, mask, name in zip(swapped.images, iid.masks, records["background_image"], strict=True):
        lender = ood.images[lenders.index[lenders["image"] == name][0]]
        np.testing.assert_array_equal(image[mask == 0], lender[mask == 0])


def test_same_seed_same_data_other_seed_other_data(collection):
    first, same, other = (make(seed=seed) for seed in (1, 1, 2))
    for name in first.splits:
        np.testing.assert_array_equal(first.splits[name].images, same.splits[name].images)
    assert not np.array_equal(first.splits["swapped"].images, other.splits["swapped"].images)
    assert np.array_equal(first.splits["train"].images, other.splits["train"].images)


def test_marks_alone_distinguish_the_three_test_sets(collection):
    plain, made = make(), make(marks=MARKS)
    assert made.test_sets == ("iid", "ood", "deceiving")
    assert made.background_changes == bias.CHANGES
    iid, ood, deceiving = (made.splits[name] for name in made.test_sets)
    np.testing.assert_array_equal(ood.images, plain.splits["iid"].images)
    marks = bias.make_marks(bias.Bias(**MARKS), 3, SIZE)
    for name, arrays in (("iid", iid), ("deceiving", deceiving)):
        np.testing.assert_array_equal(arrays.labels, ood.labels)
        np.testing.assert_array_equal(arrays.masks, ood.masks)
        which = made.records[name]["mark"].map(LABELS.index).to_numpy()
        np.testing.assert_array_equal(arrays.images, bias.apply(ood.images, ood.masks, marks, which))
        assert ((which == arrays.labels) == (name == "iid")).all()
    assert set(made.records["ood"]["mark"]) == {""}
    for split in ("train", "val"):
        assert list(made.records[split]["mark"]) == [LABELS[label] for label in made.splits[split].labels]
        assert (made.splits[split].images != plain.splits[split].images).any((1, 2, 3)).all()


def test_strength_of_the_marks_applies_to_training(collection):
    made = make(marks={**MARKS, "strength": 0.0})
    own = np.array(LABELS)[made.splits["train"].labels]
    assert not (made.records["train"]["mark"] == own).any()


@pytest.mark.parametrize(("pattern", "cut"), [("corner_shape", 1), ("corner_patch", 2), ("tinted_background", 0)])
def test_masks_without_a_free_corner_give_way_to_marks(collection, pattern, cut):
    wide = np.full((40, 48), 255, np.uint8)
    wide[20:22] = 0
    save(wide, collection.folder / "masks/test_iid/1.png")
    one_corner = lungs()
    one_corner[:20, :24] = 255
    save(one_corner, collection.folder / "masks/test_iid/2.png")
    made = make(marks={"pattern": pattern, "size": 6})
    assert made.details["masks_cut_for_marks"] == {"train": 0, "val": 0, "test_iid": cut}
    iid, ood, deceiving = (made.splits[name] for name in made.test_sets)
    for image, is_cut in ((1, cut > 0), (2, cut > 1)):
        assert (iid.masks[image, 0, :6, :6] == (not is_cut)).all()
    assert iid.masks[1, 0, 8, 8]
    for arrays in (iid, deceiving):
        np.testing.assert_array_equal(arrays.masks, ood.masks)
        assert not ((arrays.images != ood.images) & (ood.masks > 0)).any()
        assert (arrays.images[1] != ood.images[1]).any()


def test_marks_need_no_ood_images(collection):
    collection.table = collection.table[collection.table["split"] != "test_ood"]
    collection.write()
    assert make(marks=MARKS).test_sets == ("iid", "ood", "deceiving")


@pytest.fixture
def predicted(collection, tmp_path):
    """A folder with predicted masks for two images that have none in the manifest."""
    for line in (3, 15):
        collection.change(line, mask="")
        name = collection.table["image"][line - 2]
        save(lungs(top=20), tmp_path / "predicted" / name)
    return tmp_path / "predicted"


def test_predicted_masks_fill_the_gaps_and_stay_distinguishable(predicted):
    made = make(predicted_masks=str(predicted))
    assert list(made.records["train"]["mask_origin"]) == ["given", "predicted", *["given"] * 7]
    assert made.details["masks"]["train"] == {"given": 8, "predicted": 1}
    np.testing.assert_array_equal(made.splits["train"].masks[1, 0], images.resize_mask(lungs(top=20) > 0, SIZE))
    assert made.details["dropped_images"] == []


def test_predicted_masks_bear_the_images_name_with_png(collection, predicted):
    shutil.move(collection.folder / "train/1.png", collection.folder / "train/1.chest.jpeg")
    collection.change(3, image="train/1.chest.jpeg")
    shutil.move(predicted / "train/1.png", predicted / "train/1.chest.png")
    assert make(predicted_masks=str(predicted)).records["train"]["mask_origin"][1] == "predicted"


def test_images_without_foreground_can_be_left_out(predicted, caplog):
    save(np.zeros((40, 48), np.uint8), predicted / "train/1.png")
    with pytest.raises(
        BenchError, match=r"line 3: .*1\.png shows no foreground .*; draw one, or set empty_predictions"
    ):
        make(predicted_masks=str(predicted))
    made = make(predicted_masks=str(predicted), empty_predictions="drop")
    assert made.details["dropped_images"] == ["train/1.png"]
    assert "1 images are left out, since no foreground was predicted: train/1.png" in caplog.text
    assert len(made.splits["train"].labels) == 8
    assert "train/1.png" not in set(made.records["train"]["image"])


def test_what_is_left_out_may_not_empty_a_split(collection, predicted):
    for line in (11, 12, 13):
        collection.change(line, mask="")
        save(np.zeros((40, 48), np.uint8), predicted / collection.table["image"][line - 2])
    with pytest.raises(BenchError, match="has no image with split val"):
        make(predicted_masks=str(predicted), empty_predictions="drop")


def test_given_masks_without_foreground_are_never_left_out(collection):
    save(np.zeros((40, 48), np.uint8), collection.folder / "masks/train/0.png")
    with pytest.raises(BenchError, match=r"line 2: .* shows no foreground"):
        make(empty_predictions="drop")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda c, p: None, r"line 3: train/1\.png has no mask, nor have 1 others; make masks with"),
        (lambda c, p: (p / "train/1.png").unlink(), r"line 3: train/1\.png has no mask, and there is no predicted one"),
        (lambda c, p: save(lungs((40, 50)), p / "train/1.png"), r"line 3: the mask .*1\.png has 50 x 40 pixels, and"),
    ],
)  # fmt: skip
def test_missing_and_misfitting_predictions_are_named(collection, predicted, spoil, sentence):
    folder = None if "nor have" in sentence else str(predicted)
    spoil(collection, predicted)
    with pytest.raises(BenchError, match=sentence):
        make(predicted_masks=folder)


def test_two_images_may_not_share_a_prediction(collection, predicted):
    shutil.copy(collection.folder / "train/2.png", collection.folder / "train/1.jpg")
    collection.change(4, image="train/1.jpg", mask="")
    with pytest.raises(BenchError, match=r"lines 3 and 4: both images would have the mask .*train/1\.png; rename"):
        make(predicted_masks=str(predicted))


@pytest.mark.parametrize("where", ["root", "folder"])
def test_folders_of_data_may_be_links(collection, tmp_path, monkeypatch, where):
    if where == "root":
        (tmp_path / "link").symlink_to(collection.root)
        monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "link"))
    else:
        collection.folder.rename(tmp_path / "elsewhere")
        collection.folder.symlink_to(tmp_path / "elsewhere")
    assert len(make().splits["train"].labels) == 9


def test_prepared_data_hold_records_and_warnings(collection, tmp_path):
    config = configuration.check({"seeds": [0], "experiments": {"x": {"data": {"name": "xray", **GIVEN}}}}, "test")
    datasets.prepare("x", config, tmp_path / "out")
    info = datasets.info(tmp_path / "out")
    assert info["title"] == "chest X-rays of chests/manifest.csv"
    assert any("recall" in warning or "source" in warning for warning in info["warnings"])
    table = pd.read_csv(tmp_path / "out" / "swapped.csv")
    assert set(table["background_source"]) == {"away"}
    json.dumps(info, allow_nan=False)
    report = (tmp_path / "out" / "report.md").read_text()
    assert all(warning in report for warning in info["warnings"])
    assert not pd.read_csv(tmp_path / "out" / "class_by_source.csv").empty


def test_without_manifest_a_phantom_stands_in_loudly(root, caplog):
    made = make(phantom=PHANTOM)
    assert made.stand_in
    assert (made.name, made.title) == (
        "phantom",
        "generated chest phantom (stand-in for the X-rays of chests/manifest.csv)",
    )
    assert {name: len(arrays.labels) for name, arrays in made.splits.items()} == {
        "train": 6, "val": 3, "iid": 3, "ood": 3, "deceiving": 3
    }  # fmt: skip
    assert made.splits["iid"].images.shape[1:] == (1, SIZE, SIZE)
    assert "PHANTOM stands in" in caplog.text
    assert not root.exists()
    marked = make(phantom=PHANTOM, marks=MARKS)
    assert marked.background_changes == bias.CHANGES
    other = make(phantom=PHANTOM, seed=5)
    assert not np.array_equal(made.splits["train"].images, other.splits["train"].images)


def test_nothing_stands_in_where_that_is_forbidden(root):
    with pytest.raises(
        BenchError, match=r"there is no manifest .*chests/manifest\.csv; write one, or let ISNET_BENCH_DATA"
    ):
        make(phantom=None)


@pytest.mark.parametrize("name", ["chests", "chests/train", "chests/manifest.csv"])
def test_nothing_stands_in_for_a_broken_collection(root, name):
    (root / name).mkdir(parents=True)
    with pytest.raises(BenchError, match=r"the folder .*chests has no file manifest\.csv with the manifest; write one"):
        make()


def test_a_manifest_right_below_the_data_root_is_found_or_stood_in_for(root, collection):
    shutil.move(collection.folder, root.parent / "kept")
    assert make(manifest="manifest.csv", phantom=PHANTOM).stand_in
    (root.parent / "kept").rename(root / "chests")
    for path in (root / "chests").iterdir():
        path.rename(root / path.name)
    assert not make(manifest="manifest.csv").stand_in
