"""What most baselines share: weighted cross-entropy, and a backbone that is all that is left after training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.base import Losses, Task


class Classifier(nn.Module):
    """Base of methods that classify with the task's class weights; by itself it learns from the labels alone."""

    def __init__(self, task: Task, hyperparameters: Any = None) -> None:
        super().__init__()
        # Not persistent: the weights belong to the training data, not to the trained network.
        self.register_buffer("class_weights", task.class_weights, persistent=False)

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (N, classes) and labels (N,), weighted by class."""
        return F.cross_entropy(logits, labels, weight=self.class_weights)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Cross-entropy of labels (N,); the masks are not looked at."""
        loss = self.classification_loss(self(images), labels)
        return Losses(loss, {"classification": loss})


class BackboneClassifier(Classifier):
    """A backbone under cross-entropy, and the base of methods that change only how it is trained."""

    def __init__(self, task: Task, hyperparameters: Any = None) -> None:
        super().__init__(task)
        self.backbone = task.make_backbone()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W): logits (N, classes)."""
        return self.backbone(images)


def input_gradient(
    classifier: nn.Module, images: Tensor, explained: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return logits (N, classes) of images (N, C, H, W), and the gradient of a quantity of these with respect to them.

    ``explained(logits)`` has one value for each image, or several, whose sum is meant. The gradient, shape (N, C, H,
    W), can be differentiated.
    """
    images = images.detach().requires_grad_()
    logits = classifier(images)
    (gradient,) = torch.autograd.grad(explained(logits).sum(), images, create_graph=True)
    return logits, gradient


@contextmanager
def untouched_running_statistics(network: nn.Module) -> Iterator[None]:
    """Keep what batch norm learns for inference free of changed images, which inference never sees."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
