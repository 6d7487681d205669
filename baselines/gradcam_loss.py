"""Grad-CAM background penalty: the simplest supervision of attention, the share of Grad-CAM that lies outside the mask.

Grad-CAM: Selvaraju et al., ICCV 2017. Penalising it where it should not be: Schramowski et al., "Making deep
neural networks right for the right scientific reasons by interacting with their explanations", Nature Machine
Intelligence 2, 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from baselines import checks
from baselines.base import Losses, Method, Task
from baselines.classifier import BackboneClassifier
from baselines.gradcam import attention_maps, find_layer

__all__ = ["METHOD", "GradCAMLoss", "Hyperparameters", "background_share"]

_TINY = 1e-8


@dataclass(frozen=True)
class Hyperparameters:
    """Of the Grad-CAM background penalty.

    Attributes
    ----------
    weight : float
        Of the penalty, beside cross-entropy.
    layer : str or None
        Module whose output is explained; None: see `baselines.gradcam.find_layer`.
    """

    weight: float = 1.0
    layer: str | None = None

    def __post_init__(self) -> None:
        checks.at_least(0, weight=self.weight)


class GradCAMLoss(BackboneClassifier):
    """A backbone whose Grad-CAM of the true class must lie on the foreground."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.weight = hyperparameters.weight
        self.layer = find_layer(self.backbone, task, hyperparameters.layer)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        logits, maps = attention_maps(self.backbone, self.layer, images, labels)
        classification = self.classification_loss(logits, labels)
        background = background_share(maps, masks)
        return Losses(
            classification + self.weight * background, {"classification": classification, "background": background}
        )


def background_share(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of maps (N, 1, H, W), >= 0, outside of masks of the same shape, in [0, 1], averaged over images."""
    outside = (maps * (1 - masks)).sum((1, 2, 3))
    return (outside / (maps.sum((1, 2, 3)) + _TINY)).mean()


def _build(task: Task, hyperparameters: Hyperparameters, ranges: Mapping[str, Any] | None) -> GradCAMLoss:
    return GradCAMLoss(task, hyperparameters)


METHOD = Method("gradcam_loss", "Grad-CAM background penalty", Hyperparameters, _build)
