"""ISNet ablation: Gradient x Input of the softmax takes the place of layer-wise relevance propagation.

"ISNet Softmax Grad*Input" of Bassi, Decherchi, Cavalli, arXiv 2401.08409, IEEE Access 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.base import Losses, Method, Range, Task
from baselines.classifier import BackboneClassifier, input_gradient
from baselines.heatmaps import Hyperparameters, Ranges


class SoftmaxGradInput(BackboneClassifier):
    """A backbone under the ISNet's loss, with Gradient x Input heatmaps of the highest softmax probability."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters, ranges: Ranges | None) -> None:
        super().__init__(task)
        self.heatmap_weight, self.heatmap_loss = hyperparameters.heatmap_weight, hyperparameters.loss(ranges)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        logits, heatmaps = explain(self.backbone, images)
        classification = self.classification_loss(logits, labels)
        heatmap = self.heatmap_loss(heatmaps, masks)
        total = (1 - self.heatmap_weight) * classification + self.heatmap_weight * heatmap
        return Losses(total, {"classification": classification, "heatmap": heatmap})


def explain(classifier: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of images (N, C, H, W), and ``x dp/dx`` of the highest probability p, shape (N, 1, C, H, W)."""
    logits, gradient = input_gradient(classifier, images, lambda logits: logits.softmax(1).amax(1))
    return logits, (gradient * images)[:, None]


def measure_totals(hyperparameters: Hyperparameters, classifier: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Total absolute relevance of each image's heatmap, shape (N, 1), under the heatmap's place, the input."""
    with torch.enable_grad():
        _, heatmaps = explain(classifier, images)
    return {"input": heatmaps.detach().abs().flatten(2).sum(2)}


METHOD = Method(
    "softmax_grad_input",
    "Softmax Gradient x Input",
    Hyperparameters,
    SoftmaxGradInput,
    kept="backbone",
    range=Range(measure_totals),
)
