"""Segment, then swap: a U-Net learns from the masks that there are, and its masks serve to swap all other backgrounds.

U-Net: Ronneberger et al., MICCAI 2015; background swap ("mixed-rand"): Xiao, Engstrom, Ilyas, Madry, ICLR 2021. Joining
them is this project's own: what a few masks can do without explanations.
"""

from __future__ import annotations

from torch import Tensor

from baselines.backgrounds import drawer, swap
from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier
from baselines.unet import Hyperparameters, UNet, completed, segmentation_loss


class UNetSwap(BackboneClassifier):
    """A backbone that learns from images with swapped backgrounds, and beside it a U-Net, needed in training alone.

    Minimises ``cross-entropy of the swapped images + weight * (BCE + Dice) of the U-Net``, the latter over images with
    a mask. The true mask says what the foreground is, or where there is none, the U-Net's; no gradient passes to it.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters
        self.segmenter = UNet(task.channels, task.image_size, hyperparameters.width)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        h = self.hyperparameters
        mask_logits = self.segmenter(images)
        segmentation = of_masked(segmentation_loss, mask_logits, masks)
        foregrounds = completed(masks, h.foreground(mask_logits))
        classification = self.classification_loss(self(swap(images, foregrounds, drawer(self.training))), labels)
        return Losses(
            classification + h.segmentation_weight * segmentation,
            {"classification": classification, "segmentation": segmentation},
        )


METHOD = Method("unet_swap", "U-Net, then background swap", Hyperparameters, UNetSwap, kept="backbone")
