"""Group DRO: the group that the network does worst on counts most, found by exponentiated gradient ascent.

Sagawa, Koh, Hashimoto, Liang, "Distributionally Robust Neural Networks for Group Shifts", ICLR 2020.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from baselines.base import Losses, Method, Task
from baselines.classifier import BackboneClassifier


@dataclass(frozen=True)
class Hyperparameters:
    """Of group DRO.

    Attributes
    ----------
    step_size : float
        eta_q, of the ascent of the groups' weights.
    adjustment : float
        C: in that ascent, a group of n training images counts as if its loss were C / sqrt(n) higher, since it
        generalises worse.
    """

    step_size: PositiveFloat = 0.01
    adjustment: NonNegativeFloat = 0.0


class GroupDRO(BackboneClassifier):
    """A backbone under ``sum_g q_g * mean cross-entropy of the images of group g``.

    At first all q are alike. In each step of training, the q_g of the groups of the batch are multiplied by
    ``exp(step_size * (their loss + adjustment / sqrt(n_g)))``, and all are divided by their sum (Algorithm 1).
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.step_size = hyperparameters.step_size
        images = torch.tensor(list(task.group_images.values()), dtype=torch.float32)
        self.register_buffer("adjustments", hyperparameters.adjustment / images.sqrt(), persistent=False)
        self.register_buffer("group_weights", torch.full_like(images, 1 / len(images)))

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor, groups: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), labels (N,) and groups (N,); the masks are not looked at."""
        logits = self(images)
        each = F.cross_entropy(logits, labels, weight=self.class_weights, reduction="none")
        members = F.one_hot(groups, len(self.group_weights)).to(each.dtype)
        number = members.sum(0)
        losses = each @ members / number.clamp(min=1)
        if self.training:
            gain = (self.step_size * (losses.detach() + self.adjustments)).where(number > 0, 0)
            self.group_weights = (self.group_weights.log() + gain).softmax(0)
        return Losses(self.group_weights @ losses, {"classification": self.classification_loss(logits, labels)})


METHOD = Method("group_dro", "Group DRO", Hyperparameters, GroupDRO, kept="backbone", groups=True)
