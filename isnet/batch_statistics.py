"""Batch-norm statistics of one forward pass: recorded, and used again as constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Statistics:
    """Mean and ``1 / sqrt(variance + eps)`` per channel, as constants.

    `count` is the number of values per channel from which the (biased) batch variance was taken; None for running
    statistics.
    """

    mean: Tensor
    inverse_std: Tensor
    count: int | None
    eps: float

    @classmethod
    def running(cls, mean: Tensor, variance: Tensor, eps: float) -> Statistics:
        """Make statistics of batch norm's running mean and variance."""
        return cls(mean.detach().clone(), (variance.detach() + eps).rsqrt(), None, eps)

    def unbiased(self) -> Statistics:
        """Return the statistics with the unbiased batch variance, which the fused weights of z^B and LRP-Block use."""
        if self.count is None or self.count < 2:
            return self
        variance = (self.inverse_std.pow(-2) - self.eps) * (self.count / (self.count - 1))
        return replace(self, inverse_std=(variance + self.eps).rsqrt())

    def scale_and_shift(self, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return batch norm as the affine map ``scale * x + shift``, each of shape ``(channels,)``."""
        scale = self.inverse_std if weight is None else weight * self.inverse_std
        return scale, -self.mean * scale if bias is None else torch.addcmul(bias, self.mean, scale, value=-1)


class BatchNormCall(NamedTuple):
    """The arguments of one call of ``torch.nn.functional.batch_norm``, with its defaults."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5

    def running_statistics(self) -> Statistics:
        """Return the statistics of a call in evaluation mode."""
        assert self.running_mean is not None
        assert self.running_var is not None
        return Statistics.running(self.running_mean, self.running_var, self.eps)

    def with_constants(self, statistics: Statistics) -> Tensor:
        """Return the output with constant statistics, one affine map per channel."""
        scale, shift = statistics.scale_and_shift(self.weight, self.bias)
        return torch.addcmul(per_channel(shift, self.input.ndim), self.input, per_channel(scale, self.input.ndim))

    def in_training(self) -> tuple[Tensor, Tensor, Tensor]:
        """Run the call in training mode: output, batch mean and inverse (biased) standard deviation."""
        if self.input.numel() == self.input.shape[1]:
            # As torch's own function, which is past this call, says it.
            raise ValueError(
                f"batch norm in training mode expects more than 1 value per channel, got input of size "
                f"{tuple(self.input.shape)}: leave batches of one image out (drop_last=True), or use larger images"
            )
        running = self.running_mean, self.running_var
        return torch.native_batch_norm(self.input, self.weight, self.bias, *running, True, self.momentum, self.eps)

    def statistics(self, mean: Tensor, inverse_std: Tensor) -> Statistics:
        """Return the statistics of a call in training mode, given what it computed."""
        return Statistics(mean.detach(), inverse_std.detach(), self.input.numel() // self.input.shape[1], self.eps)


class BatchStatistics(TorchFunctionMode):
    """Record the batch statistics of every batch norm of a forward pass in training mode.

    ``with BatchStatistics() as statistics: logits = model(images)`` computes what it would without the context. A later
    pass over some of the same images can take these statistics as constants and then sees exactly the same network.
    """

    def __init__(self) -> None:
        super().__init__()
        self._recorded: list[Statistics] = []

    def replay(self) -> Iterator[Statistics]:
        """Iterate over the recorded statistics in the order of the forward pass."""
        return iter(self._recorded)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.batch_norm:
            return func(*args, **kwargs)
        call = BatchNormCall(*args, **kwargs)
        if not call.training:
            return func(*args, **kwargs)
        out, mean, inverse_std = call.in_training()
        self._recorded.append(call.statistics(mean, inverse_std))
        return out


def per_channel(values: Tensor, ndim: int) -> Tensor:
    """View one value per channel so that it broadcasts over ``(N, C, ...)`` with `ndim` dimensions."""
    return values.view(-1, *(1,) * (ndim - 2))
