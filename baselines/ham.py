"""Hierarchical Attention Mining: class attention within foreground attention, supervised by masks.

Ouyang et al., "Learning Hierarchical Attention for Weakly-Supervised Chest X-Ray Abnormality Localization and
Diagnosis", IEEE Transactions on Medical Imaging 40(10), 2021.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.base import Losses, Method, Task, of_masked
from baselines.blocks import convolution, halvings, stem
from baselines.classifier import Classifier

_SIDE = 7
_SHARPNESS = 100.0
_REFINE_THRESHOLD = 0.4
_COVER_THRESHOLD = 0.75
_POOLING = 6.0
_TINY = 1e-5


@dataclass(frozen=True)
class Hyperparameters:
    """Of HAM; the defaults of the weights are those of the authors' code.

    Attributes
    ----------
    width : int
        Channels of the stem; features have four times as many.
    foreground_weight : float
        Of the cross-entropy of the foreground ("abnormality") score.
    mask_weight : float
        Of the attention mean squared error against the masks.
    bound_weight, union_weight : float
        Of the two constraints of the hierarchy.
    """

    width: Annotated[int, Field(ge=2)] = 8
    foreground_weight: PositiveFloat = 0.01
    mask_weight: NonNegativeFloat = 0.5
    bound_weight: NonNegativeFloat = 0.001
    union_weight: NonNegativeFloat = 0.001


class ForegroundAttention(nn.Module):
    """The foreground attention block: channel attention, then spatial attention, added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = nn.Conv2d(channels, 1, 1, bias=False)
        self.excite = nn.Sequential(
            nn.Linear(channels, channels // 8, bias=False),
            nn.ReLU(),
            nn.Linear(channels // 8, channels, bias=False),
            nn.Sigmoid(),
        )
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.squeeze = nn.Conv2d(channels, 1, 1, bias=False)
        self.spatial = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.Sigmoid())
        # The authors begin with 0, where nothing inside the block gets a gradient in the first step.
        self.gamma = nn.Parameter(torch.full((1,), 0.1))

    def forward(self, features: Tensor) -> Tensor:
        """Add attention to features (N, channels, H, W)."""
        weights = self.position(features).flatten(2).softmax(2)
        pooled = (features.flatten(2) * weights).sum(2)
        foreground = self.squeeze(self.mix(features) * self.excite(pooled)[..., None, None])
        return features + self.gamma * foreground * self.spatial(foreground)


class HAM(Classifier):
    """A network with attention maps of the foreground and of each class, which are its class activation maps.

    Class attention must lie within foreground attention (bound) and fill it (union); the attention of the image's
    class must look like the mask.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = h = hyperparameters
        channels = 4 * h.width
        self.features = nn.Sequential(
            stem(task.channels, h.width, halvings(task.image_size, _SIDE)),
            convolution(h.width, channels),
            convolution(channels, channels),
        )
        inner = max(8, channels // 4)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            ForegroundAttention(inner),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
        )
        self.join = nn.Sequential(convolution(channels + inner, channels), nn.Dropout2d(0.1))
        self.foreground_score = nn.Linear(channels, 1, bias=False)
        self.class_scores = nn.Linear(channels, task.classes, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W): logits (N, classes)."""
        return self.class_scores(_pool(self._maps(images)))

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        maps = self._maps(images)
        pooled = _pool(maps)
        # The weights are constants of the maps, as in the authors' code.
        class_maps = (self.class_scores.weight.detach()[labels, :, None, None] * maps).sum(1, keepdim=True).relu()
        foreground_maps = F.conv2d(maps, self.foreground_score.weight.detach()[..., None, None]).relu()
        parts = {
            "classification": self.classification_loss(self.class_scores(pooled), labels),
            # Every image shows an object, so that there are no negatives.
            "foreground": F.softplus(-self.foreground_score(pooled)).mean(),
            "mask": of_masked(attention_mse, refine(class_maps, images.shape[-2:]), labels, masks),
            "bound": _by_class(uncovered(class_maps, foreground_maps), labels).mean(),
            "union": uncovered(foreground_maps, class_maps).mean(),
        }
        names = [name for name in parts if name != "classification"]
        weighted = (getattr(self.hyperparameters, f"{name}_weight") * parts[name] for name in names)
        return Losses(sum(weighted, start=parts["classification"]), parts)

    def _maps(self, images: Tensor) -> Tensor:
        features = self.features(images)
        return self.join(torch.cat([features, self.attention(features)], 1))


def refine(maps: Tensor, size: torch.Size) -> Tensor:
    """Resize maps (N, 1, h, w), scale each to [0, 1], and harden them to attention in (0, 1), shape (N, 1, *size)."""
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=True)
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (_SHARPNESS * ((maps - low) / (high - low).clamp(min=_TINY) - _REFINE_THRESHOLD)).sigmoid()


def attention_mse(attention: Tensor, labels: Tensor, masks: Tensor) -> Tensor:
    """``sum (A - M)^2 / (sum A + sum M)``, over the images of each class, averaged over the classes in the batch."""
    error = (attention - masks).square().sum((1, 2, 3))
    area = (attention + masks).sum((1, 2, 3))
    return (_by_class(error, labels) / _by_class(area, labels).clamp(min=_TINY)).mean()


def uncovered(inner: Tensor, outer: Tensor) -> Tensor:
    """Share of inner maps (N, 1, h, w), >= 0, not covered by the outer ones where the inner ones are strong: (N,)."""
    strong = (_SHARPNESS * (inner - _COVER_THRESHOLD)).sigmoid()
    covered = (torch.minimum(inner, outer) * strong).sum((1, 2, 3))
    total = inner.sum((1, 2, 3))
    return (total - covered) / total.clamp(min=_TINY)


def _by_class(values: Tensor, labels: Tensor) -> Tensor:
    _, index, count = labels.unique(return_inverse=True, return_counts=True)
    return values.new_zeros(len(count)).index_add(0, index, values) / count


def _pool(maps: Tensor) -> Tensor:
    """Log-sum-exp pooling of maps (N, C, H, W): (N, C)."""
    positions = maps[0, 0].numel()
    return ((_POOLING * maps).logsumexp((2, 3)) - math.log(positions)) / _POOLING


METHOD = Method("ham", "Hierarchical Attention Mining", Hyperparameters, HAM, explainer="gradient_input")
