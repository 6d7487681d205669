"""ISNet ablation: Gradient x Input of the softmax takes the place of layer-wise relevance propagation.

"ISNet Softmax Grad*Input" of Bassi, Decherchi, Cavalli, arXiv 2401.08409, IEEE Access 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

import isnet
from baselines import checks
from baselines.base import Explained, Losses, Method, Task
from baselines.classifier import BackboneClassifier

__all__ = ["METHOD", "Hyperparameters", "SoftmaxGradInput", "explain", "measure_totals"]

EXPLANATION = "Gradient x Input of the highest softmax probability"


@dataclass(frozen=True)
class Hyperparameters:
    """As of the ISNets: `heatmap_weight` is P, the others are those of :class:`isnet.HeatmapLoss`.

    With ``c1: auto`` (and then ``c2: auto``) the range of foreground relevance is measured with an ordinary classifier.
    """

    heatmap_weight: float = 0.7
    c1: float | Literal["auto"] = "auto"
    c2: float | Literal["auto"] = "auto"
    w1: float = 1.0
    w2: float = 1.0
    decay: float = 0.9
    saturation: float = 1.0
    foreground: Literal["hybrid", "l2", "l1"] = "hybrid"
    normalization: Literal["abs_roi_mean", "roi_mean", "none"] = "abs_roi_mean"

    def __post_init__(self) -> None:
        checks.between(0, 1, heatmap_weight=self.heatmap_weight)
        if (self.c1 == "auto") != (self.c2 == "auto"):
            raise ValueError("c1 and c2 must either both be auto or both be numbers")
        # The loss knows the ranges of its arguments; any valid range of relevance will do to ask it.
        self.loss(*((1.0, 2.0) if self.c1 == "auto" else (self.c1, self.c2)))

    def loss(self, c1: float, c2: float) -> isnet.HeatmapLoss:
        """Make the heatmap loss with a range of foreground relevance."""
        return isnet.HeatmapLoss(
            c1, c2, self.w1, self.w2, self.decay, self.saturation, self.foreground, self.normalization
        )


class SoftmaxGradInput(BackboneClassifier):
    """A backbone under the ISNet's loss, with Gradient x Input heatmaps of the highest softmax probability."""

    def __init__(self, task: Task, heatmap_weight: float, heatmap_loss: isnet.HeatmapLoss) -> None:
        super().__init__(task)
        self.heatmap_weight, self.heatmap_loss = heatmap_weight, heatmap_loss

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        logits, heatmaps = explain(self.backbone, images)
        classification = self.classification_loss(logits, labels)
        heatmap = self.heatmap_loss(heatmaps, masks)
        total = (1 - self.heatmap_weight) * classification + self.heatmap_weight * heatmap
        return Losses(total, {"classification": classification, "heatmap": heatmap})


def explain(classifier: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits of images (N, C, H, W), and ``x dp/dx`` of the highest probability p, shape (N, 1, C, H, W)."""
    images = images.detach().requires_grad_()
    logits = classifier(images)
    (gradient,) = torch.autograd.grad(logits.softmax(1).amax(1).sum(), images, create_graph=True)
    return logits, (gradient * images)[:, None]


def measure_totals(classifier: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Total absolute relevance of each image's heatmap, shape (N, 1), under the heatmap's place, the input."""
    with torch.enable_grad():
        _, heatmaps = explain(classifier, images)
    return {"input": heatmaps.detach().abs().flatten(2).sum(2)}


def _needs_range(params: Mapping[str, Any]) -> bool:
    return params.get("c1", "auto") == "auto"


def _explained(hyperparameters: Hyperparameters) -> Explained:
    return Explained(EXPLANATION, measure_totals)


def _build(task: Task, hyperparameters: Hyperparameters, ranges: Mapping[str, Any] | None) -> SoftmaxGradInput:
    h = hyperparameters
    c1, c2 = (h.c1, h.c2) if h.c1 != "auto" else _measured(ranges)
    return SoftmaxGradInput(task, h.heatmap_weight, h.loss(c1, c2))


def _measured(ranges: Mapping[str, Any] | None) -> tuple[float, float]:
    try:
        (found,) = ranges["explanations"][EXPLANATION]["input"]
    except (KeyError, TypeError):
        raise ValueError(
            f"no range of {EXPLANATION!r} was measured: measure it, or give c1 and c2 as numbers"
        ) from None
    return found["c1"], found["c2"]


METHOD = Method("softmax_grad_input", "Softmax Gradient x Input", Hyperparameters, _build, _needs_range, _explained)
