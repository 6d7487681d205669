"""LRP-Block: explicit layer-by-layer relevance propagation through any network of known layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from isnet.batch_statistics import BatchStatistics
from isnet.block_operations import build, fuse_batch_norms, is_weighted, leading_to
from isnet.block_outputs import starts
from isnet.block_tape import Node, Tape, Value
from isnet.errors import UnsupportedNetworkError
from isnet.flex import Explanation, check_arguments, check_images, check_logits
from isnet.module_outputs import check_layers, collect_outputs, unwrap
from isnet.quantities import Quantity
from isnet.rules import Rule

__all__ = ["LRPBlock"]


class LRPBlock:
    r"""Explain a network's outputs with LRP-Block: one explicit rule per layer, from output to image.

    The forward pass is recorded and walked backwards, so the architecture does not matter as long as it is
    made of convolutions, linear layers, batch norm, ReLU, max and average pools, sums, concatenations,
    dropout and rearrangements: ResNet, VGG, DenseNet, Inception and the like, from torchvision or timm.
    Anything else between the image and the logits raises an error that names it.

    With z a layer's output, its bias detached, and :math:`st(z) = z + \epsilon\,\mathrm{sign}(z)`:

    * linear layer, convolution: :math:`R_j = a_j \sum_k w_{jk} R_k / st(z_k)`; z-plus keeps positive
      weights (for negative inputs negative ones) and positive biases. A batch norm is fused into the layer
      if it alone reads that layer's output; any other batch norm, as in DenseNet, is an affine layer of its
      own under the same rule. Its statistics are constants: running ones or, in training mode, the batch's
      (unbiased variance);
    * first layer with ``input_rule="zb"``: the z^B rule, whatever the rule behind it;
    * average pools: as convolutions with equal weights. Max pools: to the maximum of each window, where what
      overlapping windows send adds up (the authors' code keeps one of them and loses relevance);
    * sums: in proportion to the terms. Concatenation, ReLU, dropout, multiplication by a number: unchanged.

    Parameters
    ----------
    model : nn.Module
        Maps images ``(N, C, H, W)`` to logits ``(N, classes)``. Neither copied nor changed; its training mode
        decides about batch norm. A ``DataParallel``-style wrapper is looked through.
    rules : sequence of {"zplus", "epsilon"}
        One set of heatmaps per rule, in this order. ``("zplus", "epsilon")`` with
        :class:`isnet.JointLogits` makes the pair of the Dual ISNet.
    epsilon : float
        Stabiliser of every denominator, > 0, in units of activations.
    input_rule : {"zb", "epsilon"}
        Rule of layers that read the image itself: z^B, or "epsilon" for the same rule as everywhere else.
    low, high : float
        Range of pixel values, for z^B.
    layers : sequence of str
        Names of modules (as in ``model.named_modules()``) at whose outputs relevance is wanted too. Inside a
        convolution fused with its batch norm there is only one: that at the batch norm's output.

    Raises
    ------
    ValueError
        If an argument lies outside its range or a layer does not exist.

    Notes
    -----
    Nature Communications 15, 291, 2024, Methods (LRP Block); arXiv 2401.08409, Section III (quantities).
    Gradients of a loss of the heatmaps reach weights and batch norm's gammas; biases, betas
    and batch statistics are constants of the rules, as in the authors' code. Runs in the parameters'
    precision: autocast is off inside.

    Examples
    --------
    >>> explain = isnet.LRPBlock(model, rules=("epsilon",))
    >>> logits, relevance, _ = explain(images, isnet.Logit(labels))
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Sequence[Literal["zplus", "epsilon"]] = ("zplus", "epsilon"),
        epsilon: float = 1e-2,
        input_rule: Literal["zb", "epsilon"] = "zb",
        low: float = 0.0,
        high: float = 1.0,
        layers: Sequence[str] = (),
    ) -> None:
        check_arguments(epsilon, input_rule, low, high, rules)
        self.model = unwrap(model)
        self.layers = tuple(layers)
        check_layers(self.model, self.layers)
        input_range = (low, high) if input_rule == "zb" else None
        self._rules = tuple(Rule(name, epsilon, input_range) for name in rules)

    def __call__(self, images: Tensor, quantity: Quantity, statistics: BatchStatistics | None = None) -> Explanation:
        """Classify and explain, with one forward pass.

        Parameters
        ----------
        images : Tensor
            Shape ``(N, C, H, W)``, values in [low, high].
        quantity : Quantity
            What to explain: K maps per rule. Class quantities start from their logits, with either rule;
            :class:`isnet.JointLogits` starts z-plus from the outputs' positive parts;
            :class:`isnet.SoftmaxEta` goes through a difference layer (its `eps` is not used) and needs
            ``rules=("epsilon",)``.
        statistics : BatchStatistics, optional
            Batch statistics of an earlier pass, to be used as constants by batch norms in training mode.

        Returns
        -------
        Explanation
            ``logits`` (N, classes); ``relevance`` (N, K x rules, C, H, W), rule by rule; ``layers``: name
            -> (N, K x rules, c, h, w). Differentiable while gradients are enabled, else the same numbers,
            detached.

        Raises
        ------
        UnsupportedNetworkError
            If an operation between the image and the logits has no rule; the message names it and its module.
        ValueError
            If the batch is empty, the quantity fits neither rules nor logits, or a layer does not run exactly once.
        """
        check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            tape = Tape(self.model, images, build, statistics)
            with collect_outputs(self.model, self.layers, tape.read) as outputs, tape:
                logits = self.model(images)
            check_logits(logits, images)
            root = _root(tape, logits)
            nodes, inside = fuse_batch_norms(leading_to(root, tape.nodes))
            wanted = {name: inside.get(value, value) for name, value in outputs.items()}
            self._check_first_layer(nodes)
            begin = starts(root, nodes, quantity, self._rules)
            found = [
                _walk(nodes, {tape.images, *wanted.values()}, start, rule)
                for start, rule in zip(begin, self._rules, strict=True)
            ]
        at_layers = {name: _joined(found, value, f"layer {name!r}") for name, value in wanted.items()}
        return Explanation(logits, _joined(found, tape.images, "the image"), at_layers)

    def _check_first_layer(self, nodes: Sequence[Node]) -> None:
        if self._rules[0].input_range is None:
            return
        if not any(is_weighted(node) and node.inputs[0].ones is not None for node in nodes):
            raise UnsupportedNetworkError(
                "the z^B rule needs a convolution, linear layer or batch norm that "
                "reads the images themselves; use input_rule='epsilon'"
            )


def _walk(nodes: Sequence[Node], wanted: set[Value], start: tuple[Value, Tensor], rule: Rule) -> dict[Value, Tensor]:
    """Send relevance ``(K, N, ...)`` backwards from one value; return what reaches the wanted ones."""
    relevance = dict([start])
    for node in reversed(nodes):
        if node.output not in relevance:
            continue
        arriving = relevance[node.output] if node.output in wanted else relevance.pop(node.output)
        parts = node.operation.relevances(arriving, node.inputs, rule)
        for value, part in zip(node.inputs, parts, strict=True):
            relevance[value] = relevance[value] + part if value in relevance else part
    return {value: relevance[value] for value in wanted if value in relevance}


def _joined(found: Sequence[dict[Value, Tensor]], value: Value, what: str) -> Tensor:
    if not all(value in relevance for relevance in found):
        raise ValueError(f"no relevance passes {what} on its way from the explained quantity to the image")
    return torch.cat([relevance[value] for relevance in found]).transpose(0, 1)


def _root(tape: Tape, logits: Tensor) -> Value:
    value = tape.value(logits)
    if value is None:
        raise UnsupportedNetworkError(
            "the logits cannot be traced back to the images: between them lies an operation that torch's "
            "functions do not show, such as a custom autograd function or compiled code"
        )
    return value
