"""What is wrong with a configuration that only methods, data sets and architectures themselves can tell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from isnet_bench import data, methods
from isnet_bench.config import Backbone, Config, Row, fill
from isnet_bench.io.errors import BenchError
from isnet_bench.methods import backbones

_SIDE = 224
_HERE = "it"


def check(config: Config) -> Iterator[tuple[str, str]]:
    """Yield what is checked of a configuration, each value once, and what is wrong with it, "" if nothing.

    Settings of data sets and hyper-parameters must pass what their own classes ask, and backbones must exist and take
    their options. Nothing is computed, downloaded or written.
    """
    seen: set[str] = set()
    for place, value, make in _parts(config):
        key = json.dumps(value, sort_keys=True)
        if key not in seen:
            seen.add(key)
            yield place, _problem(make)


def _parts(config: Config) -> Iterator[tuple[str, Any, Callable[[], Any]]]:
    """Yield the place of each part of a configuration, its value, and what makes it."""
    studied = [name for study in config.studies for name in config.study_experiments(study)]
    for name in (*config.experiments, *studied):
        section = config.experiment(name)
        asked = section.data
        kind = data.known(config.plugins)[asked.name]
        place = f"experiments.{name}"
        yield f"{place}.data", asked.given(), partial(fill, kind.settings, asked.settings, _HERE)
        yield from _of_rows(section.backbone, section.rows, place, config.plugins)
    for name, case in config.cases.items():
        yield from _of_rows(case.backbone, case.rows, f"timing case {name}", config.plugins)


def _of_rows(
    backbone: Backbone | None, rows: dict[str, Row], place: str, plugins: tuple[str, ...]
) -> Iterator[tuple[str, Any, Callable[[], Any]]]:
    if backbone is not None:
        yield f"{place}.backbone", backbone.given(), partial(_create, backbone)
    for name, row in rows.items():
        value = {"method": row.method, "params": row.params}
        kind = methods.get(row.method, plugins).hyperparameters
        yield f"{place}.methods.{name}", value, partial(fill, kind, row.params, _HERE)


def _create(backbone: Backbone) -> None:
    """Make an architecture without memory for its weights."""
    options = {key: value for key, value in backbone.options.items() if key != "pretrained"}
    with torch.device("meta"):
        backbones.create(backbone.name, 2, backbone.channels or 3, _SIDE, **options)


def _problem(make: Callable[[], Any]) -> str:
    try:
        make()
    except BenchError as error:
        return str(error).removeprefix(f"{_HERE}: ")
    # What only an architecture without weights, or of another size than the data's, stumbles over, is no mistake.
    except Exception:
        return ""
    return ""
