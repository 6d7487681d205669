"""Autograd functions whose backward pass follows an LRP rule while a heatmap is made, and true calculus otherwise.

A heatmap and the gradient of its loss traverse the same graph. Which rule holds is a field of the call that built
the graph (:class:`Propagation`), so nothing is global and two calls cannot disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from isnet.affine_layers import wide
from isnet.batch_statistics import BatchNormCall, per_channel
from isnet.rules import Epsilon, Rule, ZPlus


class Propagation:
    """The rule under which one call's graph is traversed; None is calculus.

    While it `stops_at_activations`, gradients end at the outputs of ReLUs.
    """

    def __init__(self, frozen_statistics: bool) -> None:
        self.frozen_statistics, self.stops_at_activations = frozen_statistics, False
        self.rule: Rule | None = None

    @property
    def freezes(self) -> bool:
        """Whether batch statistics are constants now; z-plus is defined for constant ones only."""
        return isinstance(self.rule, ZPlus) or (self.rule is not None and self.frozen_statistics)

    @contextmanager
    def following(self, rule: Rule) -> Iterator[None]:
        """Traverse the graph under `rule` inside the context."""
        self.rule = rule
        try:
            yield
        finally:
            self.rule = None

    @contextmanager
    def stopping_at_activations(self) -> Iterator[None]:
        """Let gradients end at the outputs of ReLUs inside the context."""
        self.stops_at_activations = True
        try:
            yield
        finally:
            self.stops_at_activations = False


class DampedReLU(Function):
    """ReLU with LRP's damping a / (z + epsilon) in place of its derivative while a heatmap is made.

    The epsilon rule sends ``G a / (a + epsilon)`` to the pre-activation z, or ``inactive_slope G`` where the unit is
    silent, z <= 0; the z-plus rule sends
    ``G a / (P + epsilon)`` to P, the positive part of z, which is carried beside it. With G the relevance per unit of
    activation (R = a G), both are the LRP rules of all affine operations between two ReLUs taken as one layer (arXiv
    2401.08409, LRP-Flex).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, positive: Tensor | None, propagation: Propagation, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(z)
            activation = z.relu_()
        else:
            activation = z.relu()
        ctx.save_for_backward(activation, positive)
        ctx.propagation, ctx.factors = propagation, {}
        ctx.set_materialize_grads(False)
        return activation

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None or ctx.propagation.stops_at_activations:
            return None, None, None, None
        activation, positive = ctx.saved_tensors
        rule = ctx.propagation.rule
        if rule is None:
            return torch.ops.aten.threshold_backward(grad, activation, 0), None, None, None
        if isinstance(rule, Epsilon):
            positive = None
        if type(rule) not in ctx.factors:
            with torch.no_grad():
                ctx.factors[type(rule)] = _damping_factors(activation, positive, rule)
        damped = _Damp.apply(grad, activation, positive, rule, ctx.factors[type(rule)])
        return (damped, None, None, None) if positive is None else (None, damped, None, None)


class _Damp(Function):
    """``grad * a / (P + epsilon)``, where P is the activation a itself if no other is given.

    Where a is 0 the factor is the rule's `inactive_slope`. The factors depend on the activations alone: all heatmaps of
    a call share them, and so do their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        activation: Tensor,
        positive: Tensor | None,
        rule: Rule,
        factors: tuple[Tensor, Tensor],
    ) -> Tensor:
        ctx.save_for_backward(grad, activation, positive)
        ctx.rule, ctx.factors = rule, factors
        return (grad * factors[0]).to(grad.dtype)

    @staticmethod
    def backward(ctx: Any, tangent: Tensor) -> tuple[Tensor | None, ...]:
        grad, activation, positive = ctx.saved_tensors
        differentiable = torch.is_grad_enabled()
        factor, slope = _damping_factors(activation, positive, ctx.rule) if differentiable else ctx.factors
        of_grad = (tangent * factor).to(grad.dtype) if ctx.needs_input_grad[0] else None
        of_activation = (wide(tangent) * grad).mul_(slope)
        of_positive = None if positive is None else -(of_activation * factor)
        return of_grad, of_activation, of_positive, None, None


def _damping_factors(activation: Tensor, positive: Tensor | None, rule: Rule) -> tuple[Tensor, Tensor]:
    """Return ``f = a / (P + epsilon)`` and df/da; if a positive part P is given, then ``df/dP = -f df/da``.

    Of a silent unit df/da is of no account: the ReLU's own derivative, 0, follows.
    """
    inverse = (wide(activation if positive is None else positive) + rule.epsilon).reciprocal_()
    factor = activation * inverse
    if rule.inactive_slope:
        factor.masked_fill_(activation == 0, rule.inactive_slope)
    return factor, inverse if positive is not None else inverse.square().mul_(rule.epsilon)


class TrainingBatchNorm(Function):
    """Batch norm in training mode whose batch statistics can be constants while a heatmap is made.

    The forward pass and its true derivative are batch norm's own. A heatmap then sees the affine map that the
    statistics define, so no relevance flows through them from one image to another. Also returns the batch mean and
    the inverse (biased) standard deviation.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, call: BatchNormCall, propagation: Propagation
    ) -> tuple[Tensor, Tensor, Tensor]:
        out, mean, inverse_std = call.in_training()
        ctx.save_for_backward(x, weight, mean, inverse_std)
        ctx.eps, ctx.propagation = call.eps, propagation
        ctx.mark_non_differentiable(mean, inverse_std)
        ctx.set_materialize_grads(False)
        return out, mean, inverse_std

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 5
        x, weight, mean, inverse_std = ctx.saved_tensors
        if ctx.propagation.freezes:
            return (scaled(grad, weight, inverse_std), *(None,) * 4)
        needed = [ctx.needs_input_grad[0], weight is not None, weight is not None]
        gradients = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, None, None, mean, inverse_std, True, ctx.eps, needed
        )
        return (*gradients, None, None)


class Reused(Function):
    """The output `rows` of a layer in another graph: relevance passes on to x, gradients go to that graph.

    ``send_back(grad, weight, kept)`` is what relevance does at the layer; `kept` is x if it needs it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept: Tensor | None,
        weight: Tensor | None,
        rows: Tensor,
        send_back: Callable[[Tensor, Tensor | None, Tensor | None], Tensor],
        propagation: Propagation,
    ) -> Tensor:
        ctx.save_for_backward(weight, kept)
        ctx.send_back, ctx.propagation = send_back, propagation
        ctx.set_materialize_grads(False)
        return rows.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None or ctx.propagation.rule is None:
            return None, None, None, grad, None, None
        relevance = ctx.send_back(grad, *ctx.saved_tensors) if ctx.needs_input_grad[0] else None
        return relevance, None, None, None, None, None


def scaled(grad: Tensor, weight: Tensor | None, inverse_std: Tensor) -> Tensor:
    """Send what arrives at a batch norm with constant statistics on to its input."""
    return grad * per_channel(inverse_std if weight is None else inverse_std * weight, grad.ndim)


_OWN_NODES = tuple(function._backward_cls for function in (DampedReLU, TrainingBatchNorm, Reused))
_NETWORK_NODES = ("Convolution", "_Convolve", "Relu", "NativeBatchNorm", "MaxPool", "Addmm")


def comes_of_layers(item: Tensor, constants: Container[Any]) -> bool:
    """Say whether a tensor was computed from an activation or by layers, not of parameters alone.

    `constants` are nodes of the graph that are known to be made of parameters.
    """
    pending, seen = [item.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen or node in constants:
            continue
        if isinstance(node, _OWN_NODES) or node.name().startswith(_NETWORK_NODES):
            return True
        seen.add(node)
        pending.extend(parent for parent, _ in node.next_functions)
    return False
