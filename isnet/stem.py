"""The layer through which images enter a network, to which the z^B rule applies."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from isnet.affine_layers import Weighted
from isnet.batch_statistics import Statistics

__all__ = ["Stem"]


@dataclass(frozen=True)
class Stem:
    """The first layer, from the images to the first ReLU: convolution or linear, perhaps batch norm, ReLU.

    Attributes
    ----------
    layer : Weighted
        Fused with its batch norm; its biases are constants, but for the share that gamma scales.
    inputs : Tensor
        The images, as the layer reads them (perhaps flattened).
    normalised : bool
        Whether a batch norm is in it already.
    output : Tensor or None
        Output of the ReLU.
    """

    layer: Weighted
    inputs: Tensor
    normalised: bool = False
    output: Tensor | None = None

    def followed_by(self, statistics: Statistics, weight: Tensor | None, bias: Tensor | None) -> Stem:
        """Return the stem with a batch norm."""
        scale, shift = statistics.unbiased().scale_and_shift(weight, None if bias is None else bias.detach())
        return replace(self, layer=self.layer.followed_by(scale, shift), normalised=True)
