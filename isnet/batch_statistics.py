"""Batch-norm statistics of one forward pass: recorded, and used again as constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from isnet.calls import Call, Kind, calling_modules, values_kept


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


class Met(NamedTuple):
    """What a layer met in an earlier pass: its weights, batch statistics, and outputs for chosen images."""

    weight: Tensor | None
    bias: Tensor | None
    statistics: Statistics | None = None
    rows: Tensor | None = None


class BatchStatistics(TorchFunctionMode):
    """Record the batch statistics of every batch norm of a forward pass in training mode.

    ``with BatchStatistics() as statistics: logits = model(images)`` computes what it would without the context. A later
    pass over some of the same images can take these statistics as constants and then sees exactly the same network.
    Each batch norm gets those that its own module made.
    """

    def __init__(self) -> None:
        super().__init__()
        self._met: dict[tuple[object, ...], list[Met]] = {}

    def met(self) -> dict[tuple[object, ...], list[Met]]:
        """Return what was recorded, by :func:`layer_key`."""
        return self._met

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        with values_kept():
            return self._follow(call)

    def _follow(self, call: Call) -> Any:
        key = layer_key(call)
        if key is None:
            return call.run()
        given, statistics = call.arguments(), None
        if key[1] is Kind.BATCH_NORM and given.get("training"):
            norm = BatchNormCall(**given)
            out, mean, inverse_std = norm.in_training()
            statistics = norm.statistics(mean, inverse_std)
        else:
            out = call.run()
        self._keep(key, Met(given.get("weight"), given.get("bias"), statistics), out)
        return out

    def _keep(self, key: tuple[object, ...], met: Met, out: Tensor) -> None:
        if met.statistics is not None:
            self._met.setdefault(key, []).append(met)


def layer_key(call: Call) -> tuple[object, ...] | None:
    """Return which layer a call is, in each pass over a network: module, kind, training mode; None if it is none."""
    norm = call.function is F.batch_norm
    if call.kind not in (Kind.CONVOLUTION, Kind.LINEAR) and not norm:
        return None
    training = norm and bool(call.arguments().get("training"))
    return next(calling_modules(), None), call.kind, training


def per_channel(values: Tensor, ndim: int) -> Tensor:
    """View one value per channel so that it broadcasts over ``(N, C, ...)`` with `ndim` dimensions."""
    return values.view(-1, *(1,) * (ndim - 2))
