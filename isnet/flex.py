"""LRP-Flex: layer-wise relevance propagation through any ReLU network by changing its backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from isnet.affine_layers import wide
from isnet.batch_statistics import BatchStatistics
from isnet.engine import (
    Engine,
    Explanation,
    check_logits,
    check_modules,
    collect_outputs,
)
from isnet.first_pass import Replay
from isnet.flex_functions import Propagation
from isnet.flex_trace import FlexTrace
from isnet.map_groups import loss_by_groups
from isnet.quantities import JointLogits, Quantity
from isnet.refusal import NO_FIRST_LAYER, UnsupportedNetworkError
from isnet.rules import ZB, Bound, Rule, ZPlus
from isnet.stem import Stem


class LRPFlex(Engine):
    r"""LRP for any network whose non-linearities are ReLUs, as one modified backward pass per heatmap.

    Every ReLU's derivative is replaced by ``a / (a + epsilon)``; all else keeps its derivative. With G the gradient so
    obtained, the relevance of an activation is ``R = a G``: LRP-epsilon with the whole affine map between two ReLUs
    (convolution, batch norm, pooling, residual sum) as one layer.

    Parameters
    ----------
    model : nn.Module
        Maps images ``(N, C, H, W)`` to logits ``(N, classes)``. Neither copied nor changed. A ``DataParallel``-style
        wrapper is looked through.
    epsilon : float
        LRP stabiliser, > 0, in units of activations.
    input_rule : {"zb", "epsilon"}
        Rule of the first layer. "zb" (z^B) knows that pixels lie in ``[low, high]`` and also sees relevance on black
        pixels; it needs the images to enter a convolution or linear layer, perhaps batch norm, then ReLU. "epsilon"
        multiplies the gradient with the image.
    low, high : float, sequence of float or Tensor
        Bounds of pixel values as the network gets them, for z^B: one for all channels or one per channel (of normalised
        images see :func:`isnet.pixel_bounds`). Maps do not depend on the unit of pixels.
    layers : sequence of str
        Names of modules (as in ``model.named_modules()``) at whose outputs relevance is wanted too.
    batch_statistics : {"frozen", "differentiated"}
        Batch norm in training mode. "frozen": batch statistics are constants of the heatmap, so that no relevance
        passes between images. "differentiated": relevance also passes through mean and variance, as in the authors'
        LRP-Flex. The z-plus rule always freezes them.
    rules : sequence of {"epsilon", "zplus"}
        Rule behind the first layer: one heatmap per rule and score, in this order. "zplus" follows the positive part
        of each pre-activation (see :mod:`isnet.positive_part`).
    strict : bool
        Refuse images outside the bounds, instead of warning once.
    inactive_slope : float
        Alpha in [0, 1]: the share of relevance per unit of activation that a silent ReLU (z <= 0) lets through under
        the epsilon rule; 0 is the paper's LRP. See Notes.

    Raises
    ------
    UnsupportedNetworkError
        If the network has non-linearities other than ReLU (here, as far as modules tell; else when called).
    ValueError
        If an argument lies outside its range or a layer does not exist.

    Notes
    -----
    Bassi, Decherchi, Cavalli, arXiv 2401.08409, Section III (LRP-Flex). The z-plus form and `inactive_slope` are this
    project's own.

    LRP gives a silent unit no relevance, so that no map shows what silences it. With an inactive slope, ReLU k with
    pre-activation :math:`z_k = \sum_j w_{jk} a_j + b_k` and G of its output sends on

    .. math:: f_k G_k, \quad f_k = a_k / (a_k + \epsilon) \text{ if } z_k > 0, \text{ else } \alpha, \qquad
        R_j = a_j G_j = a_j \sum_k w_{jk} f_k G_k .

    The first layer's relevance, which z^B distributes, is :math:`\alpha z_k G_k` of a silent unit (a G of others, as
    ever); under ``input_rule="epsilon"`` the sum over the pixels is the same, less the bias's share. Conservation: a
    unit with z > 0 passes on :math:`R_k (a_k - b_k) / (a_k + \epsilon)` of its relevance whatever alpha is. A silent
    one has R = 0 at its output and sends on :math:`\alpha (z_k - b_k) G_k`, of either sign. The sum over silent units
    is what each layer adds; biases keep :math:`\alpha b_k G_k`. At the outputs of ReLUs among `layers` silent units
    have R = 0, at their inputs :math:`\alpha z_k G_k`. f jumps at z = 0 from alpha to 0, and the derivative of a map
    does not see the jump. A max pool whose window is all silent sends G to the first of its units.

    Under autocast and in networks of half precision, what divides by epsilon (damping, z^B) and the heatmap loss are
    computed in single precision. With ``epsilon=1e-2``, maps under autocast differ from those in single precision by
    less than 1 % (float16) and by 1 to 4 % (bfloat16), most of which the rounding of the images alone explains.

    Examples
    --------
    >>> explain = isnet.LRPFlex(model)
    >>> logits, relevance, _ = explain(images, isnet.Logit(labels))
    """

    def __init__(
        self,
        model: nn.Module,
        epsilon: float = 1e-2,
        input_rule: Literal["zb", "epsilon"] = "zb",
        low: Bound = 0.0,
        high: Bound = 1.0,
        layers: Sequence[str] = (),
        batch_statistics: Literal["frozen", "differentiated"] = "frozen",
        rules: Sequence[Literal["epsilon", "zplus"]] = ("epsilon",),
        strict: bool = False,
        inactive_slope: float = 0.0,
    ) -> None:
        super().__init__(model, rules, epsilon, input_rule, low, high, layers, strict, inactive_slope)
        if batch_statistics not in ("frozen", "differentiated"):
            raise ValueError(f"batch_statistics must be frozen or differentiated, got {batch_statistics!r}")
        check_modules(self.model)
        self.batch_statistics = batch_statistics

    def __call__(self, images: Tensor, quantity: Quantity, statistics: BatchStatistics | None = None) -> Explanation:
        self._check_images(images)
        create_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            explanation = self._ready(images, quantity, statistics, create_graph).maps(create_graph)
        if create_graph:
            return explanation
        logits, relevance, layers = explanation
        return Explanation(logits.detach(), relevance.detach(), {key: value.detach() for key, value in layers.items()})

    def loss_by_maps(
        self, images: Tensor, quantity: Quantity, loss: Callable[[Tensor, slice], Tensor], maps_at_once: int
    ) -> tuple[Tensor, Tensor]:
        """Return the logits and the loss of the maps at the images, without holding all maps' graphs at one time.

        The gradient of the loss is taken here, some maps after the other, and waits for the backward pass, which hands
        it on. It is that of ``loss(relevance, slice(None))`` but for rounding, and cannot be differentiated again.

        Parameters
        ----------
        images, quantity
            As in a call.
        loss : callable
            Makes a scalar of the relevance ``(N, k, C, H, W)`` of the maps of a slice, their mean loss.
        maps_at_once : int
            The largest k, at least 1. Maps that are not finite, and all under autocast to float16 (whose small
            gradients need the scaled loss), are taken at one time.

        Raises
        ------
        UnsupportedNetworkError, ValueError
            As a call.
        """
        self._check_images(images)
        ready = self._ready(images, quantity, None, create_graph=True)
        device = images.device.type
        halves = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.float16
        number = len(ready.starts)
        if number > maps_at_once and not halves:
            groups = [slice(at, min(at + maps_at_once, number)) for at in range(0, number, maps_at_once)]
            found = loss_by_groups(ready, groups, loss)
            if found is not None:
                return ready.logits, found
        return ready.logits, loss(ready.maps().relevance, slice(None))

    def _ready(
        self, images: Tensor, quantity: Quantity, statistics: BatchStatistics | None, create_graph: bool
    ) -> _Ready:
        images = self._entrance(images, create_graph)
        propagation = Propagation(self.batch_statistics == "frozen")
        replay = Replay(statistics, images)
        trace, logits, outputs = self._forward(images, propagation, replay)
        first = self._rules[0].first
        stems = [] if first is None else _stems(trace)
        targets = [_Target("the first layer", output, leaky=leaky) for _, output, leaky in stems]
        targets = targets or [_Target("the images", images)]
        targets += [_Target(f"layer {name!r}", value, *trace.parts(value)) for name, value in outputs.items()]
        starts = [(rule, *start) for rule in self._rules for start in _starts(rule, quantity, logits, trace)]
        return _Ready(
            images, logits, propagation, trace.activations, targets, starts, first, stems, replay.copies, [*outputs]
        )

    def _entrance(self, images: Tensor, create_graph: bool) -> Tensor:
        if images.is_inference():
            images = images.clone()
        if create_graph and images.requires_grad:
            return images
        # A tensor of its own, so that nothing changes for the caller. Frozen parameters build no graph by themselves.
        images = images.detach()
        frozen = not all(parameter.requires_grad for parameter in self.model.parameters())
        return images.requires_grad_() if self._rules[0].first is None or frozen else images

    def _forward(
        self, images: Tensor, propagation: Propagation, replay: Replay
    ) -> tuple[FlexTrace, Tensor, dict[str, Tensor]]:
        # The network may overwrite what it is given, which torch forbids for a leaf of the graph.
        entering = images.clone() if images.requires_grad else images
        trace = FlexTrace(
            self.model,
            entering,
            propagation,
            positive_parts=any(isinstance(rule, ZPlus) for rule in self._rules),
            stem_needs_positive=self._rules[0].first is None or bool(self.layers),
            stem_slope=0.0 if self._rules[0].first is None else max(rule.inactive_slope for rule in self._rules),
            replay=replay,
        )

        def read(output: Tensor) -> tuple[Tensor, Tensor] | None:
            # The network goes on with a clone, so that nothing overwrites the output that is to be explained.
            return (output, output.clone()) if trace.follows(output) else None

        with collect_outputs(self.model, self.layers, read) as outputs, trace:
            logits = self.model(entering)
        check_logits(logits, images, trace.follows(logits))
        return trace, logits, outputs


@dataclass(eq=False)
class _Ready:
    """A network's graph for some images, from which heatmaps can be made; `starts` has one rule and score for each."""

    images: Tensor
    logits: Tensor
    propagation: Propagation
    activations: list[Tensor]
    targets: list[_Target]
    starts: Sequence[tuple[Rule, Tensor, Tensor]]
    first: ZB | None
    stems: list[tuple[Stem, Tensor, Tensor | None]]
    copies: int
    layers: list[str]

    def denominators(self) -> list[Tensor]:
        """Return what all heatmaps share: by what z^B divides, in each first layer."""
        if self.first is None:
            return []
        with torch.autocast(self.images.device.type, enabled=False):
            return [stem.denominator(self.first, self.images, self.copies) for stem, *_ in self.stems]

    def maps(
        self, create_graph: bool = True, which: slice = slice(None), denominators: Sequence[Tensor] | None = None
    ) -> Explanation:
        """Make all heatmaps, or some, with `denominators` that are there already."""
        denominators = self.denominators() if denominators is None else denominators
        maps = [_heatmaps(self.targets, self.propagation, *start, create_graph) for start in self.starts[which]]
        relevance = [torch.stack(of_target) for of_target in zip(*maps, strict=True)]
        at_layers = relevance[len(relevance) - len(self.layers) :]
        layers = {name: found.transpose(0, 1) for name, found in zip(self.layers, at_layers, strict=True)}
        at_images = relevance[0]
        if self.first is not None:
            with torch.autocast(self.images.device.type, enabled=False):
                at_images = _through(self.first, self.stems, self.images, relevance, denominators)
        return Explanation(self.logits, at_images.transpose(0, 1), layers)


def _starts(rule: Rule, quantity: Quantity, logits: Tensor, trace: FlexTrace) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the explained scores of a rule, and the weights with which their gradients start."""
    if isinstance(rule, ZPlus):
        if not isinstance(quantity, JointLogits):
            raise ValueError("the z-plus rule of LRP-Flex explains all outputs at once: use JointLogits()")
        positive = trace.positive_output(logits)
        # The virtual positive outputs P pass their relevance on with the damping P / (P + epsilon) of LRP-Block.
        yield positive, (positive / (wide(positive) + rule.epsilon)).to(positive.dtype)
        return
    scores = quantity.scores(logits)
    for index in range(scores.shape[1]):
        score = scores[:, index]
        yield score, torch.ones_like(score)


def _through(
    first: ZB,
    stems: list[tuple[Stem, Tensor, Tensor | None]],
    images: Tensor,
    relevance: list[Tensor],
    denominators: Sequence[Tensor],
) -> Tensor:
    each = zip(stems, relevance, denominators, strict=False)
    found = [stem.through(first, images, at_output, denominator) for (stem, *_), at_output, denominator in each]
    return sum(found[1:], found[0])


class _Target:
    """A value whose relevance is wanted, with its positive part and bias part where it is not itself an activation.

    Under the z-plus rule relevance reaches such a value z = P + N + B in two streams: through P, and through
    N = z - P - B, which the graph holds as a function of z and P. Under a rule with an inactive slope `leaky`, where
    there is one, stands for the value.
    """

    def __init__(
        self,
        name: str,
        value: Tensor,
        positive: Tensor | None = None,
        bias: Tensor | None = None,
        leaky: Tensor | None = None,
    ) -> None:
        self.name, self.value, self.positive, self.bias, self.leaky = name, value, positive, bias, leaky
        self.sources = [value] if self.positive is None else [value, self.positive]

    def relevance(self, gradients: list[Tensor | None], rule: Rule) -> Tensor:
        """Return the relevance under a rule, given the gradients with respect to the sources."""
        at_value, at_positive = gradients[0], gradients[-1] if len(gradients) > 1 else None
        value = wide(self.leaky if rule.inactive_slope and self.leaky is not None else self.value)
        if at_positive is None or self.positive is None:
            if at_value is None:
                raise UnsupportedNetworkError(f"no relevance reaches {self.name}: the explained score ignores it")
            return value * at_value
        through_positive = wide(self.positive) * at_positive
        if at_value is None:
            return through_positive
        return through_positive + (value if self.bias is None else value - self.bias) * at_value


def _heatmaps(
    targets: list[_Target], propagation: Propagation, rule: Rule, score: Tensor, weight: Tensor, create_graph: bool
) -> list[Tensor]:
    """Return the relevance of every target for one score."""
    sources = [source for target in targets for source in target.sources]
    with propagation.following(rule):
        found = torch.autograd.grad(
            score, sources, weight, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
    gradients = iter(found)
    return [target.relevance([next(gradients) for _ in target.sources], rule) for target in targets]


def _stems(trace: FlexTrace) -> list[tuple[Stem, Tensor, Tensor | None]]:
    if trace.not_a_stem or not trace.stems:
        found = f"they reach '{trace.not_a_stem}'" if trace.not_a_stem else "no such layer was met"
        raise UnsupportedNetworkError(
            "the z^B rule needs the images, perhaps rearranged or normalised, to enter a convolution or linear layer, "
            f"perhaps batch norm or max pool, then ReLU, but {found}: {NO_FIRST_LAYER}"
        )
    return trace.stems
