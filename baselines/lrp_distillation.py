"""LRP distillation: the network's heatmaps must be those of a teacher that sees the foreground alone.

Bassi, Cavalli, Decherchi, "Explanation is All You Need in Distillation: Mitigating Bias and Shortcut Learning", arXiv
2407.09788. As in the online mode of their code, teacher and student learn together, so that one training is enough.
"""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

import isnet
from baselines.backgrounds import drawer
from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier
from baselines.heatmaps import Share

_TINY = 1e-10


@dataclass(frozen=True)
class Hyperparameters:
    """Of LRP distillation.

    Attributes
    ----------
    heatmap_weight : float
        P, of the heatmaps; the rest is that of the student's cross-entropy. 1: the student sees no labels.
    p_label : float
        Probability that an image's label is explained, in student and teacher; else it is any other class.
    layers : tuple of str
        Modules at whose outputs the heatmaps are compared, too.
    epsilon : float
        LRP stabiliser.
    """

    heatmap_weight: Share = 0.9
    p_label: Share = 0.5
    layers: tuple[str, ...] = ()
    epsilon: PositiveFloat = 1e-2


class LRPDistillation(BackboneClassifier):
    """A student, the backbone, and a teacher of the same architecture.

    Minimises ``cross-entropy of the teacher + (1 - P) * cross-entropy + P * distance of the LRP-Flex heatmaps``, of
    which the teacher's are constants, and at the input 0 outside the mask. The teacher learns from images with a mask.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters, self.classes = hyperparameters, task.classes
        self.teacher = task.make_backbone()
        self._explain = isnet.LRPFlex(self.backbone, hyperparameters.epsilon, layers=hyperparameters.layers)
        self._teach = isnet.LRPFlex(self.teacher, hyperparameters.epsilon, layers=hyperparameters.layers)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        weight, classes = self.hyperparameters.heatmap_weight, self._draw(labels)
        logits, relevance, layers = self._explain(images, isnet.Logit(classes))
        classification = self.classification_loss(logits, labels)
        # Both are 0 where no image has a mask.
        teacher, heatmap = of_masked(self._lesson, images, classes, labels, relevance, *layers.values(), masks).expand(
            2
        )
        total = teacher + (1 - weight) * classification + weight * heatmap
        return Losses(total, {"classification": classification, "heatmap": heatmap, "teacher": teacher})

    def _lesson(self, images: Tensor, classes: Tensor, labels: Tensor, *maps_and_masks: Tensor) -> Tensor:
        """Return the teacher's cross-entropy and the mean distance of the student's maps from the teacher's."""
        *found, masks = maps_and_masks
        logits, relevance, layers = self._teach(masks * images, isnet.Logit(classes))
        wanted = [masks[:, None] * relevance, *layers.values()]
        distances = [heatmap_distance(maps, target.detach()) for maps, target in zip(found, wanted, strict=True)]
        return torch.stack([self.classification_loss(logits, labels), torch.stack(distances).mean()])

    def _draw(self, labels: Tensor) -> Tensor:
        """Draw the class that each image's heatmaps explain."""
        draw = isnet.RandomLogit(self.hyperparameters.p_label, drawer(self.training))
        return draw.classes(F.one_hot(labels, self.classes).float())[:, 0]


def heatmap_distance(relevance: Tensor, target: Tensor) -> Tensor:
    """``sum|R - T| / sqrt(sum|R| sum|T|)`` of maps of the same shape (N, ...), averaged over images.

    The geometric mean of their sizes lets neither grow without bound nor vanish. It is 0 where one of them is: a map
    without relevance, as a ResNet that starts with silent residual branches has on small images, teaches nothing.
    """
    error, size, wanted = (maps.flatten(1).abs().sum(1) for maps in (relevance - target, relevance, target))
    there = (size > 0) & (wanted > 0)
    # Filled in before the root, whose gradient at 0 is infinite.
    scale = (size * wanted).where(there, 1).sqrt() + _TINY
    return (error / scale).where(there, 0).mean()


METHOD = Method("lrp_distillation", "LRP distillation", Hyperparameters, LRPDistillation, kept="backbone")
