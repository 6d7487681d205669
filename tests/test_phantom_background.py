"""Backgrounds of the generated chest phantom: sources that give the label away, and marks in the corner."""

import dataclasses

import numpy as np
import pytest
import small_phantoms
from sklearn.linear_model import LogisticRegression
from small_phantoms import TEST_SETS, make

from isnet_bench.data import bias
from isnet_bench.data.phantom import background as phantom_background

made = small_phantoms.made


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
