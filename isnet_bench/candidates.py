"""The candidates of tuning as rows of an experiment of their own, so that they are trained like all others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["expand", "experiment", "rows", "settings"]

_SUFFIX = "_tuning"


def experiment(config: Mapping[str, Any]) -> str | None:
    """Return the id of the experiment that the candidates are the rows of; None where nothing is tuned."""
    return f"{config['tuning']['experiment']}{_SUFFIX}" if "tuning" in config else None


def rows(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the ids of each method's candidates, in the configuration's order."""
    return {
        method: [f"{method}_candidate{place}" for place in range(1, len(candidates) + 1)]
        for method, candidates in config["tuning"]["candidates"].items()
    }


def settings(candidate: Mapping[str, Any] | None) -> str:
    """Return what a candidate sets, as text for a table."""
    candidate = candidate or {}
    merged = {**candidate.get("params", {}), **candidate.get("training", {})}
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in merged.items()) or "defaults"


def expand(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the experiment of the candidates added, if there are any.

    Each row starts from the method's own defaults and the experiment's trainer settings, whatever the rows of the
    experiment itself have: a choice that was made once has no say in the next one.
    """
    name = experiment(config)
    base = config["experiments"].get(config["tuning"]["experiment"]) if name else None
    if base is None:
        return config
    methods = {
        row: {"method": method, "label": f"{method}: {settings(candidate)}", **(candidate or {})}
        for method, ids in rows(config).items()
        for row, candidate in zip(ids, config["tuning"]["candidates"][method], strict=True)
    }
    tuned = {key: value for key, value in base.items() if key != "gallery"}
    tuned |= {"title": f"Tuning: {base['title']}", "methods": methods}
    return {**config, "experiments": {**config["experiments"], name: tuned}}
