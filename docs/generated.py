"""Reference pages that are written from the code: command line, configuration, methods and data sets."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from griffe import Docstring, DocstringSectionKind

from isnet_bench import cli

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "isnet_bench" / "config"
_FIELDS = ("| key | values | default | meaning |", "|---|---|---|---|")
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Schema = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Return the Markdown of each page, by its path in the documentation."""
    return {
        "reference/command_line.md": "\n".join(_command_line()),
        "reference/configuration.md": "\n".join(_configuration()),
        "reference/methods_and_data.md": "\n".join(_catalog()),
    }


def _command_line() -> Iterator[str]:
    whole = cli.parser()
    (verbs,) = [action for action in whole._actions if isinstance(action, argparse._SubParsersAction)]
    yield "# Command line\n"
    yield "`python -m isnet_bench VERB` runs one stage without Snakemake. `VERB --help` says the same as this page.\n"
    for name, parser in verbs.choices.items():
        yield f"## {name}\n\n{parser.description}\n\n| option | meaning |\n|---|---|"
        for action in parser._actions[1:]:
            value = action.metavar or (action.dest.upper() if action.nargs != 0 and action.option_strings else "")
            option = " ".join(filter(None, ["`" + ", ".join(action.option_strings or [action.dest]) + "`", value]))
            meaning = ((action.help or "") % vars(action)).replace("|", "\\|")
            choices = f"one of {', '.join(map(str, action.choices))}" if action.choices else ""
            required = "required" if action.required else ""
            yield f"| {option} | {'; '.join(filter(None, [meaning, choices, required]))} |"
        yield ""


def _configuration() -> Iterator[str]:
    schema = json.loads((CONFIG / "schema.json").read_text(encoding="utf-8"))
    yield "# Configuration\n"
    yield "All keys of a configuration file. [The configurations that ship](../config.md) are ready to run.\n"
    yield "## The file\n"
    yield from _fields(schema)
    for name, part in schema["$defs"].items():
        yield f"\n## {name}\n\n{part.get('description', '')}\n"
        yield from _fields(part)


def _catalog() -> Iterator[str]:
    catalog = json.loads((CONFIG / "catalog.json").read_text(encoding="utf-8"))
    yield "# Methods and data sets\n"
    yield "What is built in. Settings of the ISNets are explained under [`isnet.ISNet`](api.md#isnet.ISNet),"
    yield "and the methods in [methods](../methods.md).\n"
    for kind, settings in (("methods", "`params` of a row"), ("data", "`data` of an experiment")):
        for card in catalog[kind]:
            schema, label = card["schema"], card.get("label")
            title = f"{label}: `{card['name']}`" if label else f"Data set `{card['name']}`"
            yield f"\n## {title}\n"
            if not schema.get("properties"):
                yield "It has no settings."
                continue
            yield f"Keys of {settings}.\n"
            yield from _fields(schema)
            for name, part in schema.get("$defs", {}).items():
                yield f"\n### {name} of {card['name']}\n"
                yield from _fields(part)


def _fields(schema: Schema) -> Iterator[str]:
    """Write the table of an object's keys; what a key means stands in the schema or in the docstring."""
    told = _told(schema.get("description", ""))
    yield from _FIELDS
    for key, field in schema.get("properties", {}).items():
        default = "required" if key in schema.get("required", ()) else f"`{json.dumps(field.get('default'))}`"
        if isinstance(field.get("default"), dict) or ("default" not in field and default != "required"):
            default = ""
        meaning = " ".join((field.get("description") or told.get(key, "")).split()).replace("|", "\\|")
        yield f"| `{key}` | {_values(field)} | {default} | {meaning} |"


def _told(text: str) -> dict[str, str]:
    """Return what a numpydoc docstring says of each attribute."""
    found = {}
    for section in Docstring(text).parse("numpy", warnings=False):
        if section.kind is DocstringSectionKind.attributes:
            for attribute in section.value:
                found |= dict.fromkeys(attribute.name.split(", "), attribute.description)
    return found


def _values(field: Schema) -> str:
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_values(option) for option in field["anyOf"]))
    if "$ref" in field:
        return field["$ref"].rpartition("/")[2]
    if "patternProperties" in field:
        return "name → " + " or ".join(_values(option) for option in field["patternProperties"].values())
    if "enum" in field or "const" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field.get("enum", [field.get("const")]))
    bounds = " and ".join(f"{sign} {field[bound]}" for bound, sign in _BOUNDS.items() if bound in field)
    items = f" of {_values(field['items'])}" if field.get("items") else ""
    return " ".join(filter(None, [field.get("type", "any") + items, bounds]))
