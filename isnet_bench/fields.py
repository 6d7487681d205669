"""Configuration values as the frozen dataclasses that stand beside the code they steer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_type_hints

import pydantic

from isnet_bench.errors import BenchError, listed, located

__all__ = ["check", "fill", "unknown"]

Kind = TypeVar("Kind")


def fill(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Make a ``kind``, nested dataclasses too, of values that `isnet_bench.config` has checked."""
    # Through JSON, so that a YAML list fits a tuple.
    return pydantic.TypeAdapter(kind).validate_json(json.dumps(values), strict=True)


def check(kind: type, values: Mapping[str, Any], place: str) -> None:
    """Check values against the fields of a frozen dataclass, nested ones too.

    Raises
    ------
    BenchError
        If a key is unknown (the known ones are listed), or a value of the wrong kind or outside its range.
    """
    try:
        # Through JSON, so that a YAML list fits a tuple while text ("2e-3") still fits no number.
        with located(place):
            pydantic.TypeAdapter(kind).validate_json(json.dumps(values), strict=True, extra="forbid")
    except pydantic.ValidationError as error:
        raise BenchError(_sentence(kind, error.errors()[0], place)) from error


def unknown(place: str, keys: Iterable[str], known: Iterable[str]) -> str:
    """Return the sentence about keys that do not exist."""
    return f"unknown key {', '.join(map(repr, keys))} in {place}; known keys: {listed(known)}"


def _sentence(kind: type, error: Mapping[str, Any], place: str) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "unexpected_keyword_argument":
        return unknown(".".join([place, *path[:-1]]), path[-1:], _names(kind, path[:-1]))
    where = ".".join([place, *path])
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}"
    return f"{where}: {error['msg']}, not {error['input']!r}"


def _names(kind: type, path: Iterable[str]) -> list[str]:
    for name in path:
        hint = get_type_hints(kind)[name]
        kind = next((inner for inner in get_args(hint) if dataclasses.is_dataclass(inner)), hint)
    return [field.name for field in dataclasses.fields(kind)]
