"""Augmentation: images and masks move together, colours change alone, and the same seed gives the same training."""

import numpy as np
import pytest
import torch
from test_recipe import fit, some
from torch import nn

import isnet
from isnet_bench.config import Augmentation
from isnet_bench.io.errors import BenchError
from isnet_bench.training.augmentation import Augment

SIDE = 12


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def pairs(images=64):
    """Images that show their masks, of which each has a foreground of its own."""
    masks = (torch.rand(images, 1, SIDE, SIDE) > 0.7).float()
    return masks.repeat(1, 3, 1, 1) * torch.tensor([1.0, 0.5, 0.25])[:, None, None], masks


def test_left_and_right_change_places_in_images_and_masks():
    images, masks = pairs()
    changed = Augment(Augmentation(flip=1.0))(images, masks)
    np.testing.assert_array_equal(changed[0], images.flip(3))
    np.testing.assert_array_equal(changed[1], masks.flip(3))


def test_a_share_of_the_images_is_flipped():
    images, masks = pairs(400)
    flipped = (Augment(Augmentation(flip=0.25))(images, masks)[1] != masks).flatten(1).any(1)
    assert flipped.float().mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / 400) ** 0.5)


def test_images_and_masks_are_shifted_together_and_mirrored_at_the_edge():
    images, masks = pairs()
    changed, moved = Augment(Augmentation(shift=2))(images, masks)
    np.testing.assert_array_equal(changed[:, :1], moved)
    found = set()
    for mask, one in zip(masks[:, 0].numpy(), moved[:, 0].numpy(), strict=True):
        wide = np.pad(mask, 2, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(wide, (SIDE, SIDE))
        fits = np.argwhere((windows == one).all((2, 3)))
        assert len(fits)
        found.add(tuple(fits[0]))
    assert len(found) > 15, "of 25 shifts"


def test_colours_change_alone_and_each_images_own():
    images, masks = pairs()
    changed, same = Augment(Augmentation(color=0.2))(images, masks)
    np.testing.assert_array_equal(same, masks)
    assert ((changed != images).flatten(1).any(1)).all()
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len(changed.flatten(1).amax(1).unique()) > 10


def test_a_foreground_never_leaves_the_frame():
    masks = torch.zeros(200, 1, SIDE, SIDE)
    masks[:, :, 0, 0] = 1
    changed, moved = Augment(Augmentation(shift=6))(masks.clone(), masks)
    assert moved.flatten(1).any(1).all()
    np.testing.assert_array_equal(changed, moved)


def test_images_without_a_mask_stay_without():
    images, masks = pairs(8)
    masks[:4] = torch.nan
    changed, moved = Augment(Augmentation(flip=1.0, shift=1))(images, masks)
    assert moved[:4].isnan().all()
    assert not moved[4:].isnan().any()
    assert (changed != images).flatten(1).any(1).all()


def test_a_shift_is_less_than_the_side():
    with pytest.raises(BenchError, match=r"augmentation\.shift must be less than the image's side, 12, not 12"):
        Augment(Augmentation(shift=12))(*pairs(1))


class Watching(nn.Module):
    """Keeps what it is trained and validated on."""

    def __init__(self):
        super().__init__()
        self.p, self.seen = nn.Parameter(torch.tensor(1.0)), {True: [], False: []}

    def forward(self, images):
        return self.p * torch.ones(len(images), 2)

    def training_loss(self, images, masks, labels):
        self.seen[self.training].append(images)
        return isnet.Losses(self.p**2, {"classification": self.p**2})


def test_training_images_alone_are_changed_and_the_same_way_with_the_same_seed(tmp_path):
    split, seen = some(), []
    for number, augmentation in enumerate([{"shift": 3}, {"shift": 3}, None]):
        module = Watching()
        fit(module, split, tmp_path / str(number), epochs=2, augmentation=augmentation)
        np.testing.assert_array_equal(torch.cat(module.seen[False])[:8], split.images)
        seen.append(torch.cat(module.seen[True]))
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).flatten(1).any(1).float().mean() > 0.9
    assert not torch.equal(seen[0][:8].sort(0)[0], seen[0][8:].sort(0)[0]), "each epoch has other shifts"
