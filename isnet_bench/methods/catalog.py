"""What `isnet_bench.config.catalog` tells without importing torch: the cards of methods and data sets are made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic

from baselines.base import Method, Range
from isnet_bench import data, methods
from isnet_bench.config import Config, catalog
from isnet_bench.io.code import ROOT
from isnet_bench.io.files import write_text
from isnet_bench.io.plugins import Source
from isnet_bench.methods import backbones, isnets

_SCHEMA = catalog.FILE.with_name("schema.json")


def cards(plugins: tuple[str, ...] = (), built_in: bool = False) -> dict[str, Any]:
    """Return what `isnet_bench.config.catalog.Card` holds of all methods and data sets, and which files tell of none.

    Those of the files `plugins` are among them; with `built_in`, neither they nor those of installed packages.
    """
    rows, sets = methods.known(plugins), data.known(plugins)

    def kept(found: Any) -> list[str]:
        return [name for name in found.things if found.sources[name].built_in or not built_in]

    return {
        "methods": [_method(rows.things[name], rows.sources[name]) for name in sorted(kept(rows))],
        "data": [_data(sets.things[name], sets.sources[name]) for name in sorted(kept(sets))],
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


def _method(method: Method, source: Source) -> dict[str, Any]:
    needed = method.range or Range(totals=lambda *_: {}, measured=())
    # A class of the library is not all that makes an ISNet a method; and backbones are what all methods train.
    modules = [isnets, backbones] if method.family == "isnet" and source.built_in else [backbones]
    return _card(
        method.hyperparameters,
        [source.path, *(Path(str(module.__file__)) for module in modules)],
        name=method.name,
        label=method.label,
        family=method.family,
        oracle=method.oracle,
        groups=method.groups,
        measured=list(needed.measured),
        fields=list(needed.fields),
    )


def _data(kind: data.Kind, source: Source) -> dict[str, Any]:
    return _card(kind.settings, [source.path], name=kind.name, reads=list(kind.reads))


def _card(kind: type, files: list[Path], **told: Any) -> dict[str, Any]:
    schema = pydantic.TypeAdapter(kind).json_schema()
    for section in (schema, *schema.get("$defs", {}).values()):
        if section.get("type") == "object":
            section["additionalProperties"] = False
    shown = [path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path) for path in files]
    return {**told, "schema": schema, "source": shown}
