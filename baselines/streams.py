"""Two tensors that run through a ReLU network side by side, in place of its images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from baselines.base import Task

Map = Callable[[Tensor, Tensor], Tensor]


class Streams(ABC):
    """A pair of tensors of the same shape; subclasses say what it means and what layers make of it."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        self.first, self.second = first, second

    @abstractmethod
    def affine(self, linear: Map, weight: Tensor, bias: Tensor) -> Self:
        """Return the pair after ``linear(x, weight) + bias``, where `linear` is linear in both."""

    @abstractmethod
    def relu(self) -> Self:
        """Return the pair after a ReLU."""

    @abstractmethod
    def max_pool(self, *args: Any, **kwargs: Any) -> Self:
        """Return the pair after max pooling with these arguments of `torch.nn.functional.max_pool2d`."""

    def each(self, linear: Callable[[Tensor], Tensor]) -> Self:
        """Return the pair after a linear map without weights, such as average pooling."""
        return type(self)(linear(self.first), linear(self.second))

    def through(self, network: nn.Module) -> Self:
        """Return the pair at the network's output; its batch norms use their running statistics.

        Raises
        ------
        ValueError
            If the network has an operation without a rule.
        """
        training = network.training
        network.eval()
        try:
            return network(self)
        except AttributeError as error:
            raise ValueError(f"{type(self).__name__} has no rule for an operation of the backbone: {error}") from error
        finally:
            network.train(training)

    @classmethod
    def check(cls, network: nn.Module, task: Task) -> None:
        """Raise ValueError if the network has an operation without a rule."""
        nothing = torch.zeros(1, task.channels, task.image_size, task.image_size)
        with torch.no_grad():
            cls(nothing, nothing).through(network)

    def dim(self) -> int:
        """Return the number of dimensions, which batch norms ask for."""
        return self.first.dim()

    def flatten(self, *dims: int) -> Self:
        """Return the pair with some dimensions joined."""
        return self.each(lambda x: x.flatten(*dims))

    def expand(self, *sizes: int) -> Self:
        """Return the pair with channels repeated."""
        return self.each(lambda x: x.expand(*sizes))

    def __add__(self, other: Self) -> Self:
        """Return the sum with another branch of the network."""
        return type(self)(self.first + other.first, self.second + other.second)

    def __sub__(self, constant: Tensor) -> Self:
        """Return the pair less a constant, as where pixels are normalised."""
        return self.affine(torch.mul, torch.ones_like(constant), -constant)

    def __truediv__(self, constant: Tensor) -> Self:
        """Return the pair in another unit, as where pixels are normalised."""
        return self.affine(torch.mul, 1 / constant, torch.zeros_like(constant))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Streams:
        """Run a layer of the network: torch calls this instead of the layer's function."""
        pair, *rest = args
        given = dict(kwargs or {})
        if function in (F.linear, F.conv2d):
            weight, bias, *options = rest
            shape = (-1,) if function is F.linear else (-1, 1, 1)
            bias = weight.new_zeros(len(weight)) if bias is None else bias
            return pair.affine(lambda x, w: function(x, w, None, *options), weight, bias.view(shape))
        if function is F.batch_norm:
            mean, variance = rest
            scale = given["weight"] / (variance + given["eps"]).sqrt()
            shift = given["bias"] - mean * scale
            return pair.affine(torch.mul, scale.view(-1, 1, 1), shift.view(-1, 1, 1))
        if function is F.relu:
            return pair.relu()
        if function is F.max_pool2d:
            return pair.max_pool(*rest, **given)
        if function in (F.avg_pool2d, F.adaptive_avg_pool2d):
            return pair.each(lambda x: function(x, *rest, **given))
        if function is F.dropout:
            return pair  # `through` runs the network in evaluation mode.
        raise ValueError(f"{cls.__name__} has no rule for {torch.overrides.resolve_name(function)}")
