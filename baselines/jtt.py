"""Just train twice: what an ordinary classifier gets wrong early on counts more in a second training.

Liu, Haghgoo, Chen, Raghunathan, Koh, Sagawa, Liang, Finn, "Just Train Twice: Improving Group Robustness without
Training Group Information", ICML 2021.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from baselines.base import Losses, Method, Task
from baselines.classifier import BackboneClassifier, untouched_running_statistics


@dataclass(frozen=True)
class Hyperparameters:
    """Of just train twice.

    Attributes
    ----------
    identification_epochs : int
        T, the first epochs, in which a classifier is trained whose errors tell the images that count more.
    upweight : float
        lambda, how often such an image counts.
    """

    identification_epochs: PositiveInt = 1
    upweight: Annotated[float, Field(ge=1)] = 50.0


class JustTrainTwice(BackboneClassifier):
    """In the first T epochs another backbone learns by cross-entropy; then it stays as it is, and the backbone learns.

    Minimises the mean over images of ``w * cross-entropy``, with w = lambda where the first one's prediction is wrong,
    and 1 elsewhere. An epoch is over when as many images were seen as there are.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.upweight = hyperparameters.upweight
        self.identifier = task.make_backbone()
        self.first = hyperparameters.identification_epochs * sum(task.group_images.values())
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor, groups: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W) and labels (N,); masks and groups are not looked at."""
        identifies = bool(self.seen < self.first)
        self.identifier.requires_grad_(identifies)
        if self.training:
            self.seen += len(images)
            if identifies:
                return self._identify(images, labels)
        logits = self(images)
        weights = torch.where(self._predict(images) == labels, 1.0, self.upweight)
        each = F.cross_entropy(logits, labels, weight=self.class_weights, reduction="none")
        return Losses((weights * each).mean(), {"classification": self.classification_loss(logits, labels)})

    def _identify(self, images: Tensor, labels: Tensor) -> Losses:
        with torch.no_grad(), untouched_running_statistics(self.backbone):
            classification = self.classification_loss(self(images), labels)
        return Losses(self.classification_loss(self.identifier(images), labels), {"classification": classification})

    @torch.no_grad()
    def _predict(self, images: Tensor) -> Tensor:
        """Return the classes (N,) that the first classifier takes images for, each image alone."""
        training = self.identifier.training
        try:
            return self.identifier.eval()(images).argmax(1)
        finally:
            self.identifier.train(training)


METHOD = Method("jtt", "Just train twice", Hyperparameters, JustTrainTwice, kept="backbone", groups=True)
