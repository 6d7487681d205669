"""LRP-Block: explicit layer-by-layer relevance propagation through any network of known layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isnet.affine_layers import Convolution, Diagonal, Linear, Weighted
from isnet.batch_statistics import BatchStatistics
from isnet.block_tape import Layer, Node, Operation, Reshape, Tape, Value
from isnet.engine import Engine, Explanation, check_logits, collect_outputs
from isnet.first_pass import Replay
from isnet.quantities import ClassQuantity, JointLogits, Quantity, SoftmaxEta
from isnet.refusal import NO_FIRST_LAYER, UnsupportedNetworkError
from isnet.rules import Bound, Epsilon, Rule, ZPlus, stabilise

# Of the odds (1 - p) / p in SoftmaxEta's difference layer; fixed in the authors' code.
_ODDS_EPSILON = 1e-5


class LRPBlock(Engine):
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

    Class quantities start from their logits, with either rule. :class:`isnet.JointLogits` starts z-plus from the
    outputs' positive parts. :class:`isnet.SoftmaxEta` goes through a difference layer (its `eps` is not used) and needs
    ``rules=("epsilon",)``.

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
    low, high : float, sequence of float or Tensor
        Bounds of pixel values as the network gets them, for z^B: one for all channels or one per channel (of normalised
        images see :func:`isnet.pixel_bounds`). Maps do not depend on the unit of pixels.
    layers : sequence of str
        Names of modules (as in ``model.named_modules()``) at whose outputs relevance is wanted too. Inside a
        convolution fused with its batch norm there is only one: that at the batch norm's output.
    strict : bool
        Refuse images outside the bounds, instead of warning once.

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
        low: Bound = 0.0,
        high: Bound = 1.0,
        layers: Sequence[str] = (),
        strict: bool = False,
    ) -> None:
        super().__init__(model, rules, epsilon, input_rule, low, high, layers, strict)

    def __call__(self, images: Tensor, quantity: Quantity, statistics: BatchStatistics | None = None) -> Explanation:
        self._check_images(images)
        with torch.autocast(images.device.type, enabled=False):
            tape = Tape(self.model, images, self._rules[0].first, Replay(statistics, images))
            with collect_outputs(self.model, self.layers, tape.read) as outputs, tape:
                logits = self.model(images)
                root = tape.value(logits)
            check_logits(logits, images, root is not None)
            assert root is not None
            nodes, inside = _fuse_batch_norms(_leading_to(root, tape.nodes))
            wanted = {name: inside.get(value, value) for name, value in outputs.items()}
            self._check_first_layer(nodes)
            starts = _starts(root, nodes, quantity, self._rules)
            found = [
                _walk(nodes, {tape.images, *wanted.values()}, start, rule)
                for start, rule in zip(starts, self._rules, strict=True)
            ]
        at_layers = {name: _joined(found, value, f"layer {name!r}") for name, value in wanted.items()}
        return Explanation(logits, _joined(found, tape.images, "the image"), at_layers)

    def _check_first_layer(self, nodes: Sequence[Node]) -> None:
        if self._rules[0].first is None:
            return
        if not any(_weighted(node) is not None and node.inputs[0].bounds is not None for node in nodes):
            raise UnsupportedNetworkError(
                "the z^B rule needs a convolution, linear layer or batch norm that reads the images themselves: "
                + NO_FIRST_LAYER
            )


def _leading_to(root: Value, nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes on which a value depends; raise the error of one that has no rule."""
    needed: set[Value] = {root}
    found: list[Node] = []
    for node in reversed(nodes):
        if node.output in needed:
            if isinstance(node.operation, Exception):
                raise node.operation
            needed.update(node.inputs)
            found.append(node)
    return found[::-1]


def _fuse_batch_norms(nodes: Sequence[Node]) -> tuple[list[Node], dict[Value, Value]]:
    """Make one layer of every convolution or linear layer and the batch norm that alone reads its output.

    Any other batch norm becomes a layer of its own. Returns the nodes, and for each layer output that
    vanished inside a fused layer the batch norm's output.
    """
    producers = {node.output: node for node in nodes}
    consumers = Counter(value for node in nodes for value in node.inputs)
    result: list[Node] = []
    inside: dict[Value, Value] = {}
    for node in nodes:
        norm = _weighted(node)
        if isinstance(norm, Diagonal) and norm.bias is not None:
            source = node.inputs[0]
            before = producers.get(source) if consumers[source] == 1 else None
            layer = None if before is None else _weighted(before)
            fusible = isinstance(layer, Convolution) or (isinstance(layer, Linear) and source.tensor.ndim == 2)
            if before is not None and layer is not None and fusible:
                inside[source] = node.output
                node = Node(Layer(layer.followed_by(norm.weight, norm.bias)), before.inputs, node.output)
        result.append(node)
    return [node for node in result if node.output not in inside], inside


def _weighted(node: Node) -> Weighted | None:
    """Return a node's layer if it has weights of its own, not a pool's."""
    layer = node.operation.layer if isinstance(node.operation, Layer) else None
    return layer if isinstance(layer, Weighted) else None


def _walk(nodes: Sequence[Node], wanted: set[Value], start: tuple[Value, Tensor], rule: Rule) -> dict[Value, Tensor]:
    """Send relevance ``(K, N, ...)`` backwards from one value; return what reaches the wanted ones."""
    relevance = dict([start])
    for node in reversed(nodes):
        if node.output not in relevance or not isinstance(node.operation, Operation):
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


# ---- where the walk starts ----


def _starts(
    root: Value, nodes: Sequence[Node], quantity: Quantity, rules: Sequence[Rule]
) -> list[tuple[Value, Tensor]]:
    """Return, for each rule, a value at or near the logits (`root`) and the relevance that starts there."""
    last = next((node for node in reversed(nodes) if not isinstance(node.operation, Reshape)), None)
    layer = None if last is None else _weighted(last)
    # Output biases are detached, as everywhere in LRP-Block.
    logits = root.tensor if last is None or layer is None else layer(last.inputs[0].tensor).flatten(1)
    if isinstance(quantity, JointLogits):
        return [_positive_outputs(last, rule) if isinstance(rule, ZPlus) else (root, logits[None]) for rule in rules]
    if not isinstance(quantity, ClassQuantity):
        raise ValueError("LRP-Block explains classes or all logits jointly: use one of the quantities of isnet")
    classes = quantity.classes(root.tensor)
    if isinstance(quantity, SoftmaxEta):
        if not all(isinstance(rule, Epsilon) for rule in rules):
            raise ValueError('SoftmaxEta is defined for the epsilon rule: use rules=("epsilon",)')
        start = _log_odds(last, logits, classes[:, 0], rules[0].epsilon)
    else:
        start = (root, logits * F.one_hot(classes.transpose(0, 1), logits.shape[1]).to(logits.dtype))
    return [start] * len(rules)


def _positive_outputs(last: Node | None, rule: ZPlus) -> tuple[Value, Tensor]:
    """Return z-plus's virtual positive outputs: what remains of each logit without its negative terms."""
    last, layer = _output_layer(last, "JointLogits with the z-plus rule")
    source = last.inputs[0]
    return last.output, rule.positive_output(layer, source.tensor, source.nonnegative)[None]


def _log_odds(last: Node | None, logits: Tensor, classes: Tensor, epsilon: float) -> tuple[Value, Tensor]:
    """Return the relevance, at the output layer's input, of the softmax log-odds of one class per image.

    With Z_k = y_c - y_k the odds against class c are D = sum over k != c of exp(-Z_k). Output k of the
    difference layer has relevance Z_k exp(-Z_k) / (D + 1e-5), which the epsilon rule sends through the
    weights w_c - w_k.
    """
    last, layer = _output_layer(last, "SoftmaxEta")
    if logits.shape[1] < 2:
        raise ValueError("SoftmaxEta needs at least two classes: eta of a single softmax output is constant")
    explained = F.one_hot(classes, logits.shape[1]).bool()
    differences = logits.gather(1, classes[:, None]) - logits
    others = (-differences).masked_fill(explained, -torch.inf)
    # exp(-Z_k) / (D + 1e-5), written so that large logits do not overflow.
    log_odds = others.logsumexp(1, keepdim=True)
    weights = others.softmax(1) * torch.sigmoid(log_odds - math.log(_ODDS_EPSILON))
    s = differences * weights / stabilise(differences, epsilon)
    a, s = last.inputs[0].tensor, torch.where(explained, s.sum(1, keepdim=True), -s)
    return last.inputs[0], a * layer.transposed(s.reshape(-1, *last.output.tensor.shape), a.shape)


def _output_layer(last: Node | None, what: str) -> tuple[Node, Weighted]:
    layer = None if last is None else _weighted(last)
    if last is None or layer is None:
        raise UnsupportedNetworkError(
            f"{what} needs logits that come straight from a linear layer or a "
            "convolution; use EveryLogit, Logit or RandomLogit for this network"
        )
    return last, layer
