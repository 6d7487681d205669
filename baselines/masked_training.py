"""Masked training: the background of training images is erased, that of test images is not ("early masking").

Aniraj, Dantas, Ienco, Marcos, "Masking Strategies for Background Bias Removal in Computer Vision Models", ICCV
Workshops 2023. They erase it always; here with a probability, since the classifier must also bear whole images.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor

from baselines import backgrounds
from baselines.base import Method
from baselines.heatmaps import Share


@dataclass(frozen=True)
class Hyperparameters(backgrounds.Hyperparameters):
    """Of masked training.

    Attributes
    ----------
    probability : float
        With which the background of an image is erased.
    """

    probability: Share = 0.5


class MaskedTraining(backgrounds.ChangedBackgrounds):
    """Minimises the cross-entropy of ``mask * x``, or of x for some of the images."""

    def change(self, images: Tensor, masks: Tensor, generator: Generator | None) -> Tensor:
        """Erase the background of some images (N, C, H, W) with masks (N, 1, H, W)."""
        erased = torch.rand(len(images), 1, 1, 1, generator=generator) < self.hyperparameters.probability
        return torch.where(erased.to(images.device), masks * images, images)


METHOD = Method("masked_training", "Masked training", Hyperparameters, MaskedTraining, kept="backbone")
