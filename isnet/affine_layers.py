"""Affine maps as LRP rules see them: apply, transpose, split by sign.

Relevance and everything that is sent backwards carries a leading axis of K heatmaps, ``(K, N, ...)``;
activations are ``(N, ...)`` and broadcast over it. Biases are detached: as in the authors' code a bias
absorbs relevance but is not trained by the heatmap loss (batch norm's gamma is, through the bias it
scales).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from isnet.flex_functions import per_channel

__all__ = ["AdaptiveAverage", "Affine", "AveragePool", "Convolution", "Diagonal", "Linear", "Mean", "Weighted"]


class Affine(ABC):
    """An affine map ``z = W a + b``."""

    @abstractmethod
    def __call__(self, a: Tensor) -> Tensor:
        """Return ``W a + b`` for activations ``(N, ...)``."""

    @abstractmethod
    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        """Return ``W^T s``, shape ``(K, *shape)``, for ``s`` of shape ``(K, *output shape)``."""


@dataclass(frozen=True, eq=False)
class Weighted(Affine):
    """An affine map with weights of any sign and, perhaps, a bias per output channel."""

    weight: Tensor
    bias: Tensor | None

    def positive(self) -> Self:
        """Return the map with ``max(W, 0)`` and ``max(b, 0)``."""
        return self._clamped(min=0)

    def negative(self) -> Self:
        """Return the map with ``min(W, 0)`` and ``min(b, 0)``."""
        return self._clamped(max=0)

    def _clamped(self, **limit: float) -> Self:
        bias = None if self.bias is None else self.bias.clamp(**limit)
        return replace(self, weight=self.weight.clamp(**limit), bias=bias)

    def transposed_each(self, weights: Sequence[Tensor], s: Tensor, shape: torch.Size) -> list[Tensor]:
        """Return ``W^T s`` for several weights of this layer's form."""
        return [replace(self, weight=weight).transposed(s, shape) for weight in weights]

    def without_bias(self) -> Self:
        """Return the linear part."""
        return replace(self, bias=None)

    def followed_by(self, scale: Tensor, shift: Tensor) -> Self:
        """Return this map followed by ``scale * z + shift`` in every output channel, as one map."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=self.weight * scale.view(-1, *(1,) * (self.weight.ndim - 1)), bias=bias)


@dataclass(frozen=True, eq=False)
class Convolution(Weighted):
    """A convolution over one, two or three dimensions, with any stride, padding, dilation and grouping."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Self:
        """Make the layer of the arguments that ``torch.nn.functional.conv2d`` and its like take after the input.

        Raises
        ------
        ValueError
            If ``padding="same"`` pads the two sides of the image unevenly.
        """
        kernel = weight.shape[2:]
        stride, dilation = _per_axis(stride, len(kernel)), _per_axis(dilation, len(kernel))
        if padding == "same":
            total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
            if any(size % 2 for size in total):
                raise ValueError('the uneven padding="same" of')
            padding = tuple(size // 2 for size in total)
        padding = _per_axis(0 if padding == "valid" else padding, len(kernel))
        return cls(weight, bias, stride, padding, dilation, groups)

    def __call__(self, a: Tensor) -> Tensor:
        convolve = getattr(F, f"conv{len(self.stride)}d")
        return convolve(a, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        geometry = zip(
            shape[2:], s.shape[3:], self.stride, self.padding, self.dilation, self.weight.shape[2:], strict=True
        )
        # Rows and columns at the far border that no window reached get nothing.
        unreached = [
            size - ((windows - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1)
            for size, windows, stride, padding, dilation, kernel in geometry
        ]
        transpose = getattr(F, f"conv_transpose{len(self.stride)}d")
        folded = transpose(
            s.flatten(0, 1), self.weight, None, self.stride, self.padding, unreached, self.groups, self.dilation
        )
        return folded.unflatten(0, (len(s), shape[0]))

    def transposed_each(self, weights: Sequence[Tensor], s: Tensor, shape: torch.Size) -> list[Tensor]:
        # One convolution for all: an image has few channels, and a transposed convolution to one of them costs as much
        # as to several.
        stacked = replace(self, weight=torch.cat(list(weights), 1)).transposed(s, shape)
        grouped = stacked.unflatten(2, (self.groups, len(weights), -1))
        return [part.flatten(2, 3) for part in grouped.unbind(3)]


@dataclass(frozen=True, eq=False)
class Linear(Weighted):
    """A matrix product over the last dimension."""

    def __call__(self, a: Tensor) -> Tensor:
        return F.linear(a, self.weight, self.bias)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        return s @ self.weight


@dataclass(frozen=True, eq=False)
class Diagonal(Weighted):
    """One factor and one offset per channel (dimension 1): a batch norm that cannot be fused."""

    def __call__(self, a: Tensor) -> Tensor:
        z = a * per_channel(self.weight, a.ndim)
        return z if self.bias is None else z + per_channel(self.bias, a.ndim)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        return s * per_channel(self.weight, len(shape))


@dataclass(frozen=True)
class AveragePool(Affine):
    """Average pooling with `torch.nn.functional.avg_pool2d`'s arguments: weights 1 / |window|, no bias."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None

    def __call__(self, a: Tensor) -> Tensor:
        return F.avg_pool2d(a, *self._options())

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        like = s.new_empty(1).expand(len(s) * shape[0], *shape[1:])
        folded = torch.ops.aten.avg_pool2d_backward(s.flatten(0, 1), like, *self._options())
        return folded.unflatten(0, (len(s), shape[0]))

    def _options(self) -> tuple[object, ...]:
        return (
            self.kernel_size,
            self.stride,
            self.padding,
            self.ceil_mode,
            self.count_include_pad,
            self.divisor_override,
        )


@dataclass(frozen=True)
class AdaptiveAverage(Affine):
    """Average pooling to a given output size."""

    output_size: int | Sequence[int | None]

    def __call__(self, a: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(a, self.output_size)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        like = s.new_empty(1).expand(len(s) * shape[0], *shape[1:])
        folded = torch.ops.aten._adaptive_avg_pool2d_backward(s.flatten(0, 1), like)
        return folded.unflatten(0, (len(s), shape[0]))


@dataclass(frozen=True)
class Mean(Affine):
    """The mean over some dimensions (ascending, never the batch's): an average pool with one window."""

    dims: tuple[int, ...]
    keepdim: bool

    def __call__(self, a: Tensor) -> Tensor:
        return a.mean(self.dims, self.keepdim)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        size = 1
        for dim in self.dims:
            size *= shape[dim]
            s = s if self.keepdim else s.unsqueeze(dim + 1)
        return (s / size).expand(-1, *shape)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values
