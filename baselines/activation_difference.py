"""ActDiff: an image and its foreground on a shuffled background must excite the network alike.

Viviano, Simpson, Dutil, Bengio, Cohen, "Saliency is a Possible Red Herring When Diagnosing Poor Generalization", ICLR
2021.
"""

from __future__ import annotations

from pydantic import NonNegativeFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from baselines.backgrounds import drawer, shuffled
from baselines.base import Losses, Method, Task, of_masked
from baselines.classifier import BackboneClassifier, untouched_running_statistics


@dataclass(frozen=True)
class Hyperparameters:
    """Of ActDiff.

    Attributes
    ----------
    weight : float
        Of the distance, beside cross-entropy; the authors search from 1e-4 to 10.
    layer : str or None
        Module whose input is compared; None: the last linear layer, which reads the penultimate activations.
    """

    weight: NonNegativeFloat = 1.0
    layer: str | None = None


class ActivationDifference(BackboneClassifier):
    """A backbone whose activations h must not depend on where background pixels lie.

    Minimises ``cross-entropy + weight * mean_n |h(x_n) - h(x_n with its background pixels shuffled)|_2``.
    """

    def __init__(self, task: Task, hyperparameters: Hyperparameters) -> None:
        super().__init__(task)
        self.weight = hyperparameters.weight
        modules = dict(self.backbone.named_modules())
        readers = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
        self.layer = hyperparameters.layer or (readers[-1] if readers else "")
        if not self.layer or self.layer not in modules:
            near = ", ".join(list(modules)[1:][-3:])
            raise ValueError(f"layer must name a module of the backbone, such as {near}, not {self.layer!r}")

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> Losses:
        """Compute the loss of images (N, C, H, W), masks (N, 1, H, W) with 1 = foreground, and labels (N,)."""
        logits, activations = self._classify(images)
        classification = self.classification_loss(logits, labels)
        difference = of_masked(self._difference, images, activations, masks)
        return Losses(
            classification + self.weight * difference, {"classification": classification, "difference": difference}
        )

    def _difference(self, images: Tensor, activations: Tensor, masks: Tensor) -> Tensor:
        with untouched_running_statistics(self.backbone):
            _, others = self._classify(shuffled(images, masks, drawer(self.training)))
        return (activations - others).flatten(1).norm(dim=1).mean()

    def _classify(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, and what the layer reads."""
        read: list[Tensor] = []
        with self.backbone.get_submodule(self.layer).register_forward_pre_hook(lambda _, given: read.append(given[0])):
            return self(images), read[0]


METHOD = Method(
    "activation_difference", "Activation difference", Hyperparameters, ActivationDifference, kept="backbone"
)
