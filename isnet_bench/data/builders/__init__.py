"""Builders of manifests: each module with ``COLLECTIONS`` reads the layout in which some collections are published."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from isnet_bench.data.builders.base import Collection
from isnet_bench.io import plugins as sources


@cache
def known() -> sources.Registry[Collection]:
    """Return all collections by their names, which are the ``source`` of their images too."""
    found = sources.folder(__name__, Path(__file__).parent)
    return sources.collect("collection", found, lambda _, module: getattr(module, "COLLECTIONS", {}).items())
