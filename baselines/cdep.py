"""CDEP: the background's contribution to every logit must be smaller than the rest's, by contextual decomposition.

Rieger, Singh, Murdoch, Yu, "Interpretations are Useful: Penalizing Explanations to Align Neural Networks with Prior
Knowledge", ICML 2020; the decomposition: Singh, Murdoch, Yu, "Hierarchical Interpretations for Neural Network
Predictions", ICLR 2019.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier
from baselines.streams import Map, Streams

_TINY = 1e-19


@dataclass(frozen=True)
class Hyperparameters:
    """Of CDEP.

    Attributes
    ----------
    weight : float
        lambda, beside cross-entropy.
    """

    weight: NonNegativeFloat = 10.0


class Decomposition(Streams):
    """What comes from the background, and what from the rest: their sum is the network's activation."""

    def affine(self, linear: Map, weight: Tensor, bias: Tensor) -> Self:
        """Divide the bias between the streams by the sizes of their parts."""
        first, second = linear(self.first, weight), linear(self.second, weight)
        share = first.abs() / (first.abs() + second.abs() + _TINY)
        return type(self)(first + share * bias, second + (1 - share) * bias)

    def relu(self) -> Self:
        """Give the first stream what it has by itself, and the second what it adds."""
        alone = self.first.relu()
        return type(self)(alone, (self.first + self.second).relu() - alone)

    def max_pool(self, *args: Any, **kwargs: Any) -> Self:
        """Follow the maxima of the sum."""
        _, places = F.max_pool2d(self.first + self.second, *args, **{**kwargs, "return_indices": True})
        return self.each(lambda x: x.flatten(2).gather(2, places.flatten(2)).view_as(places))


class CDEP(BackboneClassifier):
    """Minimises ``cross-entropy + lambda * mean over logits of e^b / (e^b + e^r)``.

    A logit's b comes from the background, its r from the rest.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.weight = hyperparameters.weight
        Decomposition.check(self.backbone, task)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        classification = self.classification_loss(self(images), labels)
        background = of_masked(self._background, images, masks)
        return Losses(
            classification + self.weight * background, {"classification": classification, "background": background}
        )

    def _background(self, images: Tensor, masks: Tensor) -> Tensor:
        logits = Decomposition((1 - masks) * images, masks * images).through(self.backbone)
        return (logits.first - logits.second).sigmoid().mean()


METHOD = Method("cdep", "CDEP", Hyperparameters, CDEP, kept="backbone")
