"""Energy loss: what speaks for the true class must lie on the foreground, whatever its form there.

Rao, Boehle, Parchami-Araghi, Schiele, "Studying How to Efficiently and Effectively Guide Models with Explanations",
ICCV 2023: the energy loss on Gradient x Input of the image.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier, input_gradient
from baselines.gradcam_loss import background_share


@dataclass(frozen=True)
class Hyperparameters:
    """Of the energy loss.

    Attributes
    ----------
    weight : float
        lambda, of the energy outside the mask, beside cross-entropy.
    """

    weight: NonNegativeFloat = 1.0


class EnergyLoss(BackboneClassifier):
    """Minimises ``cross-entropy + lambda * mean_n (1 - sum_mask A+ / sum A+)``.

    A+ is the positive part of ``x dz/dx``, summed over channels, with z the true class's logit.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.weight = hyperparameters.weight

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        logits, gradient = input_gradient(self, images, lambda logits: logits.gather(1, labels[:, None]))
        classification = self.classification_loss(logits, labels)
        energy = of_masked(background_share, (gradient * images).sum(1, keepdim=True).relu(), masks)
        return Losses(classification + self.weight * energy, {"classification": classification, "energy": energy})


METHOD = Method("energy_loss", "Energy loss", Hyperparameters, EnergyLoss, kept="backbone")
