"""Guided Attention Inference Network with pixel supervision (GAIN_ext).

Li, Wu, Peng, Ernst, Fu, "Tell Me Where to Look: Guided Attention Inference Network", CVPR 2018.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional as F

from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier, untouched_running_statistics
from baselines.gradcam import attention_maps, find_layer


@dataclass(frozen=True)
class Hyperparameters:
    """Of GAIN_ext; the defaults are those with which the ISNet's authors compared it.

    Attributes
    ----------
    mining_weight : float
        alpha, of the attention mining loss.
    mask_weight : float
        omega of the extended loss, of the mean squared error between attention and mask.
    slope, threshold : float
        omega and sigma of the soft mask ``T(A) = sigmoid(omega (A - sigma))``.
    layer : str or None
        Module whose Grad-CAM is the attention; None: see `baselines.gradcam.find_layer`.
    """

    mining_weight: NonNegativeFloat = 1.0
    mask_weight: NonNegativeFloat = 10.0
    slope: PositiveFloat = 10.0
    threshold: PositiveFloat = 0.5
    layer: str | None = None


class GAIN(BackboneClassifier):
    """A backbone whose attention must hold all that tells the class, and must look like the mask.

    Minimises ``cross-entropy + alpha * mean_n p_label(I*_n) + omega * MSE(A, mask)``, where A is the Grad-CAM of
    the label and ``I* = I - T(A) I`` is what attention leaves of the image.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.hyperparameters = hyperparameters
        self.layer = find_layer(self.backbone, task, hyperparameters.layer)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        h = self.hyperparameters
        logits, attention = attention_maps(self.backbone, self.layer, images, labels)
        classification = self.classification_loss(logits, labels)
        with untouched_running_statistics(self.backbone):
            left = self(remaining_image(images, attention, h.slope, h.threshold))
        mining = left.softmax(1).gather(1, labels[:, None]).mean()
        mask = of_masked(F.mse_loss, attention, masks)
        total = classification + h.mining_weight * mining + h.mask_weight * mask
        return Losses(total, {"classification": classification, "mining": mining, "mask": mask})


def remaining_image(images: Tensor, attention: Tensor, slope: float, threshold: float) -> Tensor:
    """Remove from images (N, C, H, W) what attention (N, 1, H, W) covers: ``I - T(A) I``."""
    return images - (slope * (attention - threshold)).sigmoid() * images


METHOD = Method("gain", "GAIN", Hyperparameters, GAIN, kept="backbone")
