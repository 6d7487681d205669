"""Right for the Right Reasons: input gradients on the background are penalised.

Ross, Hughes, Doshi-Velez, "Right for the Right Reasons: Training Differentiable Models by Constraining their
Explanations", IJCAI 2017.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier, input_gradient


@dataclass(frozen=True)
class Hyperparameters:
    """Of RRR.

    Attributes
    ----------
    weight : float
        lambda_1 of the paper's Equation 1; 1000 is the default of its code.
    """

    weight: NonNegativeFloat = 1000.0


class RightForTheRightReasons(BackboneClassifier):
    """A backbone whose log-probabilities must not depend on the background.

    Minimises ``cross-entropy + weight * mean_n sum_d (A_nd d/dx_nd sum_k log p_nk)^2`` with A = 1 on the background.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.weight = hyperparameters.weight

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        logits, gradient = input_gradient(self, images, lambda logits: logits.log_softmax(1))
        classification = self.classification_loss(logits, labels)
        reasons = of_masked(on_background, gradient, masks)
        return Losses(classification + self.weight * reasons, {"classification": classification, "reasons": reasons})


def on_background(gradient: Tensor, masks: Tensor) -> Tensor:
    """Squared gradient (N, C, H, W) outside of masks (N, 1, H, W), summed over pixels, averaged over images."""
    return ((1 - masks) * gradient).square().sum((1, 2, 3)).mean()


METHOD = Method("rrr", "Right for the Right Reasons", Hyperparameters, RightForTheRightReasons, kept="backbone")
