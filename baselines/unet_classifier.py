"""Segment, then classify: a U-Net finds the foreground, a classifier sees nothing else.

The segmentation-classification pipeline of Bassi, Dertkigil, Cavalli, Nature Communications 15, 291, 2024; U-Net:
Ronneberger et al., MICCAI 2015.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from baselines import unet
from baselines.base import Losses, Method, Task, Visible, of_masked
from baselines.classifier import Classifier
from baselines.unet import UNet, completed, segmentation_loss


@dataclass(frozen=True)
class Hyperparameters(unet.Hyperparameters):
    """Of the pipeline.

    Attributes
    ----------
    training_masks : {"predicted", "true"}
        Through which masks the classifier sees the training images that have one; of the others it sees what the U-Net
        finds. At test time masks are always predicted.
    """

    training_masks: Literal["predicted", "true"] = "predicted"


class SegmentThenClassify(Classifier):
    """Two networks in a row, trained side by side; no gradient passes from the `classifier` to the U-Net."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters
        self.segmenter = UNet(task.channels, task.image_size, hyperparameters.width)
        self.classifier = task.make_backbone()

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W) on the foreground that the U-Net finds: logits (N, classes)."""
        return self.classifier(images * self.visible_part(images))

    def visible_part(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return where the U-Net finds the foreground of images (N, C, H, W), without masks: shape (N, 1, H, W)."""
        with torch.no_grad():
            return self.hyperparameters.foreground(self.segmenter(images))

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        h = self.hyperparameters
        mask_logits = self.segmenter(images)
        segmentation = of_masked(segmentation_loss, mask_logits, masks)
        seen = h.foreground(mask_logits)
        if h.training_masks == "true":
            seen = completed(masks, seen)
        classification = self.classification_loss(self.classifier(images * seen), labels)
        return Losses(
            classification + h.segmentation_weight * segmentation,
            {"classification": classification, "segmentation": segmentation},
        )


METHOD = Method(
    "unet_classifier",
    "U-Net, then classifier",
    Hyperparameters,
    SegmentThenClassify,
    visible=Visible("classifier", SegmentThenClassify.visible_part),
)
