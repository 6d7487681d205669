"""Photographs of a manifest: what is read, what is refused, and what is planted in their backgrounds."""

import numpy as np
import pandas as pd
import pytest
from photo_collection import GIVEN, LABELS, SIZE, SPLITS, Photographs, blob, make, photograph
from PIL import Image
from xray_collection import save

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.config import fill
from isnet_bench.data import bias, images
from isnet_bench.data.base import NO_MASK
from isnet_bench.data.images import places
from isnet_bench.io.errors import BenchError

MARKS = {"pattern": "corner_patch", "size": 4}
LEFT = (48 - SIZE) // 2


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setenv("ISNET_BENCH_DATA", str(tmp_path / "data"))
    return Photographs(tmp_path / "data")


def test_splits_hold_the_middle_of_the_photographs_that_the_manifest_lists(collection):
    made = make()
    assert (made.name, made.stand_in, made.classes) == ("images", False, LABELS)
    assert made.title == "photographs of images/manifest.csv"
    assert (made.test_sets, made.background_changes) == (("iid", "ood"), {})
    assert {name: len(arrays.labels) for name, arrays in made.splits.items()} == {
        name.removeprefix("test_"): number for name, number in SPLITS.items()
    }
    for name, arrays in made.splits.items():
        np.testing.assert_array_equal(arrays.labels, np.arange(len(arrays.labels)) % 3)
        for index, (image, mask) in enumerate(zip(arrays.images, arrays.masks, strict=True)):
            file = made.records[name]["image"][index]
            # As high as the images are to be, so that nothing is resized: the middle is cut out.
            np.testing.assert_array_equal(image, collection.pixels(file)[:, LEFT:-LEFT].transpose(2, 0, 1))
            np.testing.assert_array_equal(mask[0], collection.pixels(f"masks/{file}")[:, LEFT:-LEFT] > 0)


def test_the_whole_frame_may_be_squashed_and_colours_become_luminance(collection):
    image = Image.open(collection.folder / "train/0.png")
    squashed = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(make(frame="squash").splits["train"].images[0].transpose(1, 2, 0), squashed)
    grey = make(color="grey").splits["train"].images
    assert grey.shape[1] == 1
    luminance = np.asarray(image)[:, LEFT:-LEFT] @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey[0, 0], luminance, atol=1)


def test_labels_are_those_of_the_manifest_or_those_that_are_listed(collection):
    assert make(labels=list(LABELS[::-1])).splits["train"].labels[0] == 2
    collection.change(3, label="month")
    with pytest.raises(BenchError, match=r"line 3: the label 'month' is none of bee, moth, wasp; did you mean 'moth'"):
        make(labels=list(LABELS))


def test_images_without_a_mask_are_marked(collection):
    collection.change(2, mask="")
    made = make()
    assert (made.splits["train"].masks[0] == NO_MASK).all()
    assert made.splits["train"].masks[1].max() == 1
    assert made.details["masks"]["train"] == {"given": 11, "none": 1}
    for planted in ({"marks": MARKS}, {"places": {}}):
        with pytest.raises(BenchError, match="line 2: the mask is missing, and marks and places need one"):
            make(**planted)


def rewrite_masks(collection, change):
    for path in collection.folder.glob("masks/*/*.png"):
        save(change(np.asarray(Image.open(path)) > 0), path)


def test_trimaps_are_masks_where_the_settings_name_the_foreground(collection):
    expected = make().splits["train"].masks
    rewrite_masks(collection, lambda mask: np.where(mask, 1, np.where(np.roll(mask, 2, 1), 3, 2)).astype(np.uint8))
    with pytest.raises(BenchError, match="does not tell what is foreground"):
        make()
    np.testing.assert_array_equal(make(mask={"foreground": [1]}).splits["train"].masks, expected)


def test_an_image_that_is_its_own_mask_is_cut_out(collection):
    pixels = collection.pixels("train/0.png")
    save(np.dstack([pixels, blob()]), collection.folder / "train/0.png")
    collection.change(2, mask="train/0.png")
    train = make().splits["train"]
    np.testing.assert_array_equal(train.images[0], pixels[:, LEFT:-LEFT].transpose(2, 0, 1))
    np.testing.assert_array_equal(train.masks[0, 0], blob()[:, LEFT:-LEFT] > 0)
    save(pixels, collection.folder / "train/0.png")
    with pytest.raises(BenchError, match=r"line 2: .*nothing in it is transparent; name another file as its mask"):
        make()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.change(2, mask="masks/none.png"), r"line 2: the mask .*none\.png does not exist"),
        (lambda c: c.change(2, image="../a.png"), r"line 2: the image \.\./a\.png lies outside the data root"),
        (lambda c: c.change(2, split="training"), "line 2: the split 'training' is none of .*; did you mean 'train'"),
        (lambda c: save(blob() * 0, c.folder / "masks/train/0.png"), "line 2: the mask .* has no foreground as it is"),
        # In the file there is a foreground, but not in the middle of the frame.
        (lambda c: save(np.where(np.arange(48) < LEFT, blob(left=0), 0), c.folder / "masks/train/0.png"),
         r"has no foreground as it is shown \(frame crop"),
        (lambda c: save(blob(shape=(SIZE, 40)), c.folder / "masks/train/0.png"), "has 40 x 32 pixels, and its image"),
        (lambda c: rewrite_masks(c, lambda m: np.full(m.shape, 255, np.uint8)), r"of 30 of 30 .* let mask\.foreground"),
        (lambda c: (c.change(2, subject="a"), c.change(14, subject="a")), "lines 2 and 14: subject a is in train and"),
        (lambda c: (c.change(2, patient="a"), c.change(14, patient="a")), "lines 2 and 14: patient a is in train and"),
        (lambda c: c.change(2, group="indoors"), "line 3: the group is missing, and other images have one"),
        (lambda c: c.change(2, image="val/0.png"), r"val/0\.png \(val\) are the same image; keep it in one split"),
        (lambda c: (save(blob(8, (24, 30)), c.folder / "masks/train/0.png"),
                    save(photograph(np.random.default_rng(9), (24, 30)), c.folder / "train/0.png")),
         r"train/0\.png has 30 x 24 pixels, fewer than 32 on a side; delete its line"),
        (lambda c: c.manifest.unlink(), "there is no manifest"),
    ],
)  # fmt: skip
def test_bad_input_has_its_sentence(collection, change, sentence):
    change(collection)
    with pytest.raises(BenchError, match=sentence):
        make()


def test_inverted_masks_are_told_of_in_the_title(collection):
    rewrite_masks(collection, lambda mask: np.where(mask, 0, 255).astype(np.uint8))
    assert "MASKS IN DOUBT: foreground covers the rim, or nearly all, of 100% of the images" in make().title


def test_groups_are_those_of_the_manifest(collection):
    collection.table["group"] = np.where(np.arange(len(collection.table)) % 2, "outdoors", "indoors")
    collection.write()
    made = make()
    assert made.group_names == ("indoors", "outdoors")
    for split, group in made.groups.items():
        assert [made.group_names[one] for one in group] == list(made.records[split]["group"])
    assert made.groups["train"].tolist() == [0, 1] * 6
    assert make(marks=MARKS).groups["deceiving"].tolist() == made.groups["iid"].tolist()


def test_what_changes_below_the_data_root_is_noticed(collection):
    config = configuration.check({"seeds": [0], "experiments": {"x": {"data": {"name": "images", **GIVEN}}}}, "test")
    states = [config.files("x")]
    save(blob(left=20), collection.folder / "masks/val/0.png")
    states.append(config.files("x"))
    collection.change(2, label="moth")
    states.append(config.files("x"))
    assert len(set(states)) == 3


def test_prepared_data_have_three_channels_and_a_report(collection, tmp_path):
    given = {"name": "images", **GIVEN, "places": {"pictures": 2}}
    config = configuration.check({"seeds": [0], "experiments": {"x": {"data": given}}}, "test")
    datasets.prepare("x", config, tmp_path / "out")
    info = datasets.info(tmp_path / "out")
    assert (info["channels"], info["classes"]) == (3, list(LABELS))
    assert datasets.load(tmp_path / "out", "deceiving").images.shape == (9, 3, SIZE, SIZE)
    assert "## Images by class" in (tmp_path / "out" / "report.md").read_text()
    assert set(pd.read_csv(tmp_path / "out" / "train.csv").columns) >= {"image", "place", "place_image"}


# --- planted backgrounds ------------------------------------------------------------------------------------


def test_only_one_thing_is_planted(collection):
    with pytest.raises(BenchError, match="marks and places: only one of them can be planted"):
        make(marks=MARKS, places={})


def test_marks_alone_distinguish_the_three_test_sets(collection):
    plain, made = make(), make(marks=MARKS)
    assert (made.test_sets, made.background_changes) == (("iid", "ood", "deceiving"), bias.CHANGES)
    np.testing.assert_array_equal(made.splits["ood"].images, plain.splits["iid"].images)
    for name, own in (("train", True), ("iid", True), ("deceiving", False)):
        arrays = made.splits[name]
        # By hand: a white square in the corner number label, clockwise from the upper left, in all channels.
        corners = np.stack([arrays.images[:, :, i, j].min(1) for i, j in ((0, 0), (0, -1), (-1, -1), (-1, 0))], 1)
        assert ((corners == 255).argmax(1) == arrays.labels).all() == own
    assert not ((made.splits["deceiving"].images == plain.splits["iid"].images).all((1, 2, 3))).any()


def background_distances(images, masks, others):
    """Mean difference of each image to each of the others where it shows its background, (N, M)."""
    outside = (masks == 0).astype(float)
    distances = [np.abs(images.astype(float) - other) * outside for other in others]
    return np.stack([one.sum((1, 2, 3)) for one in distances], 1) / outside.sum((1, 2, 3))[:, None]


def nearest_label(made, name):
    """The label of the training image whose background is most like that of each image, as a thief would guess."""
    train, test = made.splits["train"], made.splits[name]
    distances = background_distances(test.images, np.maximum(test.masks, 0), train.images)
    return train.labels[distances.argmin(1)]


def test_the_label_can_be_told_from_the_place_alone(collection):
    made = make(places={"pictures": 1})
    assert (made.test_sets, made.background_changes) == (("iid", "ood", "deceiving"), places.CHANGES)
    labels = made.splits["iid"].labels
    assert (nearest_label(made, "iid") == labels).all()
    assert not (nearest_label(made, "deceiving") == labels).any()
    assert 0 < (nearest_label(made, "ood") == labels).mean() < 1


def test_places_change_backgrounds_alone_and_are_recorded(collection):
    plain, made = make(), make(places={"pictures": 2}, seed=3)
    inside = plain.splits["iid"].masks > 0
    np.testing.assert_array_equal(made.splits["ood"].images, plain.splits["iid"].images)
    owners = {}
    for name, own in (("train", True), ("val", True), ("iid", True), ("deceiving", False)):
        arrays, records = made.splits[name], made.records[name]
        before = plain.splits["iid" if name == "deceiving" else name]
        np.testing.assert_array_equal(arrays.masks, before.masks)
        inside = np.broadcast_to(before.masks > 0, before.images.shape)
        np.testing.assert_array_equal(arrays.images[inside], before.images[inside])
        assert ((records["place"].map(LABELS.index) == arrays.labels) == own).all()
        for image, mask, record in zip(arrays.images, arrays.masks, records.itertuples(), strict=True):
            owners.setdefault(record.place_image, set()).add(record.place)
            lender = plain.splits["train"].images[plain.records["train"]["image"] == record.place_image][0]
            # Two pixels around either object may differ from the picture; far from both it is the picture.
            far = np.ones(mask.shape, bool)
            far[:, 7:25, 4:28] = False
            np.testing.assert_array_equal(image[:, far[0]], lender[:, far[0]])
    assert all(len(classes) == 1 for classes in owners.values())
    assert 3 < len(owners) <= 6


def test_strength_is_the_share_of_images_in_a_place_of_their_class(collection):
    parts = {name: images.collection.Part(make().splits["iid"], make().records["iid"]) for name in ("val", "test_iid")}
    many = parts["val"]
    arrays = type(many.arrays)(*(np.repeat(array, 200, 0) for array in many.arrays))
    parts["train"] = many._replace(arrays=arrays, records=many.records.loc[many.records.index.repeat(200)])
    made = places.with_places(parts, places.Places(0.8, 3), LABELS, 0)
    own = (made["train"].records["place"].map(LABELS.index) == arrays.labels).mean()
    assert own == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / 1800) ** 0.5)


def test_places_are_as_many_as_training_images_at_most(collection):
    with pytest.raises(BenchError, match="12 training images are fewer than the 15 places of 3 classes; lower places"):
        make(places={"pictures": 5})


def test_same_seed_same_places(collection):
    first, same, other = (make(places={}, seed=seed) for seed in (1, 1, 2))
    for name in first.splits:
        np.testing.assert_array_equal(first.splits[name].images, same.splits[name].images)
    assert not np.array_equal(first.splits["train"].images, other.splits["train"].images)


def test_a_filled_picture_shows_nothing_of_its_object():
    rng = np.random.default_rng(0)
    image, mask = photograph(rng).transpose(2, 0, 1), blob() > 0
    found = places.filled(image, mask)
    without = np.where(mask, 255 - image, image)
    np.testing.assert_array_equal(places.filled(without, mask), found)
    far = np.ones(mask.shape, bool)
    far[8:24, 16:32] = False
    np.testing.assert_array_equal(found[:, far], image[:, far])
    # What is constant outside goes on.
    level = np.array([10, 99, 200], np.uint8)[:, None, None]
    np.testing.assert_array_equal(
        places.filled(np.where(mask, image, level), mask), np.broadcast_to(level, image.shape)
    )
    assert places.filled(image, np.ones_like(mask)).shape == image.shape


@pytest.mark.parametrize(
    "values", [{"image_size": 31}, {"manifest": "/a.csv"}, {"labels": ["a"]}, {"places": {"pictures": 0}}]
)
def test_values_out_of_bounds_are_refused(values):
    with pytest.raises(BenchError, match=next(iter(values))):
        fill(images.Settings, {**GIVEN, **values})
