"""LRP's rules for one layer: epsilon, z-plus and z^B.

Sources: Bach et al., PLoS ONE 10(7), 2015 (epsilon); Montavon et al., Pattern Recognition 65, 2017 (z-plus,
z^B); Nature Communications 15, 291, 2024, Methods (their form in an ISNet, with biases). Shapes: relevance
``(K, N, ...)``, activations ``(N, ...)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from isnet.affine_layers import Affine, Weighted

__all__ = ["Rule", "stabilise"]


def stabilise(z: Tensor, epsilon: float) -> Tensor:
    """Move `z` away from zero by `epsilon`, with the sign of z (that of 0 is positive)."""
    return torch.where(z >= 0, z + epsilon, z - epsilon)


@dataclass(frozen=True)
class Rule:
    """How relevance passes each kind of layer in one walk from the outputs to the image.

    Parameters
    ----------
    name : {"epsilon", "zplus"}
    epsilon : float
        Stabiliser, added to every denominator with its sign.
    input_range : tuple of float, optional
        Lowest and highest value of an image: the first weighted layer then follows the z^B rule.
    """

    name: str
    epsilon: float
    input_range: tuple[float, float] | None

    def affine(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        """Send relevance through an affine layer; `nonnegative` says that its inputs are known to be >= 0."""
        if self.name == "zplus":
            return self._zplus(layer, a, relevance, nonnegative)
        s = relevance / stabilise(layer(a), self.epsilon)
        return a * layer.transposed(s, a.shape)

    def positive_output(self, layer: Weighted, a: Tensor, nonnegative: bool) -> Tensor:
        """Return z-plus's denominator ``sum max(w a, 0) + max(b, 0)``, shaped as the layer's output."""
        z = layer.positive()(a if nonnegative else a.clamp(min=0))
        return z if nonnegative else z + layer.negative().without_bias()(a.clamp(max=0))

    def _zplus(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        if not isinstance(layer, Weighted):
            a = a if nonnegative else a.clamp(min=0)
            return a * layer.transposed(relevance / stabilise(layer(a), self.epsilon), a.shape)
        s = relevance / stabilise(self.positive_output(layer, a, nonnegative), self.epsilon)
        above = layer.positive().transposed(s, a.shape)
        if nonnegative:
            return a * above
        return a.clamp(min=0) * above + a.clamp(max=0) * layer.negative().transposed(s, a.shape)

    def first_layer(self, layer: Weighted, image: Tensor, ones: Tensor, relevance: Tensor) -> Tensor:
        """Send relevance to the image by the z^B rule.

        The bias counts as a neuron of value 1: its negative part cancels, its positive part stays in the
        denominator. `ones` is what the layer's input would be for an image of ones.
        """
        low, high = self.input_range
        positive, negative = layer.positive(), layer.negative()
        z = layer(image) - high * negative(ones)
        if low != 0:
            z = z - low * positive(ones)
        s = relevance / stabilise(z, self.epsilon)
        maps = (layer, negative) if low == 0 else (layer, negative, positive)
        through = layer.transposed_each([each.weight for each in maps], s, image.shape)
        result = image * through[0] - high * through[1]
        return result if low == 0 else result - low * through[2]

    def shares(self, terms: list[Tensor], relevance: Tensor) -> list[Tensor]:
        """Split relevance among the terms of a sum in proportion to their (z-plus: positive) contribution."""
        if self.name == "zplus":
            terms = [term.clamp(min=0) for term in terms]
        s = relevance / stabilise(sum(terms), self.epsilon)
        return [term * s for term in terms]

    def max_pool(self, a: Tensor, pooled: Tensor, indices: Tensor, relevance: Tensor) -> Tensor:
        """Send relevance to each window's maximum; what overlapping windows send to one pixel adds up."""
        s = relevance / stabilise(pooled, self.epsilon)
        sources = indices.flatten(2).expand(len(s), -1, -1, -1)
        unpooled = s.new_zeros(len(s), *a.shape).flatten(3).scatter_add(3, sources, s.flatten(3))
        return a * unpooled.unflatten(3, a.shape[2:])
