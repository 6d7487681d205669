"""Batch-norm statistics of one forward pass: recorded, and used again as constants."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["BatchStatistics", "Statistics", "batch_counters"]

_SIGNATURE = inspect.signature(F.batch_norm)


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
        shift = -self.mean * scale
        return scale, shift if bias is None else bias + shift


def batch_counters(model: nn.Module) -> set[int]:
    """Return the ids of the buffers in which batch norms count their batches.

    ``nn.BatchNorm`` counts before it normalises; a second pass over the same batch must not count again.
    """
    return {id(buffer) for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")}


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
        call = _SIGNATURE.bind(*args, **kwargs)
        call.apply_defaults()
        a = call.arguments
        if not a["training"]:
            return func(*args, **kwargs)
        x = a["input"]
        out, mean, inverse_std = torch.native_batch_norm(
            x, a["weight"], a["bias"], a["running_mean"], a["running_var"], True, a["momentum"], a["eps"]
        )
        self._recorded.append(Statistics(mean.detach(), inverse_std.detach(), x.numel() // x.shape[1], a["eps"]))
        return out
