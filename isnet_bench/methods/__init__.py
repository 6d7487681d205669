"""Methods: the baselines and the ISNets, built as a row of the configuration asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import chain, product
from typing import Any

from torch import Tensor, nn

import baselines
from baselines.base import Method, Task
from isnet_bench.config import Backbone, Row, fill
from isnet_bench.config.catalog import GROUPS
from isnet_bench.io import plugins as sources
from isnet_bench.io.errors import BenchError
from isnet_bench.methods import backbones, isnets

Classify = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""Of a module, images and masks: the logits."""


def names(plugins: tuple[str, ...] = ()) -> list[str]:
    """Return the names of all methods: baselines first, then the ISNets, each family by name."""
    methods = known(plugins).things.values()
    return [method.name for method in sorted(methods, key=lambda method: (method.family, method.name))]


def get(name: str, plugins: tuple[str, ...] = ()) -> Method:
    """Return a method. Raises BenchError, with all names and files that cannot be used: there is none of that name."""
    return known(plugins)[name]


@cache
def known(plugins: tuple[str, ...] = ()) -> sources.Registry[Method]:
    """Return all methods: the baselines, the ISNets, those of installed packages, and those that files `plugins` hold.

    An entry point names a `Method`, or a module with METHOD.
    """
    built_in = chain(sources.folder("baselines", baselines.__path__[0]), _isnets())
    installed = sources.installed(GROUPS["methods"])
    return sources.collect("method", chain(built_in, installed, map(sources.file, plugins)), _read)


def task(backbone: Backbone, info: Mapping[str, Any], class_weights: Tensor | None = None) -> Task:
    """Return the task that a configured backbone and prepared data's ``data.json`` set."""
    form = (len(info["classes"]), info["channels"], info["image_size"])
    seen = {"shown": backbone.channels, "normalization": backbone.normalization}
    make = partial(backbones.create_seeing, backbone.name, *form, **seen, **backbone.options)
    images = info.get("group_images", {}).get("train", ())
    groups = map(", ".join, product(info["classes"], info.get("group_names", ())))
    return Task(make, *form, class_weights, dict(zip(groups, images, strict=True)) if images else {})


def hyperparameters(row: Row, plugins: tuple[str, ...] = ()) -> Any:
    """Return the hyper-parameters of a row: the method's frozen dataclass. BenchError: a value does not fit."""
    return fill(get(row.method, plugins).hyperparameters, row.params, f"params of {row.method}")


def build(row: Row, task: Task, measured: Mapping[str, Any] | None = None, plugins: tuple[str, ...] = ()) -> nn.Module:
    """Build a row's module, with what the verb `range` wrote for rows that need it.

    Raises BenchError if the method does not work with this backbone or with these hyper-parameters.
    """
    ranges = None if measured is None else measured["ranges"]
    try:
        return get(row.method, plugins).build(task, hyperparameters(row, plugins), ranges)
    except ValueError as error:
        raise BenchError(f"method {row.method} cannot be built: {error}") from error


def without_masks(module: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    """Return the logits (N, classes) of images (N, C, H, W), as all but oracles do."""
    return module(images)


def _isnets() -> Iterator[sources.Source]:
    for variant in isnets.variants():
        yield sources.Source(
            variant.__name__, variant.__module__, partial(isnets.method, variant), variant.__module__, built_in=True
        )


def _read(_: sources.Source, loaded: object) -> Iterator[tuple[str, Method]]:
    method = loaded if isinstance(loaded, Method) else getattr(loaded, "METHOD", None)
    if isinstance(method, Method):
        yield method.name, method
    elif method is not None:
        raise TypeError(f"METHOD must be a baselines.base.Method, not {method!r}")
