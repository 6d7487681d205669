"""Where LRP-Block's walk starts: the relevance of the outputs for each explained quantity.

Shapes: logits ``(N, classes)``, relevance ``(K, N, ...)``. Output biases are detached, as everywhere in
LRP-Block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from isnet.affine_layers import Weighted
from isnet.block_operations import Reshape, is_weighted
from isnet.block_tape import Node, Value
from isnet.errors import UnsupportedNetworkError
from isnet.quantities import JointLogits, Quantity, SoftmaxEta
from isnet.rules import Rule, stabilise

__all__ = ["starts"]

# Of the odds (1 - p) / p in SoftmaxEta's difference layer; fixed in the authors' code.
_ODDS_EPSILON = 1e-5


@dataclass(frozen=True, eq=False)
class _OutputLayer:
    """The layer that makes the logits, with its input and output."""

    layer: Weighted
    source: Value
    output: Value

    def logits(self) -> Tensor:
        return self.layer(self.source.tensor).flatten(1)

    def positive(self, rule: Rule) -> Tensor:
        return rule.positive_output(self.layer, self.source.tensor, self.source.nonnegative)[None]

    def sent_back(self, s: Tensor) -> Tensor:
        a = self.source.tensor
        return a * self.layer.transposed(s.reshape(-1, *self.output.tensor.shape), a.shape)


def starts(root: Value, nodes: Sequence[Node], quantity: Quantity, rules: Sequence[Rule]) -> list[tuple[Value, Tensor]]:
    """Return, for each rule, a value at or near the logits (`root`) and the relevance that starts there.

    Raises
    ------
    UnsupportedNetworkError
        If the quantity needs an output layer and the logits are made in another way.
    ValueError
        If the quantity does not fit the rules or the number of classes.
    """
    last = _output_layer(nodes)
    logits = root.tensor if last is None else last.logits()
    if isinstance(quantity, JointLogits):
        return [_positive_outputs(last, rule) if rule.name == "zplus" else (root, logits[None]) for rule in rules]
    classes = quantity.classes(root.tensor)
    if isinstance(quantity, SoftmaxEta):
        if any(rule.name != "epsilon" for rule in rules):
            raise ValueError('SoftmaxEta is defined for the epsilon rule: use rules=("epsilon",)')
        start = _log_odds(last, logits, classes[:, 0], rules[0])
    else:
        start = (root, logits * F.one_hot(classes.transpose(0, 1), logits.shape[1]).to(logits.dtype))
    return [start] * len(rules)


def _output_layer(nodes: Sequence[Node]) -> _OutputLayer | None:
    node = next((node for node in reversed(nodes) if not isinstance(node.operation, Reshape)), None)
    if node is None or not is_weighted(node):
        return None
    return _OutputLayer(node.operation.layer, node.inputs[0], node.output)


def _positive_outputs(last: _OutputLayer | None, rule: Rule) -> tuple[Value, Tensor]:
    """Return z-plus's virtual positive outputs: what remains of each logit without its negative terms."""
    _check(last, "JointLogits with the z-plus rule")
    return last.output, last.positive(rule)


def _log_odds(last: _OutputLayer | None, logits: Tensor, classes: Tensor, rule: Rule) -> tuple[Value, Tensor]:
    """Return the relevance, at the output layer's input, of the softmax log-odds of one class per image.

    With Z_k = y_c - y_k the odds against class c are D = sum over k != c of exp(-Z_k). Output k of the
    difference layer has relevance Z_k exp(-Z_k) / (D + 1e-5), which the epsilon rule sends through the
    weights w_c - w_k.
    """
    _check(last, "SoftmaxEta")
    if logits.shape[1] < 2:
        raise ValueError("SoftmaxEta needs at least two classes: eta of a single softmax output is constant")
    explained = F.one_hot(classes, logits.shape[1]).bool()
    differences = logits.gather(1, classes[:, None]) - logits
    others = (-differences).masked_fill(explained, -torch.inf)
    # exp(-Z_k) / (D + 1e-5), written so that large logits do not overflow.
    log_odds = others.logsumexp(1, keepdim=True)
    weights = others.softmax(1) * torch.sigmoid(log_odds - math.log(_ODDS_EPSILON))
    s = differences * weights / stabilise(differences, rule.epsilon)
    return last.source, last.sent_back(torch.where(explained, s.sum(1, keepdim=True), -s))


def _check(last: _OutputLayer | None, what: str) -> None:
    if last is None:
        raise UnsupportedNetworkError(
            f"{what} needs logits that come straight from a linear layer or a "
            "convolution; use EveryLogit, Logit or RandomLogit for this network"
        )
