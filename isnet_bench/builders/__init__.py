"""Builders of manifests: each module with a ``COLLECTION`` reads the layout in which that collection is published."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from isnet_bench.builders.base import Collection
from isnet_bench.errors import BenchError

__all__ = ["Collection", "get", "names"]


def names() -> list[str]:
    """Return the names of all collections; they are the ``source`` of their images too."""
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if hasattr(_module(found.name), "COLLECTION"))


def get(name: str) -> Collection:
    """Return a collection.

    Raises
    ------
    BenchError
        If there is no such collection; the message lists those that are.
    """
    if name not in names():
        raise BenchError(f"unknown collection {name!r}; known: {', '.join(names())}")
    return _module(name).COLLECTION


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")
