"""The ISNet variants as methods of the benchmark: their hyper-parameters, and how one is built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

import isnet
from baselines.base import Explained, Method, Task
from isnet_bench.errors import BenchError

__all__ = ["METHODS"]


@dataclass(frozen=True)
class Hyperparameters:
    """What all ISNets share; the meaning of each is that of :class:`isnet.ISNet` and :class:`isnet.HeatmapLoss`.

    With ``c1: auto`` (and then ``c2: auto``) the range of foreground relevance is measured with an ordinary
    classifier by the rule ``relevance_range``.
    """

    heatmap_weight: float = 0.7
    c1: float | Literal["auto"] = "auto"
    c2: float | Literal["auto"] = "auto"
    w1: float = 1.0
    w2: float = 1.0
    decay: float = 0.9
    saturation: float = 1.0
    foreground: Literal["hybrid", "l2", "l1"] = "hybrid"
    normalization: Literal["abs_roi_mean", "roi_mean", "none"] = "abs_roi_mean"
    propagation: Literal["flex", "block"] = "flex"
    layers: tuple[str, ...] = ()
    layer_decay: float = 1.0
    heatmap_fraction: float = 1.0
    epsilon: float = 1e-2
    input_rule: Literal["zb", "epsilon"] = "zb"
    batch_statistics: Literal["frozen", "differentiated"] = "frozen"

    def __post_init__(self) -> None:
        if (self.c1 == "auto") != (self.c2 == "auto"):
            raise ValueError("c1 and c2 must either both be auto or both be numbers")
        for name in ("heatmap_weight", "layer_decay", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        if not 0 < self.heatmap_fraction <= 1:
            raise ValueError(f"heatmap_fraction must lie in (0, 1], not {self.heatmap_fraction}")
        for name in ("saturation", "epsilon"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


@dataclass(frozen=True)
class StochasticHyperparameters(Hyperparameters):
    """Of the Stochastic ISNet: `p_top` is the probability of explaining the top logit."""

    p_top: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.p_top <= 1:
            raise ValueError(f"p_top must lie in [0, 1], not {self.p_top}")


@dataclass(frozen=True)
class SelectiveHyperparameters(Hyperparameters):
    """Of the Selective ISNet: `eta_eps` stabilises the explained quantity eta.

    The default is that of the authors' trainer. With the library's 1e-2, eta of a confident classifier hardly depends
    on its logits, and the range of relevance measured with it is hundreds of times below that of the other quantities.
    """

    eta_eps: float = 1e-7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.eta_eps > 0:
            raise ValueError(f"eta_eps must be positive, not {self.eta_eps}")


_VARIANTS: dict[str, tuple[type[isnet.ISNet], type[Hyperparameters]]] = {
    "original_isnet": (isnet.OriginalISNet, Hyperparameters),
    "dual_isnet": (isnet.DualISNet, Hyperparameters),
    "selective_isnet": (isnet.SelectiveISNet, SelectiveHyperparameters),
    "stochastic_isnet": (isnet.StochasticISNet, StochasticHyperparameters),
}


def explained(method: str, hyperparameters: Hyperparameters) -> Explained:
    """Return what a variant explains; variants that explain the same thing share one range."""
    h, rules, quantity = hyperparameters, _VARIANTS[method][0].rules, _quantity(method, hyperparameters)
    engine = isnet.LRPFlex if h.propagation == "flex" else isnet.LRPBlock
    name = f"{'+'.join(rules)} of {quantity} by {h.propagation}, epsilon {h.epsilon:g}, input {h.input_rule}"

    def totals(classifier: nn.Module, images: Tensor) -> dict[str, Tensor]:
        explain = engine(classifier, epsilon=h.epsilon, input_rule=h.input_rule, rules=rules, layers=h.layers)
        _, relevance, layers = explain(images, quantity)
        # The maps of one rule share a range, so they are averaged; rules have ranges of their own.
        return {
            key: heatmaps.abs().flatten(2).sum(2).unflatten(1, (len(rules), -1)).mean(2)
            for key, heatmaps in {isnet.INPUT: relevance, **layers}.items()
        }

    return Explained(f"{name}, layers {', '.join(h.layers)}" if h.layers else name, totals)


def needs_range(params: Mapping[str, Any]) -> bool:
    """Say whether ``c1`` is to be measured, given the hyper-parameters that differ from the defaults."""
    return params.get("c1", "auto") == "auto"


def _quantity(method: str, hyperparameters: Hyperparameters) -> isnet.Quantity:
    if method == "original_isnet":
        return isnet.EveryLogit()
    if method == "dual_isnet":
        return isnet.JointLogits()
    if method == "selective_isnet":
        return isnet.SoftmaxEta(hyperparameters.eta_eps)
    return isnet.RandomLogit(hyperparameters.p_top)


def _build(method: str, task: Task, hyperparameters: Hyperparameters, ranges: Mapping[str, Any] | None) -> isnet.ISNet:
    variant, _ = _VARIANTS[method]
    h = hyperparameters
    losses = {key: _loss(method, h, ranges, key) for key in (isnet.INPUT, *h.layers)}
    special = {name: getattr(h, name) for name in ("p_top", "eta_eps") if hasattr(h, name)}
    return variant(
        task.make_backbone(),
        losses,
        heatmap_weight=h.heatmap_weight,
        propagation=h.propagation,
        layers=h.layers,
        layer_decay=h.layer_decay,
        heatmap_fraction=h.heatmap_fraction,
        epsilon=h.epsilon,
        input_rule=h.input_rule,
        batch_statistics=h.batch_statistics,
        class_weights=task.class_weights,
        **special,
    )


def _loss(method: str, h: Hyperparameters, ranges: Mapping[str, Any] | None, key: str) -> isnet.HeatmapLoss:
    c1, c2 = (h.c1, h.c2) if h.c1 != "auto" else _measured(method, h, ranges, key)
    return isnet.HeatmapLoss(
        c1,
        c2,
        w1=h.w1,
        w2=h.w2,
        decay=h.decay,
        saturation=h.saturation,
        foreground=h.foreground,
        normalization=h.normalization,
    )


def _measured(method: str, h: Hyperparameters, ranges: Mapping[str, Any] | None, key: str) -> tuple[Any, Any]:
    name = explained(method, h).name
    try:
        found = ranges["explanations"][name][key]
    except (KeyError, TypeError):
        raise BenchError(
            f"no relevance range of {name!r} at {key!r} was measured: run 'python -m isnet_bench range' with the "
            "configuration that names this method, or give c1 and c2 as numbers"
        ) from None
    pairs = [(entry["c1"], entry["c2"]) for entry in found]
    return pairs[0] if len(pairs) == 1 else tuple(zip(*pairs, strict=True))


def _method(name: str, label: str) -> Method:
    return Method(
        name, label, _VARIANTS[name][1], partial(_build, name), needs_range, partial(explained, name), "isnet"
    )


METHODS = (
    _method("original_isnet", "Original ISNet"),
    _method("dual_isnet", "Dual ISNet"),
    _method("selective_isnet", "Selective ISNet"),
    _method("stochastic_isnet", "Stochastic ISNet"),
)
