"""What `isnet_bench.config.catalog` tells without importing torch: the cards of methods and data sets are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic

from baselines.base import Method, Range
from isnet_bench import data, methods
from isnet_bench.config import Config, catalog
from isnet_bench.io.files import write_text

_SCHEMA = catalog.FILE.with_name("schema.json")


def cards(plugins: tuple[str, ...] = (), built_in: bool = False) -> dict[str, Any]:
    """Return what `isnet_bench.config.catalog.Card` holds of all methods and data sets, and which files tell of none.

    Those of the files `plugins` are among them; with `built_in`, neither they nor those of installed packages.
    """
    rows, sets = methods.known(plugins), data.known(plugins)

    def kept(found: Any) -> list[str]:
        return [name for name in found.things if found.sources[name].built_in or not built_in]

    return {
        "methods": [_method(rows.things[name]) for name in sorted(kept(rows))],
        "data": [_card(sets.things[name].settings, name=name) for name in sorted(kept(sets))],
        "broken": {**rows.broken, **sets.broken},
    }


def files() -> dict[Path, str]:
    """Return the generated files beside the configuration's code: the built-in cards, and the JSON Schema."""
    built_in = {"sources": catalog.sources(), **cards(built_in=True)}
    contents = {catalog.FILE: built_in, _SCHEMA: Config.model_json_schema()}
    return {path: json.dumps(content, indent=1) + "\n" for path, content in contents.items()}


def write() -> None:
    """Write the generated files."""
    for path, text in files().items():
        write_text(path, text)


def _method(method: Method) -> dict[str, Any]:
    needed = method.range or Range(totals=lambda *_: {}, measured=())
    return _card(
        method.hyperparameters,
        name=method.name,
        label=method.label,
        family=method.family,
        oracle=method.oracle,
        measured=list(needed.measured),
        fields=list(needed.fields),
    )


def _card(kind: type, **told: Any) -> dict[str, Any]:
    schema = pydantic.TypeAdapter(kind).json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        if section.get("type") == "object":
            section["additionalProperties"] = False
    return {**told, "schema": schema}
