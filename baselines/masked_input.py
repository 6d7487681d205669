"""Oracle: a classifier that is trained and tested on images of which only the true foreground is left.

No method of the benchmark can have this at test time: it is the ceiling for those that must find the foreground
themselves. Of an image without a mask it sees everything.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from baselines.base import Losses, Method, NoHyperparameters, Task, Visible
from baselines.classifier import Classifier


class MaskedInput(Classifier):
    """A backbone, its `classifier`, behind the multiplication with the true mask."""

    def __init__(self, task: Task, hyperparameters: Any = None) -> None:
        super().__init__(task)
        self.classifier = task.make_backbone()

    def forward(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Classify images (N, C, H, W) on the foreground of masks (N, 1, H, W); without masks, images as they are.

        The call without masks is for images of which the background was removed before.
        """
        return self.classifier(images if masks is None else images * self.visible_part(images, masks))

    def visible_part(self, images: Tensor, masks: Tensor) -> Tensor:
        """Return where the classifier sees the images, 1 = visible: the masks (N, 1, H, W), 1 where there are none."""
        return masks.nan_to_num(1.0)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Cross-entropy of labels (N,), given the foreground of images (N, C, H, W) and masks (N, 1, H, W)."""
        loss = self.classification_loss(self(images, masks), labels)
        return Losses(loss, {"classification": loss})


METHOD = Method(
    "masked_input",
    "Foreground only (oracle)",
    NoHyperparameters,
    MaskedInput,
    oracle=True,
    visible=Visible("classifier", MaskedInput.visible_part),
)
