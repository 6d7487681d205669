"""Configuration files as text: YAML and JSON, and sentences about all that is wrong in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from isnet_bench.io.errors import BenchError, unknown

Kind = TypeVar("Kind")
_NAME = "letters, digits and underscores, and begin with a letter"
_EXPONENT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """YAML in which no key is there twice, dates are text, and 5e-3 is a number as it is in JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for place, key in enumerate(keys):
            if key.value in [earlier.value for earlier in keys[:place]]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def parse(source: str | Path) -> tuple[dict[str, Any], str]:
    """Read a YAML file or JSON text (its first character is a brace); return it, and what to call it in messages.

    Nothing is checked but this: BenchError if there is no such file, or if it cannot be read or holds no mapping.
    """
    text = str(source)
    origin = "the JSON text of --config" if text.lstrip().startswith("{") else text
    try:
        config = json.loads(text) if origin != text else yaml.load(Path(source).read_text("utf-8"), _Loader)
    except FileNotFoundError:
        raise BenchError(
            f"there is no configuration {source}; give the path of a YAML file, such as config/smoke.yaml"
        ) from None
    except UnicodeError as error:
        raise BenchError(f"{origin} is not in UTF-8 ({error}): save it in UTF-8") from error
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise BenchError(f"{origin} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, Mapping):
        raise BenchError(f"{origin} is no configuration: it must be a mapping with the keys seeds and experiments")
    return dict(config), origin


def plain(raw: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return a configuration as JSON text, dates as text, and sentences about numbers that are not finite."""
    return json.dumps(raw, default=str), list(_endless(raw, ""))


def _endless(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: must be a finite number, not {value}"
    members = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from _endless(inner, f"{place}.{key}" if place else str(key))


def all_of(origin: str, errors: Sequence[str]) -> BenchError:
    """Return one error that tells of all that is wrong."""
    if len(errors) == 1:
        return BenchError(f"{origin}: {errors[0]}")
    return BenchError("\n  ".join([f"{origin} has {len(errors)} errors:", *errors]))


def fill(kind: type[Kind], values: Mapping[str, Any], place: str = "") -> Kind:
    """Make a ``kind``, a pydantic model or dataclass, of plain values.

    Raises BenchError, which tells of all keys that are unknown and values of the wrong kind or outside their range.
    """
    try:
        # Through JSON, so that a list fits a tuple while text ("2e-3") still fits no number.
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(values), strict=True, extra="forbid")
    except pydantic.ValidationError as error:
        raise all_of(place or kind.__name__, list(sentences(error, kind))) from error


def sentences(error: pydantic.ValidationError, kind: Any, place: str = "") -> Iterator[str]:
    """Say for each error where it is, what is wrong, and what is known there."""
    schema = pydantic.TypeAdapter(kind).json_schema()
    for one in error.errors():
        if one["type"] == "too_short" and one["input"]:
            # What is wrong with its members was said already.
            continue
        path, known = _located(schema, one["loc"])
        where = ".".join([*([place] if place else []), *path])
        within = where.rpartition(".")[0] or "the configuration"
        if one["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            yield f"{within}: {unknown('key', path[-1], known)}"
        elif one["type"] == "missing":
            yield f"{within} lacks the key {path[-1]!r}"
        elif path[-1:] == ["[key]"]:
            said = one["ctx"]["error"] if one["type"] == "value_error" else f"{path[-2]!r} must be {_NAME}"
            yield f"{within.rpartition('.')[0] or 'the configuration'}: the name {said}"
        elif one["type"] == "value_error":
            yield f"{where}: {one['ctx']['error']}" if where else str(one["ctx"]["error"])
        else:
            yield f"{where}: {one['msg']}, not {one['input']!r}"


def _located(schema: dict[str, Any], path: Sequence[int | str]) -> tuple[list[str], list[str]]:
    """Return a path without the tags that pydantic puts between its keys, and the keys that are known at its end."""
    place, known, here = [], [], schema
    for part in path:
        options = list(_options(here, schema.get("$defs", {})))
        found = [inner for option in options for inner in _inner(option, part)]
        if found or not any(option.get("type") == "array" for option in options):
            place.append(str(part))
            known = [key for option in options for key in option.get("properties", {})]
            here = found[0] if found else {}
    return place, known


def _options(schema: dict[str, Any], shared: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas of the types that a type stands for."""
    if "$ref" in schema:
        schema = shared[schema["$ref"].rpartition("/")[2]]
    members = schema.get("anyOf") or schema.get("oneOf")
    for member in members or ():
        yield from _options(member, shared)
    if not members:
        yield schema


def _inner(schema: dict[str, Any], part: int | str) -> Iterator[dict[str, Any]]:
    """Yield the schema of what is behind a key of a type, if it has such a key."""
    if part in schema.get("properties", {}):
        yield schema["properties"][part]
    elif isinstance(part, int):
        yield from schema.get("prefixItems", [])[part : part + 1]
        yield from [schema["items"]] if isinstance(schema.get("items"), dict) else []
    else:
        yield from schema.get("patternProperties", {}).values()
        others = schema.get("additionalProperties", False)
        yield from [{} if others is True else others] if others else []
