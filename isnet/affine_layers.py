"""Affine maps as LRP rules see them: apply, transpose, split by sign.

Relevance and everything that is sent backwards carries a leading axis of K heatmaps, ``(K, N, ...)``;
activations are ``(N, ...)`` and broadcast over it. Biases are detached: as in the authors' code a bias
absorbs relevance but is not trained by the heatmap loss (batch norm's gamma is, through the bias it
scales).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from isnet.batch_statistics import per_channel


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

    def wide(self) -> Self:
        """Return the map in single precision at least."""
        return replace(self, weight=wide(self.weight), bias=None if self.bias is None else wide(self.bias))

    def without_bias(self) -> Self:
        """Return the linear part."""
        return replace(self, bias=None)

    def followed_by(self, scale: Tensor, shift: Tensor) -> Self:
        """Return this map followed by ``scale * z + shift`` in every output channel, as one map."""
        bias = shift if self.bias is None else self.bias * scale + shift
        return replace(self, weight=self.weight * scale.view(-1, *(1,) * (self.weight.ndim - 1)), bias=bias)


class Geometry(NamedTuple):
    """How a convolution moves over an image."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, eq=False)
class Convolution(Weighted):
    """A convolution over one, two or three dimensions, with any stride, padding, dilation and grouping."""

    geometry: Geometry

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
        """Make the layer of the arguments that ``torch.nn.functional.conv2d`` and its like take after the input."""
        kernel = weight.shape[2:]
        stride, dilation = _per_axis(stride, len(kernel)), _per_axis(dilation, len(kernel))
        if padding == "same":
            total = [step * (size - 1) for step, size in zip(dilation, kernel, strict=True)]
            if any(size % 2 for size in total):
                raise ValueError('the uneven padding="same" of')
            padding = tuple(size // 2 for size in total)
        padding = _per_axis(0 if padding == "valid" else padding, len(kernel))
        return cls(weight, bias, Geometry(stride, padding, dilation, groups))

    def __call__(self, a: Tensor) -> Tensor:
        return convolve(a, self.weight, self.bias, self.geometry)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        per_axis = zip(shape[2:], s.shape[3:], stride, padding, dilation, self.weight.shape[2:], strict=True)
        # Rows and columns at the far border that no window reached get nothing.
        unreached = [
            size - ((windows - 1) * step - 2 * border + spread * (kernel - 1) + 1)
            for size, windows, step, border, spread, kernel in per_axis
        ]
        transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(stride) - 1]
        folded = transpose(s.flatten(0, 1), self.weight, None, stride, padding, unreached, groups, dilation)
        return folded.unflatten(0, (len(s), shape[0]))

    def transposed_each(self, weights: Sequence[Tensor], s: Tensor, shape: torch.Size) -> list[Tensor]:
        # One convolution for all: an image has few channels, and a transposed convolution to one of them costs as much
        # as to several.
        stacked = replace(self, weight=torch.cat(list(weights), 1)).transposed(s, shape)
        grouped = stacked.unflatten(2, (self.geometry.groups, len(weights), -1))
        return [part.flatten(2, 3) for part in grouped.unbind(3)]


@dataclass(frozen=True, eq=False)
class TransposedConvolution(Weighted):
    """A transposed convolution; its weights hold input channels first."""

    geometry: Geometry
    output_padding: Any = 0

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None, output_padding: Any = 0, **geometry: Any) -> Self:
        """Make the layer of the arguments that ``conv_transpose2d`` and its like take after the input."""
        return cls(weight, bias, Convolution.of(weight, **geometry).geometry, output_padding)

    def __call__(self, a: Tensor) -> Tensor:
        stride, padding, dilation, groups = self.geometry
        transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(stride) - 1]
        return transpose(a, self.weight, self.bias, stride, padding, self.output_padding, groups, dilation)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        return convolve(s.flatten(0, 1), self.weight, None, self.geometry).unflatten(0, (len(s), shape[0]))


@dataclass(frozen=True, eq=False)
class Linear(Weighted):
    """A matrix product over the last dimension."""

    def __call__(self, a: Tensor) -> Tensor:
        return F.linear(a, self.weight, self.bias)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        return s @ self.weight


@dataclass(frozen=True, eq=False)
class Diagonal(Weighted):
    """One factor and one offset per channel (dimension 1): a batch norm."""

    def __call__(self, a: Tensor) -> Tensor:
        z = a * per_channel(self.weight, a.ndim)
        return z if self.bias is None else z + per_channel(self.bias, a.ndim)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        return s * per_channel(self.weight, len(shape))


@dataclass(frozen=True)
class AveragePool(Affine):
    """Average pooling: weights 1 / |window|, no bias. `push` is its backward pass; both take `options` at the end."""

    pool: Callable[..., Tensor]
    push: Callable[..., Tensor]
    options: tuple[Any, ...]

    def __call__(self, a: Tensor) -> Tensor:
        return self.pool(a, *self.options)

    def transposed(self, s: Tensor, shape: torch.Size) -> Tensor:
        like = s.new_empty(1).expand(len(s) * shape[0], *shape[1:])
        return self.push(s.flatten(0, 1), like, *self.options).unflatten(0, (len(s), shape[0]))


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


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Convolve over as many dimensions as the weight has."""
    return (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3](x, weight, bias, *geometry)


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def wide(values: Tensor) -> Tensor:
    """Return values of half precision in single precision, others as they are: quotients by an epsilon need it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
