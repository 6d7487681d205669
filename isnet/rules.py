"""LRP's rules: epsilon, z-plus and, at the image, z^B.

Shapes: relevance ``(K, N, ...)``, activations ``(N, ...)``. LRP-Block applies a rule to every layer; LRP-Flex to all
affine operations between two ReLUs at once, in its backward pass, and calls the z^B rule alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from isnet.affine_layers import Affine, Weighted
from isnet.batch_statistics import Statistics


def stabilise(z: Tensor, epsilon: float) -> Tensor:
    """Move `z` away from zero by `epsilon`, with the sign of z (that of 0 is positive)."""
    return torch.where(z >= 0, z + epsilon, z - epsilon)


@dataclass(frozen=True)
class ZB:
    """LRP z^B rule for pixels in ``[low, high]`` (Montavon et al., Pattern Recognition 65, 2017).

    With biases as in an ISNet (Nature Communications 15, 291, 2024, Methods): the bias counts as a neuron of value 1,
    its negative part cancels, its positive part stays in the denominator.
    """

    epsilon: float
    low: float
    high: float

    def through(self, layer: Weighted, image: Tensor, ones: Tensor, relevance: Tensor) -> Tensor:
        """Send relevance to the image; `ones` is what the layer's input would be for an image of ones."""
        low, high = self.low, self.high
        positive, negative = layer.positive(), layer.negative()
        z = layer(image) - high * negative(ones)
        if low != 0:
            z = z - low * positive(ones)
        s = relevance / stabilise(z, self.epsilon)
        maps = (layer, negative) if low == 0 else (layer, negative, positive)
        through = layer.transposed_each([each.weight for each in maps], s, image.shape)
        result = image * through[0] - high * through[1]
        return result if low == 0 else result - low * through[2]


@dataclass(frozen=True)
class Rule(ABC):
    """How relevance passes each kind of layer; `first` is the rule of layers that read the image, if another one."""

    epsilon: float
    first: ZB | None = None

    @abstractmethod
    def through(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        """Send relevance through an affine layer; `nonnegative` says that its inputs are known to be >= 0."""

    def shares(self, left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Split relevance among the two terms of a sum in proportion to their contribution."""
        s = relevance / stabilise(left + right, self.epsilon)
        return left * s, right * s

    def max_pool(self, a: Tensor, pooled: Tensor, indices: Tensor, relevance: Tensor) -> Tensor:
        """Send relevance to each window's maximum; what overlapping windows send to one pixel adds up."""
        s = relevance / stabilise(pooled, self.epsilon)
        sources = indices.flatten(2).expand(len(s), -1, -1, -1)
        unpooled = s.new_zeros(len(s), *a.shape).flatten(3).scatter_add(3, sources, s.flatten(3))
        return a * unpooled.unflatten(3, a.shape[2:])


class Epsilon(Rule):
    """LRP epsilon rule (Bach et al., PLoS ONE 10(7), 2015)."""

    def through(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        s = relevance / stabilise(layer(a), self.epsilon)
        return a * layer.transposed(s, a.shape)


class ZPlus(Rule):
    """LRP z-plus rule (Montavon et al., Pattern Recognition 65, 2017): only what adds to an output gets relevance."""

    def through(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        if not isinstance(layer, Weighted):
            a = a if nonnegative else a.clamp(min=0)
            return a * layer.transposed(relevance / stabilise(layer(a), self.epsilon), a.shape)
        s = relevance / stabilise(self.positive_output(layer, a, nonnegative), self.epsilon)
        above = layer.positive().transposed(s, a.shape)
        if nonnegative:
            return a * above
        return a.clamp(min=0) * above + a.clamp(max=0) * layer.negative().transposed(s, a.shape)

    def positive_output(self, layer: Weighted, a: Tensor, nonnegative: bool) -> Tensor:
        """Return the rule's denominator ``sum max(w a, 0) + max(b, 0)``, shaped as the layer's output."""
        z = layer.positive()(a if nonnegative else a.clamp(min=0))
        return z if nonnegative else z + layer.negative().without_bias()(a.clamp(max=0))

    def shares(self, left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        return super().shares(left.clamp(min=0), right.clamp(min=0), relevance)


_RULES: dict[str, type[Epsilon | ZPlus]] = {"epsilon": Epsilon, "zplus": ZPlus}


def make_rules(
    rules: Sequence[str], epsilon: float, input_rule: str, low: float, high: float
) -> tuple[Epsilon | ZPlus, ...]:
    """Make the rules of an engine's arguments; raise ValueError for one outside its range."""
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if input_rule not in ("zb", "epsilon"):
        raise ValueError(f"input_rule must be zb or epsilon, got {input_rule!r}")
    if not low <= 0 <= high or low == high:
        raise ValueError(f"the z^B rule needs low <= 0 <= high and low < high, got [{low}, {high}]")
    if not rules or any(rule not in _RULES for rule in rules) or len(set(rules)) < len(rules):
        raise ValueError(f"rules must name epsilon, zplus, or both, each once, got {tuple(rules)}")
    first = ZB(epsilon, low, high) if input_rule == "zb" else None
    return tuple(_RULES[rule](epsilon, first) for rule in rules)


@dataclass(frozen=True)
class Stem:
    """The first layer of a network, to which z^B applies: convolution or linear layer, perhaps batch norm, ReLU.

    `layer` is fused with its batch norm, if it is `normalised`; its biases are constants, but for the share that gamma
    scales. `inputs` are the images as the layer reads them, perhaps flattened.
    """

    layer: Weighted
    inputs: Tensor
    normalised: bool = False

    def followed_by(self, statistics: Statistics, weight: Tensor | None, bias: Tensor | None) -> Stem:
        """Return the stem with a batch norm."""
        scale, shift = statistics.unbiased().scale_and_shift(weight, None if bias is None else bias.detach())
        return replace(self, layer=self.layer.followed_by(scale, shift), normalised=True)
