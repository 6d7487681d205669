"""Other backgrounds for the same foregrounds, and the base of the methods that train on such images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from baselines.base import Losses, Task, with_mask
from baselines.classifier import BackboneClassifier
from baselines.heatmaps import Share

Change = Callable[[Tensor, Tensor, Generator | None], Tensor]
"""Of images and masks: images of which only the foreground must be the same, drawn with a generator."""


@dataclass(frozen=True)
class Hyperparameters:
    """Of all methods that change backgrounds.

    Attributes
    ----------
    masked_weight : float
        Of the loss of images with a mask, where a batch also has images without one, whose backgrounds stay.
    """

    masked_weight: Share = 0.5


class ChangedBackgrounds(BackboneClassifier):
    """A backbone that learns from images with other backgrounds, by cross-entropy; methods differ in `change`."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters

    def change(self, images: Tensor, masks: Tensor, generator: Generator | None) -> Tensor:
        """Return images (N, C, H, W) of which only the foreground of masks (N, 1, H, W) must stay."""
        raise NotImplementedError

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        there = with_mask(masks)
        logits = self(changed(self.change, images, masks, drawer(self.training)))
        if bool(there.all()) or not bool(there.any()):
            loss = self.classification_loss(logits, labels)
        else:
            weight = self.hyperparameters.masked_weight
            loss = weight * self.classification_loss(logits[there], labels[there])
            loss = loss + (1 - weight) * self.classification_loss(logits[~there], labels[~there])
        return Losses(loss, {"classification": loss})


def changed(change: Change, images: Tensor, masks: Tensor, generator: Generator | None) -> Tensor:
    """Change those of images (N, C, H, W) whose mask, of masks (N, 1, H, W), is there; the others stay."""
    there = with_mask(masks)
    images = images.clone()
    images[there] = change(images[there], masks[there], generator)
    return images


def drawer(training: bool) -> Generator | None:
    """Return torch's global generator (None) for training; for validation one that always draws the same."""
    return None if training else Generator().manual_seed(0)


def on(images: Tensor, masks: Tensor, backgrounds: Tensor) -> Tensor:
    """Put the foregrounds of images (N, C, H, W) and masks (N, 1, H, W) on backgrounds (N, C, H, W)."""
    return masks * images + (1 - masks) * backgrounds


def filled(images: Tensor, masks: Tensor) -> Tensor:
    """Return images (N, C, H, W) whose foreground has the mean colour of their own background."""
    outside = 1 - masks
    mean = (outside * images).sum((2, 3), keepdim=True) / outside.sum((2, 3), keepdim=True).clamp(min=1)
    return outside * images + masks * mean


def swap(images: Tensor, masks: Tensor, generator: Generator | None = None) -> Tensor:
    """Give each of several images (N, C, H, W) the background of another one, its foreground filled."""
    # The order of a batch is random, so that the image some places further on is, too.
    step = int(torch.randint(1, max(2, len(images)), (), generator=generator))
    return on(images, masks, filled(images, masks).roll(step, 0))


def shuffled(images: Tensor, masks: Tensor, generator: Generator | None = None) -> Tensor:
    """Permute the background pixels of each image (N, C, H, W) at random."""
    background = masks.flatten(1) < 0.5
    draws = torch.rand(background.shape, generator=generator).to(images.device)
    # Background pixels come first in both orders, in one of them at random.
    order = (~background).byte().argsort(dim=1, stable=True)[:, None].expand_as(images.flatten(2))
    drawn = torch.where(background, draws, 2.0).argsort(dim=1, stable=True)[:, None].expand_as(order)
    pixels = images.flatten(2)
    return torch.empty_like(pixels).scatter(2, order, pixels.gather(2, drawn)).view_as(images)
