"""The registry: every baseline in `baselines` and every ISNet variant, found rather than listed."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any, Protocol

from torch import Tensor, nn

import baselines
from baselines.base import Method, Task
from isnet_bench import backbones, fields, isnet_family
from isnet_bench.errors import BenchError

__all__ = ["Method", "Task", "build", "classifier", "classify", "get", "hyperparameters", "names", "task"]


class Entry(Protocol):
    """What is needed here of a configured row: a registered method, and what differs from its defaults."""

    method: str
    params: Mapping[str, Any]


def names() -> list[str]:
    """Return the names of all methods: baselines first, then the ISNets, each family by name."""
    return list(_registry())


def get(name: str) -> Method:
    """Return a method.

    Raises
    ------
    BenchError
        If there is none of that name; the message lists those that there are.
    """
    try:
        return _registry()[name]
    except KeyError:
        raise BenchError(f"unknown method {name!r}; known: {', '.join(names())}") from None


def task(backbone: Mapping[str, Any], info: Mapping[str, Any], class_weights: Tensor | None = None) -> Task:
    """Return the task that a configuration's section `backbone` and prepared data's ``data.json`` set."""
    form = (len(info["classes"]), info["channels"], info["image_size"])
    make_backbone = partial(backbones.create, backbone["name"], *form, **backbone.get("options", {}))
    return Task(make_backbone, *form, class_weights)


def hyperparameters(entry: Entry) -> Any:
    """Return the hyper-parameters of a configured row: the method's frozen dataclass."""
    return fields.fill(get(entry.method).hyperparameters, entry.params)


def build(entry: Entry, task: Task, ranges: Mapping[str, Any] | None) -> nn.Module:
    """Build a configured row's module.

    Parameters
    ----------
    entry : MethodEntry
        The row.
    task : Task
        What it is to learn.
    ranges : mapping or None
        What the verb `range` measured, for methods that need it.

    Raises
    ------
    BenchError
        If the method does not work with this backbone or with these hyper-parameters.
    """
    try:
        return get(entry.method).build(task, hyperparameters(entry), ranges)
    except ValueError as error:
        raise BenchError(f"method {entry.method} cannot be built: {error}") from error


def classifier(module: nn.Module) -> nn.Module:
    """Return the part of a method's module that is left after training: its backbone, or all of it."""
    return getattr(module, "backbone", module)


def classify(module: nn.Module, images: Tensor, masks: Tensor) -> Tensor:
    """Return a module's logits (N, classes) of images (N, C, H, W); only oracles see the masks (N, 1, H, W)."""
    return module(images, masks) if getattr(module, "needs_masks", False) else module(images)


@cache
def _registry() -> dict[str, Method]:
    found = sorted(_discover(), key=lambda method: (method.family, method.name))
    registry = {method.name: method for method in found}
    if len(registry) < len(found):
        raise ValueError(f"two methods share a name: {', '.join(method.name for method in found)}")
    return registry


def _discover() -> Iterator[Method]:
    for module in pkgutil.iter_modules(baselines.__path__):
        method = getattr(importlib.import_module(f"baselines.{module.name}"), "METHOD", None)
        if method is not None:
            yield method
    yield from isnet_family.METHODS
