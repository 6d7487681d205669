"""LRP's rules: epsilon, z-plus and, at the image, z^B.

Shapes: relevance ``(K, N, ...)``, activations ``(N, ...)``. LRP-Block applies a rule to every layer; LRP-Flex to all
affine operations between two ReLUs at once, in its backward pass, and calls the z^B rule alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from isnet.affine_layers import Affine, Weighted, wide
from isnet.batch_statistics import per_channel

Bound = float | Sequence[float] | Tensor
Bounds = tuple[Tensor | None, Tensor]


def stabilise(z: Tensor, epsilon: float) -> Tensor:
    """Move `z` away from zero by `epsilon`, with the sign of z (0 is positive), in single precision at least."""
    z = wide(z)
    step = torch.full((), epsilon, dtype=z.dtype, device=z.device)
    # Added as a constant, so that a gradient passes as it is.
    return z + torch.where(z.detach() >= 0, step, -step)


class _Quotient(Function):
    """``a / b`` for ``a`` (K, N, ...) and ``b`` (N, ...), whose derivative takes fewer passes than torch's own."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        quotient = a / b
        ctx.save_for_backward(b, quotient)
        return quotient

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        b, quotient = ctx.saved_tensors
        of_a = grad / b
        return of_a, (of_a * quotient).neg_().sum_to_size(b.shape)


@dataclass(frozen=True, eq=False)
class ZB:
    """LRP z^B rule for pixels between `low` and `high` (Montavon et al., Pattern Recognition 65, 2017).

    The bounds are scalars or one per channel. With biases as in an ISNet (Nature Communications 15, 291, 2024,
    Methods): the bias counts as a neuron of value 1 between 0 and 1, whatever the unit of pixels: its negative part
    cancels, its positive part stays in the denominator.
    """

    epsilon: float
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, epsilon: float, low: Bound, high: Bound) -> ZB:
        """Make the rule of an engine's arguments; raise ValueError for bounds outside their range."""
        lowest, highest = torch.as_tensor(low, dtype=torch.float64), torch.as_tensor(high, dtype=torch.float64)
        sizes = {bound.numel() for bound in (lowest, highest) if bound.ndim}
        straddle = (lowest <= 0) & (highest >= 0) & (lowest < highest) if len(sizes) < 2 else torch.tensor(False)
        finite = lowest.isfinite().all() and highest.isfinite().all()
        if max(lowest.ndim, highest.ndim) > 1 or not (bool(finite) and bool(straddle.all())):
            raise ValueError(
                "the z^B rule needs finite bounds low <= 0 <= high, low < high, each a number or one per channel, "
                f"got low={low}, high={high}"
            )
        return cls(epsilon, lowest.detach().cpu(), highest.detach().cpu())

    def bounds(self, images: Tensor) -> Bounds:
        """Return the lowest and the highest images of this shape; None in place of zeros."""
        found = []
        for name, bound in (("low", self.low), ("high", self.high)):
            if bound.ndim and bound.shape[0] != images.shape[1]:
                raise ValueError(f"{name} has {bound.shape[0]} channels, but the images have {images.shape[1]}")
            bound = bound.to(images) if bound.ndim == 0 else per_channel(bound.to(images), images.ndim)
            found.append(torch.ones_like(images) * bound)
        return found[0] if bool(self.low.any()) else None, found[1]

    def outside(self, images: Tensor) -> str | None:
        """Say by how much images exceed the bounds, if they do by more than rounding."""
        images = images.detach()
        low, high = self.bounds(images[:1])
        low = torch.zeros_like(high) if low is None else low
        slack = 1e-3 * (high - low)
        if not bool(((images < low - slack) | (images > high + slack)).any()):
            return None
        return (
            f"the images' values lie between {images.min():.4g} and {images.max():.4g}, outside the bounds low="
            f"{self.low.tolist()}, high={self.high.tolist()} of the z^B rule: give the bounds of the pixels as the "
            "network gets them (for normalised images low, high = isnet.pixel_bounds(mean, std))"
        )

    def denominator(self, layer: Weighted, image: Tensor, bounds: Bounds) -> Tensor:
        """Return what `through` divides relevance by."""
        low, high = None if bounds[0] is None else wide(bounds[0]), wide(bounds[1])
        layer = layer.wide()
        z = layer(wide(image)) - layer.negative()(high)
        if low is not None:
            z = z - layer.positive().without_bias()(low)
        return stabilise(z, self.epsilon)

    def through(
        self, layer: Weighted, image: Tensor, bounds: Bounds, relevance: Tensor, denominator: Tensor | None = None
    ) -> Tensor:
        """Send relevance to the image; `bounds` are the lowest and the highest input of the layer.

        The `denominator`, if it is not given, is computed.
        """
        denominator = self.denominator(layer, image, bounds) if denominator is None else denominator
        low, high = None if bounds[0] is None else wide(bounds[0]), wide(bounds[1])
        layer, image = layer.wide(), wide(image)
        positive, negative = layer.positive(), layer.negative()
        s = _Quotient.apply(wide(relevance), denominator)
        maps = (layer, negative) if low is None else (layer, negative, positive)
        through = layer.transposed_each([each.weight for each in maps], s, image.shape)
        result = image * through[0] - high * through[1]
        return result if low is None else result - low * through[2]


@dataclass(frozen=True, eq=False)
class Rule(ABC):
    """How relevance passes each kind of layer; `first` is the rule of layers that read the image, if another one.

    `inactive_slope` is the share of relevance per unit of activation that LRP-Flex lets through a silent ReLU.
    """

    epsilon: float
    first: ZB | None = None
    inactive_slope: float = 0.0

    @abstractmethod
    def through(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        """Send relevance through an affine layer; `nonnegative` says that its inputs are known to be >= 0."""

    def _quotient(self, relevance: Tensor, z: Tensor) -> Tensor:
        """Return relevance per unit of z, of z's type."""
        return _Quotient.apply(wide(relevance), stabilise(z, self.epsilon)).to(z.dtype)

    def shares(self, left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Split relevance among the two terms of a sum in proportion to their contribution."""
        s = self._quotient(relevance, left + right)
        return left * s, right * s

    def max_pool(self, a: Tensor, pooled: Tensor, indices: Tensor, relevance: Tensor) -> Tensor:
        """Send relevance to each window's maximum; what overlapping windows send to one pixel adds up."""
        s = self._quotient(relevance, pooled)
        sources = indices.flatten(2).expand(len(s), -1, -1, -1)
        unpooled = s.new_zeros(len(s), *a.shape).flatten(3).scatter_add(3, sources, s.flatten(3))
        return a * unpooled.unflatten(3, a.shape[2:])


class Epsilon(Rule):
    """LRP epsilon rule (Bach et al., PLoS ONE 10(7), 2015)."""

    def through(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        s = self._quotient(relevance, layer(a))
        return a * layer.transposed(s, a.shape)


class ZPlus(Rule):
    """LRP z-plus rule (Montavon et al., Pattern Recognition 65, 2017): only what adds to an output gets relevance."""

    def through(self, layer: Affine, a: Tensor, relevance: Tensor, nonnegative: bool) -> Tensor:
        if not isinstance(layer, Weighted):
            a = a if nonnegative else a.clamp(min=0)
            return a * layer.transposed(self._quotient(relevance, layer(a)), a.shape)
        s = self._quotient(relevance, self.positive_output(layer, a, nonnegative))
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


def make_rules(
    rules: Sequence[str], epsilon: float, input_rule: str, low: Bound, high: Bound, inactive_slope: float = 0.0
) -> tuple[Epsilon | ZPlus, ...]:
    """Make the rules of an engine's arguments; raise ValueError for one outside its range."""
    if not epsilon > 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}")
    if input_rule not in ("zb", "epsilon"):
        raise ValueError(f"input_rule must be zb or epsilon, got {input_rule!r}")
    if not rules or any(rule not in ("epsilon", "zplus") for rule in rules) or len(set(rules)) < len(rules):
        raise ValueError(f"rules must name epsilon, zplus, or both, each once, got {tuple(rules)}")
    if not 0 <= inactive_slope <= 1:
        raise ValueError(f"inactive_slope must lie in [0, 1], got {inactive_slope}")
    if inactive_slope and "epsilon" not in rules:
        raise ValueError(
            "inactive_slope needs the epsilon rule among the rules: z-plus follows what raises a unit, and what "
            "silences one is in none of its maps"
        )
    first = ZB.of(epsilon, low, high) if input_rule == "zb" else None
    made: dict[str, Epsilon | ZPlus] = {
        "epsilon": Epsilon(epsilon, first, inactive_slope),
        "zplus": ZPlus(epsilon, first),
    }
    return tuple(made[rule] for rule in rules)


def pixel_bounds(mean: Sequence[float], std: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the bounds `low` and `high` per channel of pixels in [0, 1] after ``(pixels - mean) / std``."""
    if len(mean) != len(std) or not all(deviation > 0 for deviation in std):
        raise ValueError(f"mean and std need one number per channel, std > 0, got {mean} and {std}")
    low, high = ([(end - m) / s for m, s in zip(mean, std, strict=True)] for end in (0.0, 1.0))
    return low, high
