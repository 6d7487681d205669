"""The positive part of pre-activations, from which LRP-z+ is propagated as a modified backward pass.

Between two ReLUs a network is affine. Beside each value z of such a stretch we carry its positive part P, what the
preceding activations (all >= 0) contribute with a positive sign, and its bias part B, so that ``z = P + N + B`` with
``P >= 0 >= N``. N is never stored: it is ``z - P - B``. At the next ReLU the z-plus rule's denominator is
``P + max(B, 0)``, and relevance per unit of activation flows back as
``G_j = sum_k dP_k/da_j * a_k / (P_k + epsilon) * G_k``.

A convolution or linear layer that reads activations directly, and the batch norms behind it, are kept as one affine map
with fused weights until P is needed: the z-plus rule of the fused layer then costs a single extra convolution, and the
sign split is that of the fused weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from isnet.affine_layers import Convolution, Linear, Weighted
from isnet.batch_statistics import per_channel


@dataclass(frozen=True)
class _Fused:
    """The output of `layer`, its output channels scaled, for non-negative inputs; not yet computed."""

    layer: Weighted
    inputs: Tensor
    norm: tuple[Tensor, Tensor] | None = None
    """Scale and shift of the output channels."""

    def followed_by(self, scale: Tensor, shift: Tensor) -> _Fused:
        """Return the map followed by ``scale * z + shift`` in every output channel."""
        if self.norm is not None:
            scale, shift = self.norm[0] * scale, self.norm[1] * scale + shift
        return replace(self, norm=(scale, shift))

    def positive(self) -> Tensor:
        """Return what positive weights make of the inputs."""
        linear = self.layer.without_bias()
        if self.norm is None:
            return linear.positive()(self.inputs)
        return replace(linear, weight=_PositiveWeight.apply(linear.weight, self.norm[0]))(self.inputs)

    def bias(self, ndim: int) -> Tensor | None:
        """Return the bias, as it broadcasts over an output of `ndim` dimensions."""
        bias = self.layer.bias
        if self.norm is not None:
            scale, shift = self.norm
            bias = shift if bias is None else bias * scale + shift
        return _own_bias(replace(self.layer, bias=bias), ndim)


class _PositiveWeight(Function):
    """``max(scale * weight, 0)``, one scale per output channel.

    Large layers have more weights than a few images have activations, so that each pass over the weights counts.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor) -> Tensor:
        positive = (weight * _per_output(scale, weight)).clamp_(min=0)
        ctx.save_for_backward(weight, scale, positive)
        return positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale, positive = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, positive, 0)
        of_scale = torch.linalg.vecdot(grad.flatten(1), weight.flatten(1)) if ctx.needs_input_grad[1] else None
        # In place where nothing else needs it: memory for all weights would be asked for again.
        scaled = torch.mul if torch.is_grad_enabled() else Tensor.mul_
        return scaled(grad, _per_output(scale, weight)), of_scale


def _per_output(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *(1,) * (weight.ndim - 1))


class Signed:
    """Positive part and bias part of one value. A value without one is non-negative: P is the value, N = B = 0."""

    def __init__(self, positive: Tensor | _Fused, bias: Tensor | None = None) -> None:
        self._positive, self._bias = positive, bias

    @classmethod
    def affine(cls, layer: Weighted, inputs: Tensor, source: Signed | None) -> Signed:
        """Split the output of a convolution or linear layer for `inputs`, whose own split is `source`."""
        if source is None:
            return cls(_Fused(layer, inputs))
        positive, negative, constant = source.parts(inputs)
        linear = layer.without_bias()
        split = linear.positive()(positive) + linear.negative()(negative)
        constant = None if constant is None else linear(constant.expand_as(inputs))
        return cls(split, _add(constant, _own_bias(layer, split.ndim)))

    def scaled(self, value: Tensor, scale: Tensor, shift: Tensor) -> Signed:
        """Split ``scale * value + shift`` with one scale and shift per channel (batch norm)."""
        # A linear layer's outputs are its last dimension, batch norm's channels the second one.
        fused = self._positive
        if isinstance(fused, _Fused) and (value.ndim == 2 or isinstance(fused.layer, Convolution)):
            return Signed(fused.followed_by(scale, shift))
        return self.times(value, per_channel(scale, value.ndim), per_channel(shift, value.ndim))

    def times(self, value: Tensor, factor: Tensor | float, offset: Tensor | None = None) -> Signed:
        """Split ``factor * value + offset`` for a factor that does not depend on the image."""
        positive, negative, bias = self.parts(value)
        factor = torch.as_tensor(factor, dtype=value.dtype, device=value.device)
        split = torch.where(factor > 0, factor * positive, factor * negative)
        return Signed(split, _add(None if bias is None else factor * bias, offset))

    def mapped(self, value: Tensor, function: Callable[[Tensor], Tensor | tuple[Tensor, ...]]) -> list[Signed]:
        """Split the outputs of a linear `function` with coefficients >= 0 (pooling, views, selections)."""
        positive, bias = self.materialise(value)
        positives = _tuple(function(positive))
        if bias is None:
            return [Signed(part) for part in positives]
        # Contiguous, since the function may be a view.
        biases = _tuple(function(bias.expand_as(value).contiguous()))
        return [Signed(part, constant) for part, constant in zip(positives, biases, strict=True)]

    def materialise(self, value: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return P and B; B broadcasts over `value`."""
        positive = self._positive
        if isinstance(positive, _Fused):
            self._bias = positive.bias(value.ndim)
            self._positive = positive = positive.positive()
        return positive, self._bias

    def parts(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return P, N and B of `value`."""
        positive, bias = self.materialise(value)
        negative = value - positive if bias is None else value - positive - bias
        return positive, negative, bias

    def denominator(self, value: Tensor) -> Tensor:
        """Return the z-plus rule's pre-activation ``P + max(B, 0)``."""
        positive, bias = self.materialise(value)
        return positive if bias is None else positive + bias.clamp(min=0)


def add(values: list[Tensor], signs: list[Signed | None], subtract: bool = False) -> Signed | None:
    """Split the sum (or difference) of two values that depend on the image."""
    if not subtract and all(sign is None for sign in signs):
        return None
    (first, second), (left, right) = values, signs
    positive, bias = (first, None) if left is None else left.materialise(first)
    if not subtract:
        other, other_bias = (second, None) if right is None else right.materialise(second)
        return Signed(positive + other, _add(bias, other_bias))
    if right is None:
        return Signed(positive + torch.zeros_like(second), bias)
    _, negative, other_bias = right.parts(second)
    return Signed(positive - negative, _add(bias, None if other_bias is None else -other_bias))


def concatenate(
    values: list[Tensor], signs: list[Signed | None], join: Callable[[list[Tensor]], Tensor]
) -> Signed | None:
    """Split a concatenation or stack of values, which `join` makes of their parts, too."""
    if all(sign is None for sign in signs):
        return None
    parts = [
        (value, None) if sign is None else sign.materialise(value) for value, sign in zip(values, signs, strict=True)
    ]
    positive = join([part for part, _ in parts])
    if all(bias is None for _, bias in parts):
        return Signed(positive)
    biases = [
        torch.zeros_like(value) if bias is None else bias.expand_as(value)
        for value, (_, bias) in zip(values, parts, strict=True)
    ]
    return Signed(positive, join(biases))


def _add(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right


def _own_bias(layer: Weighted, ndim: int) -> Tensor | None:
    if layer.bias is None or isinstance(layer, Linear):
        return layer.bias
    return per_channel(layer.bias, ndim)


def _tuple(items: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (items,) if isinstance(items, Tensor) else tuple(items)
