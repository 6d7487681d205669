"""The ISNet variants as methods: each class of the library that is one becomes a method, as it declares itself.

The name, the label, and the hyper-parameters beside those that all ISNets share, are those of the class: its own
keyword arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field, PositiveFloat
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

import isnet
from baselines import heatmaps
from baselines.backgrounds import changed, drawer, swap
from baselines.base import Method, Range, Task
from baselines.heatmaps import Ranges, Share


@dataclass(frozen=True)
class Hyperparameters(heatmaps.Hyperparameters):
    """What all ISNets share; the meaning of each is that of :class:`isnet.ISNet` and :class:`isnet.HeatmapLoss`.

    With `background_swap` the ISNet is trained on images that have the backgrounds of others, those with a mask.
    """

    propagation: Literal["flex", "block"] = "flex"
    layers: tuple[str, ...] = ()
    layer_decay: Share = 1.0
    heatmap_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    epsilon: PositiveFloat = 1e-2
    input_rule: Literal["zb", "epsilon"] = "zb"
    batch_statistics: Literal["frozen", "differentiated"] = "frozen"
    background_swap: bool = False
    inactive_slope: Share = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inactive_slope and self.propagation != "flex":
            raise ValueError("inactive_slope needs propagation: flex")


# What the totals depend on, and all that the network's class takes by these names.
_EXPLAINED = ("propagation", "layers", "epsilon", "input_rule", "inactive_slope")
_SHARED = ("heatmap_weight", "layer_decay", "heatmap_fraction", "batch_statistics", *_EXPLAINED)
# Bounds and defaults of variants' own arguments, where they say more than the class does. With the library's eta_eps of
# 1e-2, eta of a confident classifier hardly depends on its logits, and the range of relevance measured with it is
# hundreds of times below that of the other quantities; this is the value of the authors' trainer.
_OWN: dict[str, tuple[Any, Any]] = {"eta_eps": (PositiveFloat, 1e-7), "p_top": (Share, 0.5)}


def variants() -> Iterator[type[isnet.ISNet]]:
    """Return the ISNets of the library."""
    for found in vars(isnet).values():
        if inspect.isclass(found) and issubclass(found, isnet.ISNet) and not inspect.isabstract(found):
            yield found


def method(variant: type[isnet.ISNet]) -> Method:
    """Describe an ISNet: ``StochasticISNet`` is the method stochastic_isnet with the label Stochastic ISNet."""
    name = variant.__name__.removesuffix("ISNet")
    own = _own_arguments(variant)
    fields = {argument: _OWN.get(argument, declared) for argument, declared in own.items()}
    body = {
        "__doc__": f"Of the {name} ISNet.",
        "__module__": variant.__module__,
        "__annotations__": {argument: kind for argument, (kind, _) in fields.items()},
        **{argument: default for argument, (_, default) in fields.items()},
    }
    return Method(
        f"{name.lower()}_isnet",
        f"{name} ISNet",
        dataclass(frozen=True)(type(f"{name}Hyperparameters", (Hyperparameters,), body)),
        partial(_build, variant, (*_SHARED, *own)),
        family="isnet",
        kept="backbone",
        range=Range(partial(_totals, variant, tuple(own)), (*_EXPLAINED, *own)),
    )


def _own_arguments(variant: type[isnet.ISNet]) -> dict[str, tuple[Any, Any]]:
    """Return the type and the default of each keyword argument that the class itself adds."""
    if "__init__" not in vars(variant):
        return {}
    kinds = get_type_hints(variant.__init__)
    arguments = inspect.signature(variant.__init__).parameters.values()
    return {
        argument.name: (kinds[argument.name], argument.default)
        for argument in arguments
        if argument.kind is argument.KEYWORD_ONLY
    }


def _build(
    variant: type[isnet.ISNet], names: tuple[str, ...], task: Task, h: Hyperparameters, ranges: Ranges | None
) -> isnet.ISNet:
    losses = {place: h.loss(ranges, place) for place in (isnet.INPUT, *h.layers)}
    given = {name: getattr(h, name) for name in names}
    kind = _on_swapped_backgrounds(variant) if h.background_swap else variant
    return kind(task.make_backbone(), losses, class_weights=task.class_weights, **given)


def _on_swapped_backgrounds(variant: type[isnet.ISNet]) -> type[isnet.ISNet]:
    class Swapped(variant):
        def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> isnet.Losses:
            images = changed(swap, images, masks, drawer(self.training))
            return super().training_loss(images, masks, labels)

    return Swapped


def _totals(
    variant: type[isnet.ISNet], own: tuple[str, ...], h: Hyperparameters, classifier: nn.Module, images: Tensor
) -> dict[str, Tensor]:
    # Its loss is of no account: it is asked for its quantity alone.
    network = variant(classifier, isnet.HeatmapLoss(1.0, 2.0), **{name: getattr(h, name) for name in own})
    engine = isnet.LRPBlock
    if h.propagation == "flex":
        engine = partial(isnet.LRPFlex, inactive_slope=h.inactive_slope)
    explain = engine(classifier, epsilon=h.epsilon, input_rule=h.input_rule, rules=variant.rules, layers=h.layers)
    _, relevance, layers = explain(images, network.quantity())
    # The maps of one rule share a range, so they are averaged; rules have ranges of their own.
    return {
        place: maps.abs().flatten(2).sum(2).unflatten(1, (len(variant.rules), -1)).mean(2)
        for place, maps in {isnet.INPUT: relevance, **layers}.items()
    }
