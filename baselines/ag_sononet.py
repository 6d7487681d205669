"""Attention-gated Sononet: additive attention gates in a VGG-like network, without supervision by masks.

Schlemper, Oktay, Schaap, Heinrich, Kainz, Glocker, Rueckert, "Attention Gated Networks: Learning to Leverage
Salient Regions in Medical Images", Medical Image Analysis 53, 2019.
"""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, cat, nn
from torch.nn import functional as F

from baselines.base import Losses, Method, Task
from baselines.blocks import convolution, halvings, stem
from baselines.classifier import Classifier

_FINEST_GATED = 14
_TINY = 1e-8


@dataclass(frozen=True)
class Hyperparameters:
    """Of the gated network.

    The stem has `width` channels, the gated stages twice and four times as many, the last as many as the second.
    `auxiliary_weight` is that of the cross-entropy of each scale's own classifier (deep supervision).
    """

    width: PositiveInt = 8
    auxiliary_weight: PositiveFloat = 0.1


class AttentionGate(nn.Module):
    """Pool features at the positions that the coarser, more abstract gating signal finds compatible.

    Compatibility is ``psi ReLU(theta x + phi g)``, of `inner` channels; less its minimum, and divided by its sum, it is
    the attention.
    """

    def __init__(self, channels: int, gating_channels: int, inner: int) -> None:
        super().__init__()
        self.theta = nn.Conv2d(channels, inner, 1, bias=False)
        self.phi = nn.Conv2d(gating_channels, inner, 1, bias=False)
        # A bias of psi would cancel with the minimum.
        self.psi = nn.Conv2d(inner, 1, 1, bias=False)

    def forward(self, features: Tensor, gating: Tensor) -> Tensor:
        """Pool features (N, channels, H, W) by attention: (N, channels)."""
        return (self.attention(features, gating) * features).sum((2, 3))

    def attention(self, features: Tensor, gating: Tensor) -> Tensor:
        """Return the attention (N, 1, H, W), which is >= 0 and sums to 1."""
        phi = F.interpolate(self.phi(gating), size=features.shape[-2:], mode="bilinear", align_corners=False)
        compatibility = self.psi((self.theta(features) + phi).relu())
        above = compatibility - compatibility.amin((2, 3), keepdim=True)
        return above / (above.sum((2, 3), keepdim=True) + _TINY)


class AGSononet(Classifier):
    """A Sononet whose last two scales before the coarsest are gated by the coarsest."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        width, self.auxiliary_weight = hyperparameters.width, hyperparameters.auxiliary_weight
        widths = (2 * width, 4 * width, 4 * width)
        self.stem = stem(task.channels, width, halvings(task.image_size, _FINEST_GATED))
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after), convolution(after, after))
            for before, after in zip((width, *widths), widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.gates = nn.ModuleList(AttentionGate(channels, widths[-1], widths[-1]) for channels in widths[:-1])
        self.heads = nn.ModuleList(nn.Linear(channels, task.classes) for channels in widths)
        self.head = nn.Linear(sum(widths), task.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W): logits (N, classes) of all scales together."""
        return self.head(cat(self._pooled(images), 1))

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Cross-entropies of labels (N,), of all scales together and of each alone; the masks are not looked at."""
        pooled = self._pooled(images)
        classification = self.classification_loss(self.head(cat(pooled, 1)), labels)
        auxiliary = sum(
            self.classification_loss(head(scale), labels) for head, scale in zip(self.heads, pooled, strict=True)
        )
        return Losses(
            classification + self.auxiliary_weight * auxiliary,
            {"classification": classification, "auxiliary": auxiliary},
        )

    def _pooled(self, images: Tensor) -> list[Tensor]:
        first = self.stages[0](self.stem(images))
        second = self.stages[1](self.pool(first))
        gating = self.stages[2](self.pool(second))
        gated = [gate(scale, gating) for gate, scale in zip(self.gates, (first, second), strict=True)]
        return [*gated, gating.mean((2, 3))]


METHOD = Method("ag_sononet", "Attention-gated Sononet", Hyperparameters, AGSononet, explainer="gradient_input")
