"""Multi-task U-Net: one encoder learns to segment and to classify, in the hope that both look at the same things.

Benchmark network of Bassi, Dertkigil, Cavalli, Nature Communications 15, 291, 2024; U-Net: Ronneberger et al.,
MICCAI 2015.
"""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import Classifier
from baselines.unet import UNet, segmentation_loss


@dataclass(frozen=True)
class Hyperparameters:
    """Of the multi-task network: channels of the U-Net at full resolution, and the weight of the segmentation loss."""

    width: PositiveInt = 8
    segmentation_weight: PositiveFloat = 1.0


class MultiTaskUNet(Classifier):
    """A U-Net with a classification head at its bottleneck."""

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.segmentation_weight = hyperparameters.segmentation_weight
        self.unet = UNet(task.channels, task.image_size, hyperparameters.width)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.unet.widths[-1], task.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Classify images (N, C, H, W): logits (N, classes). The decoder is not needed for it."""
        return self.head(self.unet.encode(images)[-1])

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        maps = self.unet.encode(images)
        classification = self.classification_loss(self.head(maps[-1]), labels)
        segmentation = of_masked(segmentation_loss, self.unet.decode(maps), masks)
        return Losses(
            classification + self.segmentation_weight * segmentation,
            {"classification": classification, "segmentation": segmentation},
        )


METHOD = Method("multitask_unet", "Multi-task U-Net", Hyperparameters, MultiTaskUNet)
