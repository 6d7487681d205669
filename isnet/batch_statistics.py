"""Batch-norm statistics of one forward pass: recorded, and used again as constants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["BatchNormCall", "BatchStatistics", "Statistics", "batch_counters"]


@dataclass(frozen=True)
class Statistics:
    """Mean and inverse standard deviation per channel, as constants.

    Attributes
    ----------
    mean, inverse_std : Tensor
        Shape ``(channels,)``, detached. ``inverse_std = 1 / sqrt(variance + eps)``.
    count : int or None
        Values per channel from which the (biased) batch variance was taken; None for running statistics.
    eps : float
        Batch norm's stabiliser.
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
    """The arguments of one call of ``torch.nn.functional.batch_norm``."""

    x: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    training: bool
    momentum: float
    eps: float

    @classmethod
    def of(
        cls,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Self:
        """Read the arguments as the function itself does."""
        return cls(input, running_mean, running_var, weight, bias, training, momentum, eps)

    def statistics(self, mean: Tensor, inverse_std: Tensor) -> Statistics:
        """Return the statistics of a call in training mode, given what it computed."""
        return Statistics(mean.detach(), inverse_std.detach(), self.x.numel() // self.x.shape[1], self.eps)


def batch_counters(model: nn.Module) -> set[int]:
    """Return the ids of the buffers in which batch norms count their batches.

    ``nn.BatchNorm`` counts before it normalises; a second pass over the same batch must not count again.
    """
    counters = (getattr(module, "num_batches_tracked", None) for module in model.modules())
    return {id(counter) for counter in counters if counter is not None}


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
        call = BatchNormCall.of(*args, **kwargs)
        if not call.training:
            return func(*args, **kwargs)
        out, mean, inverse_std = torch.native_batch_norm(
            call.x, call.weight, call.bias, call.running_mean, call.running_var, True, call.momentum, call.eps
        )
        self._recorded.append(call.statistics(mean, inverse_std))
        return out
