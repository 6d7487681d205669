"""Convolutions whose heatmaps are quick to differentiate.

A heatmap walks backwards through a convolution, and the gradient of its loss asks for the derivative of that step with
respect to the weights. torch takes it as a convolution whose kernel is as large as the image; the weight gradient of an
ordinary backward pass is the same sum and, for all but the smallest images, several times faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from isnet.affine_layers import Convolution, Geometry, convolve
from isnet.flex_functions import Propagation

# Measured on CPUs, see docs/performance.md. From how many multiplications on the saving exceeds the time that Python
# needs; where the weight gradient is best taken as a matrix product of few rows; where a convolution with a kernel as
# large as the image is faster after all.
_MANY_PRODUCTS = 2 * 10**7
_FEW_ROWS = 64
_SMALL_IMAGE = 64
_MANY_CHANNELS = 32


@dataclass(frozen=True, eq=False)
class FlexConvolution(Convolution):
    """A convolution of a network that LRP-Flex explains."""

    propagation: Propagation | None = None

    def __call__(self, a: Tensor) -> Tensor:
        if not self._pays(a) or torch.is_autocast_enabled(a.device.type) or a.dtype != self.weight.dtype:
            return super().__call__(a)
        return _Convolve.apply(a, self.weight, self.bias, self.geometry, self.propagation)

    def send_back(self, grad: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        """Send relevance to the input `a`."""
        return _InputGradient.apply(grad, weight, a.detach(), self.geometry)

    def _pays(self, a: Tensor) -> bool:
        return a.numel() * self.weight.numel() >= _MANY_PRODUCTS * a.shape[1] * math.prod(self.geometry.stride)


class _Convolve(Function):
    """A convolution; relevance passes it as gradients do."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, propagation: Propagation
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.propagation = geometry, propagation
        ctx.set_materialize_grads(False)
        return convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        if ctx.propagation.rule is not None:
            # Relevance passes to the input alone.
            relevance = _InputGradient.apply(grad, weight, x.detach(), ctx.geometry) if of_x else None
            return relevance, None, None, None, None
        shortcut = _shortcut(grad, weight, ctx.geometry) if of_weight else None
        found = _gradients(grad, x, weight, ctx.geometry, [of_x, of_weight and shortcut is None, of_bias])
        of_weight = found[1] if shortcut is None else shortcut(x, grad, weight, ctx.geometry)
        return found[0], of_weight, found[2], None, None


class _InputGradient(Function):
    """The gradient of a convolution with respect to its input, as a function of the output's gradient and weights."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        if _few_rows(grad, geometry):
            return _input_gradient_by_matrix_product(grad, weight, x, geometry)
        return _gradients(grad, x, weight, geometry, [True, False, False])[0]

    @staticmethod
    def backward(ctx: Any, tangent: Tensor | None) -> tuple[Tensor | None, ...]:
        if tangent is None:
            return (None,) * 4
        grad, weight = ctx.saved_tensors
        of_grad, of_weight = ctx.needs_input_grad[:2]
        found_grad = None
        if of_grad and _few_rows(grad, ctx.geometry):
            found_grad = _convolve_by_matrix_product(tangent, weight, grad.shape, ctx.geometry)
        elif of_grad:
            found_grad = convolve(tangent, weight, None, ctx.geometry)
        found_weight = _weight_gradient(tangent, grad, weight, ctx.geometry) if of_weight else None
        return found_grad, found_weight, None, None


def _gradients(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, needed: list[bool]) -> tuple[Any, ...]:
    if not any(needed):
        return None, None, None
    stride, padding, dilation, groups = geometry
    return torch.ops.aten.convolution_backward.default(
        grad, x, weight, weight.shape[:1], stride, padding, dilation, False, [0] * len(stride), groups, needed
    )


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    shortcut = _shortcut(grad, weight, geometry)
    if shortcut is not None:
        return shortcut(x, grad, weight, geometry)
    return _gradients(grad, x, weight, geometry, [False, True, False])[1]


def _shortcut(grad: Tensor, weight: Tensor, geometry: Geometry) -> Callable[..., Tensor] | None:
    """Return a function that takes the weight gradient of this convolution faster than torch's own, if there is one."""
    if not _plain_on_cpu(grad, geometry):
        return None
    if _few_rows(grad, geometry):
        return _by_matrix_product
    positions = grad.shape[2] * grad.shape[3]
    window = weight.shape[2] * weight.shape[3]
    dense = geometry.stride == (1, 1) == geometry.dilation and window > 1
    return _by_convolution if dense and positions <= _SMALL_IMAGE and min(weight.shape[:2]) >= _MANY_CHANNELS else None


def _plain_on_cpu(grad: Tensor, geometry: Geometry) -> bool:
    return grad.device.type == "cpu" and grad.ndim == 4 and geometry.groups == 1


def _few_rows(grad: Tensor, geometry: Geometry) -> bool:
    """Say whether a convolution has so few outputs that rearranging its weights would take longer than using them."""
    return _plain_on_cpu(grad, geometry) and len(grad) * grad.shape[2] * grad.shape[3] <= _FEW_ROWS


def _convolve_by_matrix_product(x: Tensor, weight: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    stride, padding, dilation, _ = geometry
    windows = F.unfold(x, weight.shape[2:], dilation, padding, stride).transpose(0, 1).flatten(1)
    return (weight.flatten(1) @ windows).view(len(weight), len(x), *shape[2:]).transpose(0, 1)


def _input_gradient_by_matrix_product(grad: Tensor, weight: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, _ = geometry
    windows = weight.flatten(1).t() @ grad.transpose(0, 1).flatten(1)
    windows = windows.unflatten(1, (len(grad), -1)).transpose(0, 1)
    return F.fold(windows, x.shape[2:], weight.shape[2:], dilation, padding, stride)


def _by_matrix_product(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    stride, padding, dilation, _ = geometry
    windows = F.unfold(x, weight.shape[2:], dilation, padding, stride)
    product = grad.transpose(0, 1).flatten(1) @ windows.transpose(1, 2).flatten(0, 1)
    return product.view_as(weight)


def _by_convolution(x: Tensor, grad: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    return F.conv2d(x.transpose(0, 1), grad.transpose(0, 1), padding=geometry.padding).transpose(0, 1)
