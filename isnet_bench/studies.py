"""The timing studies of a configuration: its section `timing`, and those that differ from it in what they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isnet_bench.errors import BenchError

__all__ = ["MAIN", "names", "part", "place", "settings", "suffix"]

MAIN = "main"
"""Name of the study that the section itself describes."""

_DEFAULTS = {"channels": 1, "operations": ["training step"], "warmup": 1}


def names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of all studies, the main one first; none where the configuration has no timing section."""
    return [MAIN, *config["timing"].get("studies", {})] if "timing" in config else []


def settings(config: Mapping[str, Any], study: str = MAIN) -> dict[str, Any]:
    """Return what a study times: the keys of the section, with the study's own on top and all defaults filled in.

    Raises
    ------
    BenchError
        If the configuration has no such study; those that it has are listed.
    """
    if study not in names(config):
        raise BenchError(f"unknown timing study {study!r}; the configuration has: {', '.join(names(config)) or 'none'}")
    section = {key: value for key, value in config["timing"].items() if key != "studies"}
    own = {} if study == MAIN else config["timing"]["studies"][study]
    return {**_DEFAULTS, **section, **own}


def part(config: Mapping[str, Any], study: str) -> dict[str, Any]:
    """Return a timing section of this study alone, complete and under the same name. Raises what `settings` raises."""
    complete = settings(config, study)
    return complete if study == MAIN else {**complete, "studies": {study: {}}}


def place(study: str) -> str:
    """Return where a study stands in the configuration, for messages."""
    return "timing" if study == MAIN else f"timing.studies.{study}"


def suffix(study: str) -> str:
    """Return what a study's files have at the end of their names."""
    return "" if study == MAIN else f"_{study}"
