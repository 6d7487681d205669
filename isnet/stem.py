"""The first layer of a network for the z^B rule: how it reads the images, and how relevance passes to them.

Between the images and that layer they may be rearranged, padded, repeated and normalised; between it and the first ReLU
there may be a batch norm and a max pool. Convolutions that are added up are one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from isnet.affine_layers import Convolution, Weighted
from isnet.batch_statistics import Statistics
from isnet.calls import Call, Kind, tensors_in
from isnet.rules import ZB, Bounds


def identity(images: Tensor) -> Tensor:
    """Return the images as they are."""
    return images


@dataclass(frozen=True)
class Stem:
    """The first layer of a network, to which z^B applies: convolution or linear layer, perhaps batch norm, ReLU.

    `layer` is fused with its batch norm, if it is `normalised`; its biases are constants, but for the share that gamma
    scales. `inputs` are the images as the layer reads them, ``pixels(images)``. Relevance passes max pools between the
    layer and the ReLU by `routes`, the last one first.
    """

    layer: Weighted
    inputs: Tensor
    pixels: Callable[[Tensor], Tensor] = identity
    normalised: bool = False
    routes: tuple[Callable[[Tensor], Tensor], ...] = ()

    def followed_by(self, statistics: Statistics, weight: Tensor | None, bias: Tensor | None) -> Stem:
        """Return the stem with a batch norm."""
        scale, shift = statistics.unbiased().scale_and_shift(weight, None if bias is None else bias.detach())
        return replace(self, layer=self.layer.followed_by(scale, shift), normalised=True)

    def denominator(self, first: ZB, images: Tensor, copies: int) -> Tensor:
        """Return what the rule divides relevance by; the images hold `copies` of the same ones."""
        # Maps of the same image share what the rule makes of the image alone.
        inputs = self.inputs[: len(self.inputs) // copies]
        return first.denominator(self.layer, inputs, self._bounds(first, images))

    def through(self, first: ZB, images: Tensor, relevance: Tensor, denominator: Tensor) -> Tensor:
        """Send relevance ``(K, N, ...)`` from the ReLU's output to the images."""
        for route in reversed(self.routes):
            relevance = route(relevance)
        inputs = self.inputs[: len(denominator)]
        maps = relevance.reshape(-1, len(inputs), *relevance.shape[2:])
        found = first.through(self.layer, inputs, self._bounds(first, images), maps, denominator)
        if self.pixels is identity:
            return found.view(-1, *images.shape)
        return self._back(images, found.view(-1, *self.inputs.shape))

    def _bounds(self, first: ZB, images: Tensor) -> Bounds:
        if self.pixels is identity:
            return first.bounds(images[:1])
        low, high = first.bounds(images)
        ends = [self.pixels(torch.zeros_like(high) if low is None else low), self.pixels(high)]
        if len(self.inputs) == len(images):
            ends = [end[:1] for end in ends]
        lowest = torch.minimum(*ends)
        return lowest if bool(lowest.any()) else None, torch.maximum(*ends)

    def _back(self, images: Tensor, relevance: Tensor) -> Tensor:
        """Give the relevance of the layer's inputs to the pixels of which each is a multiple, plus a constant."""
        zeros = torch.zeros_like(images).requires_grad_()
        out = self.pixels(zeros.clone())
        factor = self.pixels(torch.ones_like(images)) - out.detach()
        shares = torch.where(factor == 0, 0, relevance / factor).to(out.dtype)
        return torch.stack([torch.autograd.grad(out, zeros, share, True, True)[0] for share in shares])


def moved(before: Callable[[Tensor], Tensor], move: Callable[[Any], Any], index: int = 0) -> Callable[[Tensor], Tensor]:
    """Return the function that makes a selection, a rearrangement or a multiple of the images."""
    return lambda images: tensors_in((move(before(images)),))[index]


def joined(
    sources: Sequence[tuple[Callable[[Tensor], Tensor] | None, Tensor | None]], join: Callable[[Any], Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return the function that joins what is made of the images, and constants."""
    return lambda images: join([constant if source is None else source(images) for source, constant in sources])


def with_constant(call: Call, operand: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a sum, difference, product or quotient with a constant as a function of the other operand."""
    given = call.arguments()
    first = given["input"] is operand
    other: Any = given.get("other") if first else given["input"]
    if call.kind is Kind.NEGATE:
        return torch.neg
    if call.kind is Kind.ADD:
        return lambda x: x + other
    if call.kind is Kind.MULTIPLY:
        return lambda x: x * other
    if call.kind is Kind.DIVIDE:
        return lambda x: x / other
    minuend = first is (call.kind is Kind.SUBTRACT)
    return lambda x: x - other if minuend else other - x


def fused(stem: Stem, change: Callable[[Tensor], Tensor], value: Tensor) -> Stem | None:
    """Return a first layer that is followed by one factor and one term per channel, as of a frozen batch norm."""
    zeros = value.new_zeros(1, value.shape[1], *(1,) * (value.ndim - 2))
    shift = change(zeros)
    if shift.shape != zeros.shape:
        return None
    scale = (change(torch.ones_like(zeros)) - shift).flatten()
    return replace(stem, layer=stem.layer.followed_by(scale, shift.flatten().detach()))


def summed(left: Stem, right: Stem) -> Stem | None:
    """Return two first layers that are added up as one, if they are convolutions of the same images, moving alike.

    What is affine in the images is one layer to z^B: the smaller kernel lies in the middle of the larger one.
    """
    small, large = sorted((left, right), key=lambda stem: stem.layer.weight.shape[2:])
    one, other = small.layer, large.layer
    if not (isinstance(one, Convolution) and isinstance(other, Convolution)) or small.routes or large.routes:
        return None
    kernels = zip(other.weight.shape[2:], one.weight.shape[2:], other.geometry.dilation, strict=True)
    excess = [spacing * (wide - narrow) for wide, narrow, spacing in kernels]
    padding = [2 * (a - b) for a, b in zip(other.geometry.padding, one.geometry.padding, strict=True)]
    alike = one.geometry._replace(padding=()) == other.geometry._replace(padding=())
    if left.inputs is not right.inputs or not alike or padding != excess or min(excess) < 0:
        return None
    per_axis = zip(excess, other.geometry.dilation, strict=True)
    border = [width // (2 * spacing) for width, spacing in reversed([*per_axis]) for _ in range(2)]
    weight = other.weight + F.pad(one.weight, border)
    bias = other.bias if one.bias is None else one.bias if other.bias is None else one.bias + other.bias
    normalised = left.normalised or right.normalised
    return replace(large, layer=replace(other, weight=weight, bias=bias), normalised=normalised)


def route_of(pool: Callable[[Tensor], Tensor], source: Tensor) -> Callable[[Tensor], Tensor]:
    """Return how relevance ``(K, N, ...)`` passes a max pool of `source`: to each window's maximum."""

    def route(relevance: Tensor) -> Tensor:
        entrance = source.requires_grad_()
        pooled = pool(entrance)
        parts = [torch.autograd.grad(pooled, entrance, each.to(pooled.dtype), True, True)[0] for each in relevance]
        return torch.stack(parts)

    return route
