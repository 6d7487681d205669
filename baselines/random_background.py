"""Random backgrounds: each foreground is learnt on noise, on a colour, or on its own background in disorder.

Chang, Adam, Goldenberg, "Towards Robust Classification Model by Counterfactual and Invariant Data Generation", CVPR
2021: the invariant ("factual") half of their data. Their noise is a colour with normal noise of standard deviation 0.2;
here it is uniform. They shuffle the pixels of a whole batch; here it is patches of one image.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from pydantic.dataclasses import dataclass
from torch import Generator, Tensor
from torch.nn import functional as F

from baselines import backgrounds
from baselines.base import Method, Task


@dataclass(frozen=True)
class Hyperparameters(backgrounds.Hyperparameters):
    """Of random backgrounds.

    Attributes
    ----------
    fill : {"noise", "color", "patches"}
        Uniform noise; one uniformly drawn colour for each image; square patches of the image's own background, whose
        foreground has its mean colour, in random order.
    patch : int
        Side of the patches in pixels, a divisor of the image's.
    """

    fill: Literal["noise", "color", "patches"] = "color"
    patch: PositiveInt = 4


class RandomBackground(backgrounds.ChangedBackgrounds):
    """Minimises the cross-entropy of ``mask * x + (1 - mask) * random background``."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task, hyperparameters)
        if hyperparameters.fill == "patches" and task.image_size % hyperparameters.patch:
            raise ValueError(f"patch must divide the image's side {task.image_size}, not be {hyperparameters.patch}")

    def change(self, images: Tensor, masks: Tensor, generator: Generator | None) -> Tensor:
        """Draw new backgrounds for images (N, C, H, W) with masks (N, 1, H, W)."""
        if self.hyperparameters.fill == "patches":
            filled = backgrounds.filled(images, masks)
            return backgrounds.on(images, masks, shuffled_patches(filled, self.hyperparameters.patch, generator))
        size = images.shape if self.hyperparameters.fill == "noise" else (*images.shape[:2], 1, 1)
        return backgrounds.on(images, masks, torch.rand(size, generator=generator).to(images))


def shuffled_patches(images: Tensor, side: int, generator: Generator | None = None) -> Tensor:
    """Cut each image (N, C, H, W) into squares and put them together in random order."""
    patches = F.unfold(images, side, stride=side)
    order = torch.rand(len(images), 1, patches.shape[2], generator=generator).argsort(2).to(images.device)
    return F.fold(patches.gather(2, order.expand_as(patches)), images.shape[2:], side, stride=side)


METHOD = Method("random_background", "Random background", Hyperparameters, RandomBackground, kept="backbone")
