"""The generated chest phantom: exact masks, diseases inside, sources outside, and what depends on what."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench.data import bias, phantom, phantom_background
from isnet_bench.errors import BenchError

TEST_SETS = ("iid", "ood", "deceiving")
NORMAL, PNEUMONIA, COVID = range(3)


def make(**changes):
    sizes = {"train_images": 6, "val_images": 3, "test_images": 24, "image_size": 48}
    return phantom.make(phantom.Settings(**{**sizes, **changes}))


@pytest.fixture(scope="module")
def made():
    """Phantoms in number enough to learn from."""
    return make(train_images=300, test_images=150, image_size=32)


def components(mask):
    """The parts of a mask (H, W), numbered, in reading order of the columns: the image's left lung first."""
    parts, number = ndimage.label(mask)
    order = np.argsort([np.nonzero(parts == part)[1].mean() for part in range(1, number + 1)])
    return [parts == 1 + part for part in order]


@pytest.mark.parametrize("image_size", [32, 64, 224])
def test_every_size_has_two_lungs_in_the_picture(image_size):
    arrays = make(image_size=image_size, train_images=3, test_images=4).splits["iid"]
    assert arrays.images.shape == arrays.masks.shape == (4, 1, image_size, image_size)
    assert (arrays.images.dtype, arrays.masks.dtype, arrays.labels.dtype) == (np.uint8, np.uint8, np.int64)
    assert set(np.unique(arrays.masks)) == {0, 1}
    for mask in arrays.masks[:, 0]:
        lungs = [part for part in components(mask) if part.sum() > 0.02 * mask.size]
        assert len(lungs) == 2
        assert all(0.04 < lung.mean() < 0.25 for lung in lungs)
    assert not arrays.masks[:, :, [0, -1]].any()
    assert not arrays.masks[:, :, :, [0, -1]].any()


def test_masks_of_two_sizes_agree_at_common_pixel_centres():
    small, large = (make(image_size=size, test_images=6).splits["iid"].masks for size in (32, 96))
    np.testing.assert_array_equal(small, large[:, :, 1::3, 1::3])


def test_lungs_are_darker_than_what_is_around_them():
    arrays = make(disease_contrast=0.0, noise=0.0, image_size=64).splits["iid"]
    for image, mask in zip(arrays.images[:, 0], arrays.masks[:, 0] > 0, strict=True):
        around = ndimage.binary_dilation(mask, iterations=4) & ~mask
        assert image[mask].mean() < 0.8 * image[around].mean()


def test_masks_are_where_the_background_may_not_reach(made):
    iid, deceiving = made.splits["iid"], made.splits["deceiving"]
    differs = iid.images != deceiving.images
    assert not differs[iid.masks > 0].any()
    assert differs[iid.masks == 0].mean() > 0.8


@pytest.mark.parametrize("kind", ["source", "shape"])
def test_test_sets_show_the_same_lungs_in_the_same_order(kind):
    made = make(bias=kind, strength=0.7)
    first = made.splits["iid"]
    for name in ("ood", "deceiving"):
        other = made.splits[name]
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_array_equal(other.masks, first.masks)
        np.testing.assert_array_equal(other.images * other.masks, first.images * first.masks)
        assert (other.images != first.images).any()
    for before, after in made.background_changes.values():
        assert {before, after} <= set(TEST_SETS)


def test_bodies_differ_unless_they_are_not_to():
    assert len(np.unique(make().splits["iid"].masks, axis=0)) == 24
    assert len(np.unique(make(variation=0.0).splits["iid"].masks, axis=0)) == 1


def test_classes_are_equally_frequent(made):
    assert made.classes == ("normal", "pneumonia", "covid19")
    for arrays in made.splits.values():
        assert np.ptp(np.bincount(arrays.labels, minlength=3)) <= 1
    assert (np.diff(made.splits["train"].labels) != 0).any()


def same(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_seed_decides():
    first, again, other = make(seed=3), make(seed=3), make(seed=4)
    for name, arrays in first.splits.items():
        assert same(arrays, again.splits[name])
        assert first.records[name].equals(again.records[name])
        assert not np.array_equal(arrays.images, other.splits[name].images)
    assert not np.array_equal(first.splits["train"].masks[:3], first.splits["val"].masks)


def test_a_split_does_not_depend_on_the_size_of_another():
    first, other = make(), make(train_images=9)
    assert all(same(first.splits[name], other.splits[name]) for name in ("val", *TEST_SETS))


def test_images_are_drawn_in_pieces_that_do_not_show(monkeypatch):
    whole = make(noise=0.0, disease_contrast=0.0)
    monkeypatch.setattr(phantom, "_CHUNK_PIXELS", 5 * 48**2)
    pieces = make(noise=0.0, disease_contrast=0.0)
    for name, arrays in whole.splits.items():
        np.testing.assert_array_equal(arrays.masks, pieces.splits[name].masks)
        # Vessels and haze are drawn piece by piece; all the rest is the same.
        assert abs(arrays.images.astype(float) - pieces.splits[name].images).mean() < 5


def shadows(image_size=64, **changes):
    """Grey levels that the disease adds (N, H, W), the masks, and the labels."""
    with_, without = (
        make(disease_contrast=contrast, noise=0.0, image_size=image_size, **changes).splits["iid"]
        for contrast in (0.35, 0.0)
    )
    return with_.images[:, 0].astype(int) - without.images[:, 0], with_.masks[:, 0] > 0, with_.labels


def test_diseases_are_inside_the_lungs_and_nowhere_else():
    added, masks, labels = shadows()
    assert (added[~masks] == 0).all()
    assert (added[labels == NORMAL] == 0).all()
    assert (added >= 0).all()
    for label in (PNEUMONIA, COVID):
        assert (added[labels == label].max((1, 2)) > 15).all()
        assert 5 < added[labels == label].max((1, 2)).mean() < 200


def test_pneumonia_is_on_one_side_and_covid19_on_both():
    added, masks, labels = shadows(test_images=45)
    middle = masks.shape[2] // 2
    for image, mask, label in zip(added, masks, labels, strict=True):
        lungs = [part for part in components(mask) if part.sum() > 0.02 * mask.size]
        assert lungs[0].nonzero()[1].mean() < middle < lungs[1].nonzero()[1].mean()
        ill = sum(bool((image[lung] > 3).any()) for lung in lungs)
        assert ill == (0, 1, 2)[label]


def test_covid19_is_nearer_to_the_chest_wall():
    added, masks, labels = shadows(test_images=45)
    from_spine = abs(np.arange(64) - np.array([[np.nonzero(mask)[1].mean()] for mask in masks]))[:, None, :]

    def mean_distance(label):
        weights = added[labels == label]
        return (weights * from_spine[labels == label]).sum() / weights.sum()

    assert mean_distance(COVID) > mean_distance(PNEUMONIA) + 1


def test_diseases_can_be_told_from_the_lungs_alone():
    made = make(train_images=600, test_images=300, image_size=32)
    features = {name: lung_features(made.splits[name]) for name in ("train", "iid")}
    model = LogisticRegression(max_iter=3000).fit(features["train"], made.splits["train"].labels)
    assert model.score(features["iid"], made.splits["iid"].labels) > 0.6


def lung_features(arrays):
    """Of each third of either lung: mean and spread of its grey levels, and how both differ between the lungs."""
    levels = arrays.images[:, 0] / 255
    halves = np.arange(levels.shape[2]) < levels.shape[2] / 2
    thirds = np.array_split(np.arange(levels.shape[1]), 3)
    parts = []
    for rows in (np.isin(np.arange(levels.shape[1]), third) for third in thirds):
        for columns in (halves, ~halves):
            weights = arrays.masks[:, 0] * np.outer(rows, columns)
            total = weights.sum((1, 2)) + 1e-9
            mean = (levels * weights).sum((1, 2)) / total
            parts.append([mean, np.sqrt(((levels - mean[:, None, None]) ** 2 * weights).sum((1, 2)) / total)])
    stacked = np.array(parts).transpose(2, 0, 1)
    difference = abs(stacked[:, ::2] - stacked[:, 1::2])
    features = np.concatenate([stacked, difference], axis=1).reshape(len(levels), -1)
    return (features - features.mean(0)) / features.std(0)


def test_background_gives_the_label_away_until_the_source_changes(made):
    train = made.splits["train"]
    model = LogisticRegression(max_iter=300).fit(backgrounds(train), train.labels)
    accuracy = {name: model.score(backgrounds(made.splits[name]), made.splits[name].labels) for name in TEST_SETS}
    assert accuracy["iid"] > 0.95
    assert 0.15 < accuracy["ood"] < 0.55
    assert accuracy["deceiving"] < 0.05


def backgrounds(arrays):
    """Grey levels outside the lungs, and 0 inside."""
    return (arrays.images * (1 - arrays.masks)).reshape(len(arrays.labels), -1) / 255


NEUTRAL = {
    "letter_x": 0.9,
    "letter_y": 0.1,
    "letter_size": 0.1,
    "letter_level": 1.0,
    "gamma": 1.0,
    "gain": 1.0,
    "noise": 1.0,
}


def around(**changes):
    """A flat grey image (64, 64), far from all lungs, with a background of the first source, but for these traits."""
    names = [field.name for field in dataclasses.fields(phantom_background.Source) if field.default == (0.0, 0.0)]
    other = ["offset", "across", "down", "corners", "grain"]
    values = {**dict.fromkeys([*names, *other], 0.0), **NEUTRAL, **changes}
    traits = phantom_background.Traits(
        np.array([0]), np.array([0]), {name: np.float32([value]) for name, value in values.items()}
    )
    noise = 0.02 * np.random.default_rng(0).standard_normal((1, 64, 64)).astype(np.float32)
    flat = np.full((1, 64, 64), 0.5, np.float32)
    return phantom_background.render(flat, -flat, noise, traits)[0]


def test_exposure_follows_the_traits():
    plain = around()
    free = np.s_[16:, :48]
    assert plain[free].mean() == pytest.approx(0.5, abs=0.002)
    assert around(gamma=2.0)[free].mean() == pytest.approx(0.25, abs=0.002)
    assert around(gain=0.8, offset=0.2)[free].mean() == pytest.approx(0.6, abs=0.002)
    across, down, corners = (around(**{name: 0.1})[free] - plain[free] for name in ("across", "down", "corners"))
    assert np.ptp(across, axis=0).max() < 1e-5 < np.diff(across[0]).min()
    assert np.ptp(down, axis=1).max() < 1e-5 < np.diff(down[:, 0]).min()
    assert corners[16, 32] < 0.001 < 0.15 < corners[-1, 0]


def test_noise_and_borders_follow_the_traits():
    plain = around()
    free = np.s_[16:, :48]
    assert around(noise=2.0)[free].std() == pytest.approx(2 * plain[free].std(), rel=0.01)
    grainy = around(grain=1.0)[free]
    assert grainy.std() == pytest.approx(plain[free].std(), rel=0.15)
    assert abs(np.diff(grainy)).mean() < 0.7 * abs(np.diff(plain[free])).mean()
    for name, black in (("left", np.s_[:, :5]), ("top", np.s_[:5]), ("right", np.s_[:, -5:]), ("bottom", np.s_[-5:])):
        bordered = around(letter_x=0.5, letter_y=0.5, **{name: 0.1})
        assert bordered[black].max() < 0.1
        assert (bordered < 0.1).mean() < 0.12


def test_marker_follows_the_traits():
    plain, small = around(), around(letter_size=0.08)
    for image, height in ((plain, 6), (small, 5)):
        rows, columns = np.nonzero(image > 0.75)
        assert abs(np.ptp(rows) + 1 - height) <= 1
        assert rows.mean() == pytest.approx(6, abs=1.5)
        assert columns.mean() == pytest.approx(57, abs=1.5)
    letter = plain > 0.95
    assert letter.sum() >= 6
    assert around(letter_level=0.8)[letter] == pytest.approx(0.8, abs=0.05)


def test_sources_follow_the_class_in_training_alone(made):
    names = np.array([source.name for source in phantom_background.SOURCES])
    assert len(set(names)) == len(names) == 6
    for name in ("train", "val", "iid"):
        assert (made.records[name]["source"] == names[made.splits[name].labels]).all()
    ood, labels = made.records["ood"]["source"], made.splits["ood"].labels
    assert set(ood) == set(names[3:])
    for label in range(3):
        assert set(ood[labels == label]) == set(names[3:])
    deceiving = made.records["deceiving"]["source"]
    assert set(deceiving) == set(names[:3])
    assert (deceiving != names[labels]).all()


@pytest.mark.parametrize("kind", ["source", "shape"])
def test_strength_is_the_probability_of_the_own_background(kind):
    made = make(strength=0.6, train_images=200, val_images=200, test_images=100, image_size=32, bias=kind)
    column, names = ("source", ["archive", "clinic", "ward"]) if kind == "source" else ("mark", list(bias.SHAPES))
    for name in ("train", "val", "iid"):
        own = np.array(names)[made.splits[name].labels]
        assert (made.records[name][column] == own).mean() == pytest.approx(0.6, abs=0.1)
        assert set(made.records[name][column]) == set(names)
    assert (made.records["deceiving"][column] != np.array(names)[made.splits["deceiving"].labels]).all()


@pytest.mark.parametrize(
    ("traits", "least", "most"),
    [(["marker"], 0.005, 0.1), (["borders"], 0.03, 0.4), (["exposure"], 0.6, 1), (["noise"], 0.4, 1), ([], 0, 0)],
)
def test_only_these_traits_go_with_the_source(traits, least, most):
    made = make(traits=traits, test_images=12)
    iid, outside = made.splits["iid"], made.splits["iid"].masks == 0
    for name in ("ood", "deceiving"):
        differs = iid.images != made.splits[name].images
        assert least <= differs[outside].mean() <= most
        assert (made.records[name]["source"] != made.records["iid"]["source"]).all()


def test_a_marker_brings_its_own_letters():
    own, other = (phantom_background.draw(np.full(2, source), np.random.default_rng(source)) for source in (0, 2))
    mixed = phantom_background.mix(own, other, ["noise", "borders"])
    assert (mixed.sources.tolist(), mixed.markers.tolist()) == ([0, 0], [2, 2])
    assert phantom_background.mix(own, other, ["marker"]).markers.tolist() == [0, 0]
    for group, names in phantom_background.GROUPS.items():
        expected = own if group in ("noise", "borders") else other
        assert all((mixed.values[name] == expected.values[name]).all() for name in names)


def test_shapes_are_the_only_bias():
    made = make(bias="shape", mark_size=7, test_images=60)
    iid, ood, deceiving = (made.splits[name] for name in TEST_SETS)
    marks = bias.make_marks(bias.Bias("corner_shape", 1.0, 7), 3, 48)
    np.testing.assert_array_equal(iid.images, bias.apply(ood.images, ood.masks, marks, ood.labels))
    np.testing.assert_array_equal(iid.images[:, 0, :7, :7], marks.levels[iid.labels, :7, :7])
    which = (deceiving.images[:, None, 0, :7, :7] == marks.levels[None, :, :7, :7]).all((2, 3)).argmax(1)
    np.testing.assert_array_equal(deceiving.images, bias.apply(ood.images, ood.masks, marks, which))
    assert (which != deceiving.labels).all()
    sources = made.records["iid"]["source"]
    assert all(set(sources[iid.labels == label]) == {"archive", "clinic", "ward"} for label in range(3))
    assert made.records["ood"]["source"].equals(sources)
    assert set(made.records["ood"]["mark"]) == {""}
    assert made.background_changes == bias.CHANGES


@pytest.mark.parametrize(("image_size", "expected"), [(32, 6), (64, 8), (96, 12)])
def test_shapes_fill_an_eighth_unless_told_otherwise(image_size, expected):
    made = make(bias="shape", image_size=image_size, test_images=3)
    changed = (made.splits["iid"].images != made.splits["ood"].images).any((0, 1))
    assert np.argwhere(changed).max() == expected - 1


def test_noise_is_what_was_asked_for():
    quiet, loud = (make(noise=level, variation=0.0, disease_contrast=0.0).splits["iid"] for level in (0.0, 0.05))
    inside = quiet.masks > 0
    assert (loud.images.astype(float) - quiet.images)[inside].std() / 255 == pytest.approx(0.05, rel=0.05)
    assert (loud.images.astype(float) - quiet.images)[~inside].std() > 0.02 * 255


def test_it_is_called_a_phantom(made):
    assert made.name == "phantom"
    assert made.title == "generated chest phantom"
    assert not made.stand_in
    assert "phantom" in datasets.names()
    assert not [name for name in datasets.names() if name.startswith("phantom_")]
    assert all((table["mask_origin"] == "exact").all() for table in made.records.values())
    assert {name: len(table) for name, table in made.records.items()} == {
        name: len(arrays.labels) for name, arrays in made.splits.items()
    }


def checked(**given):
    section = {"name": "phantom", "train_images": 6, "val_images": 3, "test_images": 3, "image_size": 32, **given}
    return configuration.check({"seeds": [0], "experiments": {"chest": {"data": section}}}, "the test's configuration")


def test_it_can_be_prepared_and_loaded(tmp_path):
    datasets.prepare("chest", checked(bias="shape"), tmp_path)
    info = json.loads((tmp_path / "data.json").read_text(encoding="utf-8"))
    assert info["title"] == "generated chest phantom"
    assert info["background_changes"]["mark removed"] == ["iid", "ood"]
    assert info["settings"] == {**dataclasses.asdict(phantom.Settings()), **info["settings"]}
    assert datasets.load(tmp_path, "ood").images.shape == (3, 1, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": 2}, "train_images must be at least 3, not 2"),
        ({"val_images": 0}, "val_images must be at least 3, not 0"),
        ({"test_images": 1}, "test_images must be at least 3, not 1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"image_size": 31}, "image_size must be at least 32, not 31"),
        ({"strength": 1.1}, r"strength must lie in \[0, 1\], not 1.1"),
        ({"noise": -0.1}, r"noise must lie in \[0, 1\], not -0.1"),
        ({"disease_contrast": 2.0}, r"disease_contrast must lie in \[0, 1\], not 2.0"),
        ({"variation": float("inf")}, r"variation must lie in \[0, 1\], not inf"),
        ({"bias": "colour"}, "bias must be source or shape, not 'colour'"),
        ({"traits": ("noise", "crop")}, "traits may be marker, borders, exposure, noise, not crop"),
        ({"mark_size": 5}, "mark_size must lie between 6 and 10 pixels, a sixth of image_size, not 5"),
        ({"mark_size": 11}, "mark_size must lie between 6 and 10 pixels, a sixth of image_size, not 11"),
        ({"mark_size": 7, "image_size": 32}, "mark_size must lie between 6 and 6 pixels"),
    ],
)
def test_impossible_settings_are_refused(change, message):
    with pytest.raises(BenchError, match=message):
        phantom.Settings(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 16}, "experiments.chest.data.*image_size must be at least 32"),
        ({"contrast": 1}, "unknown key 'contrast' in experiments.chest.data; known keys: bias, disease_contrast"),
        ({"bias": "colour"}, "experiments.chest.data.bias: .*'source' or 'shape'"),
        ({"traits": ["crop"]}, r"experiments.chest.data.traits.0: .*'marker', 'borders', 'exposure' or 'noise'"),
    ],
)
def test_the_configuration_names_the_key(change, message):
    with pytest.raises(BenchError, match=message):
        checked(**change)
