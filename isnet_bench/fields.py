"""Configuration values as the frozen dataclasses that stand beside the code they steer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import pydantic

__all__ = ["fill"]

Kind = TypeVar("Kind")


def fill(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Make a ``kind``, nested dataclasses too, of values that `isnet_bench.config` has checked."""
    # Through JSON, so that a YAML list fits a tuple.
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
