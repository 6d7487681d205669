"""Segment, then classify: a U-Net finds the foreground, a classifier sees nothing else.

The segmentation-classification pipeline of Bassi, Dertkigil, Cavalli, Nature Communications 15, 291, 2024; U-Net:
Ronneberger et al., MICCAI 2015.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from baselines import checks
from baselines.base import Losses, Method, Task
from baselines.classifier import Classifier
from baselines.unet import UNet, segmentation_loss

__all__ = ["METHOD", "Hyperparameters", "SegmentThenClassify"]


@dataclass(frozen=True)
class Hyperparameters:
    """Of the pipeline.

    Attributes
    ----------
    width : int
        Channels of the U-Net at full resolution.
    segmentation_weight : float
        Of the U-Net's loss, beside cross-entropy. The two have no weights in common.
    threshold : float
        Probability above which a pixel is foreground.
    training_masks : {"predicted", "true"}
        Through which masks the classifier sees the training images. At test time they are always predicted.
    """

    width: int = 4
    segmentation_weight: float = 1.0
    threshold: float = 0.5
    training_masks: Literal["predicted", "true"] = "predicted"

    def __post_init__(self) -> None:
        checks.at_least(1, width=self.width)
        checks.positive(segmentation_weight=self.segmentation_weight)
        checks.between(0, 1, threshold=self.threshold)
        if self.training_masks not in ("predicted", "true"):
            raise ValueError(f"training_masks must be predicted or true, not {self.training_masks!r}")


class SegmentThenClassify(Classifier):
    """Two networks in a row, trained side by side; no gradient passes from the classifier to the U-Net.

    Attributes
    ----------
    classifier : nn.Module
        Of what is `visible` of the images.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters
        self.segmenter = UNet(task.channels, task.image_size, hyperparameters.width)
        self.classifier = task.make_backbone()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W) on the foreground that the U-Net finds: logits (N, classes)."""
        return self.classifier(self.visible(images))

    def visible(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return what the classifier sees of images (N, C, H, W): the U-Net finds the foreground, without masks."""
        return images * self.visible_part(images, masks)

    def visible_part(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return where the classifier sees images (N, C, H, W), 1 = visible, shape (N, 1, H, W)."""
        with torch.no_grad():
            return self.foreground(self.segmenter(images))

    def foreground(self, mask_logits: Tensor) -> Tensor:
        """Return the mask, 1 = foreground, that the U-Net's logits (N, 1, H, W) mean."""
        return (mask_logits.sigmoid() > self.hyperparameters.threshold).to(mask_logits.dtype)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        h = self.hyperparameters
        mask_logits = self.segmenter(images)
        segmentation = segmentation_loss(mask_logits, masks)
        seen = masks if h.training_masks == "true" else self.foreground(mask_logits)
        classification = self.classification_loss(self.classifier(images * seen), labels)
        return Losses(
            classification + h.segmentation_weight * segmentation,
            {"classification": classification, "segmentation": segmentation},
        )


def _build(task: Task, hyperparameters: Hyperparameters, ranges: Mapping[str, Any] | None) -> SegmentThenClassify:
    return SegmentThenClassify(task, hyperparameters)


METHOD = Method("unet_classifier", "U-Net, then classifier", Hyperparameters, _build)
