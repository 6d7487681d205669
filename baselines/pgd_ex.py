"""PGD-Ex: the classifier must withstand the worst change of the background, found by projected gradient descent.

Heo, Piratla, Wicker, Weller, "Use Perturbations when Learning from Explanations", NeurIPS 2023.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier, untouched_running_statistics


@dataclass(frozen=True)
class Hyperparameters:
    """Of PGD-Ex.

    Attributes
    ----------
    weight : float
        alpha, of the loss of the changed images.
    epsilon : float
        kappa, by which a pixel may change at most; white is 1.
    steps : int
        Of the search, each as long as epsilon divided by their number.
    """

    weight: NonNegativeFloat = 1.0
    epsilon: Annotated[float, Field(gt=0, le=1)] = 1.0
    steps: PositiveInt = 4


class PGDEx(BackboneClassifier):
    """A backbone under ``cross-entropy(x) + alpha * max_d cross-entropy(x + (1 - mask) d)``, each |d_i| <= epsilon.

    Unlike the authors', changed pixels stay in [0, 1].
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        classification = self.classification_loss(self(images), labels)
        with untouched_running_statistics(self.backbone):
            worst = of_masked(self._worst, images, labels, masks)
        total = classification + self.hyperparameters.weight * worst
        return Losses(total, {"classification": classification, "worst": worst})

    def _worst(self, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        return self.classification_loss(self(self.attack(images, labels, masks)), labels)

    def attack(self, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        """Change the backgrounds of images (N, C, H, W) so that cross-entropy grows."""
        h = self.hyperparameters
        room = h.epsilon * (1 - masks)
        low, high = (images - room).clamp(min=0), (images + room).clamp(max=1)
        changed = images.detach()
        for _ in range(h.steps):
            changed = changed.requires_grad_()
            loss = self.classification_loss(self(changed), labels)
            (gradient,) = torch.autograd.grad(loss, changed)
            changed = (changed.detach() + h.epsilon / h.steps * gradient.sign()).clamp(low, high)
        return changed


METHOD = Method("pgd_ex", "PGD-Ex", Hyperparameters, PGDEx, kept="backbone")
