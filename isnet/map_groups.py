"""The loss of heatmaps, some of them after the other, so that the graphs of all are never there at one time.

A backward pass from a heatmap's loss first crosses that heatmap's own graph, down to the activations and weights of
which it is made, and to what the first layer's rule divides by. What lies below, from activations to parameters, is
linear in what arrives there: the sum over all maps crosses it once, together with the gradient of the classification.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from isnet.engine import Explanation
from isnet.flex_functions import Propagation


class Maps(Protocol):
    """A graph from which heatmaps can be made."""

    logits: Tensor
    propagation: Propagation
    activations: list[Tensor]

    def denominators(self) -> list[Tensor]:
        """Return what all heatmaps share."""

    def maps(
        self, create_graph: bool = True, which: slice = slice(None), denominators: Sequence[Tensor] | None = None
    ) -> Explanation:
        """Make some of the heatmaps."""


def loss_by_groups(graph: Maps, groups: Sequence[slice], loss: Callable[[Tensor, slice], Tensor]) -> Tensor | None:
    """Return the mean loss of all maps; None if a map is not finite, or hooks of tensors must see whole gradients."""
    shared = graph.denominators()
    # Leaves that stand for them: gradients end there, too.
    entrances = [value.detach().requires_grad_(value.requires_grad) for value in shared]
    below = [*(value for value in graph.activations if value.requires_grad), *_leaves(graph.logits)]
    if any(end._backward_hooks for end in below):
        return None
    ends = [*(value for value in entrances if value.requires_grad), *below]
    sums: list[Tensor | None] = [None] * len(ends)
    total = torch.zeros((), device=graph.logits.device)
    number = groups[-1].stop
    for group in groups:
        relevance = graph.maps(which=group, denominators=entrances).relevance
        if not bool(relevance.detach().sum().isfinite()):
            return None
        share = loss(relevance, group) * ((group.stop - group.start) / number)
        # Gradients do not depend on whether the network itself runs under autocast.
        with graph.propagation.stopping_at_activations(), torch.autocast(relevance.device.type, enabled=False):
            found = torch.autograd.grad(share, ends, retain_graph=True, allow_unused=True)
        # In place, on clones, since torch's may share memory.
        sums = [
            old if new is None else new.clone() if old is None else old.add_(new)
            for old, new in zip(sums, found, strict=True)
        ]
        total = total + share.detach()
        # Else this group's graph would outlive the making of the next one's.
        del relevance, share, found
    ends = [*(value for value in shared if value.requires_grad), *below]
    reached = [(end, of_end) for end, of_end in zip(ends, sums, strict=True) if of_end is not None]
    return _WithGradients.apply(total, len(reached), *(end for end, _ in reached), *(of_end for _, of_end in reached))


def _leaves(output: Tensor) -> list[Tensor]:
    """Return the parameters, and images if these ask for gradients, on which an output depends."""
    pending, seen, found = [output.grad_fn], set(), []
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        pending.extend(parent for parent, _ in node.next_functions)
    return found


class _WithGradients(Function):
    """A value whose gradients with respect to some tensors are known."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, number: int, *tensors_and_gradients: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors_and_gradients[number:])
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "the gradient of a loss of maps that are made in groups cannot be differentiated again: give the ISNet "
                "maps_at_once=None"
            )
        gradients = ctx.saved_tensors
        return (
            None,
            None,
            *((gradient * grad).to(gradient.dtype) for gradient in gradients),
            *(None,) * len(gradients),
        )
