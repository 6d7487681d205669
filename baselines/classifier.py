"""What most baselines share: weighted cross-entropy, and a backbone that is all that is left after training."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from baselines.base import Task

__all__ = ["BackboneClassifier", "Classifier"]


class Classifier(nn.Module):
    """Base of methods that classify with the task's class weights."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        # Not persistent: the weights belong to the training data, not to the trained network.
        self.register_buffer("class_weights", task.class_weights, persistent=False)

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of logits (N, classes) and labels (N,), weighted by class."""
        return F.cross_entropy(logits, labels, weight=self.class_weights)


class BackboneClassifier(Classifier):
    """Base of methods that change only how the task's backbone is trained."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.backbone = task.make_backbone()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W): logits (N, classes)."""
        return self.backbone(images)
