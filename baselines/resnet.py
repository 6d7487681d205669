"""The plain classifier: the backbone trained on the labels alone, with nothing against the bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from baselines.base import Losses, Method, Task
from baselines.classifier import BackboneClassifier

__all__ = ["METHOD", "Hyperparameters", "PlainClassifier"]


@dataclass(frozen=True)
class Hyperparameters:
    """The plain classifier has none of its own."""


class PlainClassifier(BackboneClassifier):
    """A backbone under cross-entropy."""

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Cross-entropy of labels (N,); the masks are not looked at."""
        loss = self.classification_loss(self(images), labels)
        return Losses(loss, {"classification": loss})


def _build(task: Task, hyperparameters: Hyperparameters, ranges: Mapping[str, Any] | None) -> PlainClassifier:
    return PlainClassifier(task)


METHOD = Method("resnet", "Standard classifier", Hyperparameters, _build)
