"""Grad-CAM background penalty: the simplest supervision of attention, the share of Grad-CAM that lies outside the mask.

Grad-CAM: Selvaraju et al., ICCV 2017. Penalising it where it should not be: Schramowski et al., "Making deep
neural networks right for the right scientific reasons by interacting with their explanations", Nature Machine
Intelligence 2, 2020.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier
from baselines.gradcam import attention_maps, find_layer

_TINY = 1e-8


@dataclass(frozen=True)
class Hyperparameters:
    """Weight of the penalty, and the module whose output is explained; None: see `baselines.gradcam.find_layer`."""

    weight: NonNegativeFloat = 1.0
    layer: str | None = None


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
        background = of_masked(background_share, maps, masks)
        return Losses(
            classification + self.weight * background, {"classification": classification, "background": background}
        )


def background_share(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of maps (N, 1, H, W), >= 0, outside of masks of the same shape, in [0, 1], averaged over images."""
    outside = (maps * (1 - masks)).sum((1, 2, 3))
    return (outside / (maps.sum((1, 2, 3)) + _TINY)).mean()


METHOD = Method("gradcam_loss", "Grad-CAM background penalty", Hyperparameters, GradCAMLoss, kept="backbone")
