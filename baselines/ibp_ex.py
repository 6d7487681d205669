"""IBP-Ex: the classifier must withstand every change of the background, by bounds of its logits.

Heo, Piratla, Wicker, Weller, "Use Perturbations when Learning from Explanations", NeurIPS 2023; interval bound
propagation: Gowal et al., "Scalable Verified Training for Provably Robust Image Classification", ICCV 2019.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import torch
from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier
from baselines.heatmaps import Share
from baselines.streams import Map, Streams


@dataclass(frozen=True)
class Hyperparameters:
    """Of IBP-Ex.

    Attributes
    ----------
    weight : float
        Of the worst case, in [0, 1]; the rest is that of the image's own cross-entropy.
    epsilon : float
        By which a background pixel may change at most; white is 1.
    warmup : int
        Training batches during which epsilon grows from 0.
    """

    weight: Share = 0.5
    epsilon: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: NonNegativeInt = 500


class Interval(Streams):
    """Centre and radius of what each activation may be."""

    def affine(self, linear: Map, weight: Tensor, bias: Tensor) -> Self:
        """Move the centre, and widen by the absolute weights."""
        return type(self)(linear(self.first, weight) + bias, linear(self.second, weight.abs()))

    def relu(self) -> Self:
        """Apply it to both bounds."""
        return self._monotone(F.relu)

    def max_pool(self, *args: Any, **kwargs: Any) -> Self:
        """Apply it to both bounds."""
        return self._monotone(lambda x: F.max_pool2d(x, *args, **kwargs))

    def _monotone(self, function: Any) -> Self:
        low, high = function(self.first - self.second), function(self.first + self.second)
        return type(self)((low + high) / 2, (high - low) / 2)


class IBPEx(BackboneClassifier):
    """Minimises ``(1 - weight) * cross-entropy + weight * cross-entropy of the worst logits within the bounds``.

    The worst logits are the label's lower and all others' upper bounds. Unlike the authors', pixels stay in [0, 1].
    """

    batches: Tensor

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters
        Interval.check(self.backbone, task)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        weight = self.hyperparameters.weight
        classification = self.classification_loss(self(images), labels)
        worst = of_masked(self._worst, images, labels, masks)
        if self.training:
            self.batches += 1
        total = (1 - weight) * classification + weight * worst
        return Losses(total, {"classification": classification, "worst": worst})

    def _worst(self, images: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
        h = self.hyperparameters
        grown = min(1.0, self.batches.item() / h.warmup) if h.warmup else 1.0
        room = grown * h.epsilon * (1 - masks)
        low, high = (images - room).clamp(min=0), (images + room).clamp(max=1)
        logits = Interval((low + high) / 2, (high - low) / 2).through(self.backbone)
        side = 1 - 2 * F.one_hot(labels, logits.first.shape[1])
        return self.classification_loss(logits.first + side * logits.second, labels)


METHOD = Method("ibp_ex", "IBP-Ex", Hyperparameters, IBPEx, kept="backbone")
