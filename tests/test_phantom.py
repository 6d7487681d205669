"""The generated chest phantom: exact masks, diseases inside, and what depends on what."""

import numpy as np
import pytest
import small_phantoms
from scipy import ndimage
from sklearn.linear_model import LogisticRegression
from small_phantoms import TEST_SETS, make

from isnet_bench.data import phantom

NORMAL, PNEUMONIA, COVID = range(3)

made = small_phantoms.made


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


def test_noise_is_what_was_asked_for():
    quiet, loud = (make(noise=level, variation=0.0, disease_contrast=0.0).splits["iid"] for level in (0.0, 0.05))
    inside = quiet.masks > 0
    assert (loud.images.astype(float) - quiet.images)[inside].std() / 255 == pytest.approx(0.05, rel=0.05)
    assert (loud.images.astype(float) - quiet.images)[~inside].std() > 0.02 * 255


def test_it_is_called_a_phantom(made):
    assert made.name == "phantom"
    assert made.title == "generated chest phantom"
    assert not made.stand_in
    assert all((table["mask_origin"] == "exact").all() for table in made.records.values())
