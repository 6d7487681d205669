"""Oracle: a classifier that is trained and tested on images of which only the true foreground is left.

No method of the benchmark can have this at test time: it is the ceiling for those that must find the foreground
themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from baselines.base import Losses, Method, Task
from baselines.classifier import Classifier

__all__ = ["METHOD", "Hyperparameters", "MaskedInput"]


@dataclass(frozen=True)
class Hyperparameters:
    """The oracle has none of its own."""


class MaskedInput(Classifier):
    """A backbone behind the multiplication with the true mask.

    Attributes
    ----------
    needs_masks : bool
        True: whoever classifies with this module must call ``module(images, masks)``.
    classifier : nn.Module
        Of what is `visible` of the images.
    """

    needs_masks = True

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.classifier = task.make_backbone()

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Classify images (N, C, H, W) on the foreground of masks (N, 1, H, W); without masks, images as they are.

        The call without masks is for images of which the background was removed before.
        """
        return self.classifier(images if masks is None else self.visible(images, masks))

    def visible(self, images: Tensor, masks: Tensor) -> Tensor:
        """Return what the classifier sees of images (N, C, H, W), given masks (N, 1, H, W)."""
        return images * self.visible_part(images, masks)

    def visible_part(self, images: Tensor, masks: Tensor) -> Tensor:
        """Return where the classifier sees the images, 1 = visible: the masks (N, 1, H, W) themselves."""
        return masks

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Cross-entropy of labels (N,), given the foreground of images (N, C, H, W) and masks (N, 1, H, W)."""
        loss = self.classification_loss(self(images, masks), labels)
        return Losses(loss, {"classification": loss})


def _build(task: Task, hyperparameters: Hyperparameters, ranges: Mapping[str, Any] | None) -> MaskedInput:
    return MaskedInput(task)


METHOD = Method("masked_input", "Foreground only (oracle)", Hyperparameters, _build, oracle=True)
