"""Data sets: each is one module here, with a frozen dataclass `Settings` and `make(settings) -> DataSet`.

A module whose images may be shown in public says so with `PUBLISHABLE`: True, or the sources of which that is true.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
import pkgutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from isnet_bench import fields
from isnet_bench.data.base import Arrays, DataSet, Split
from isnet_bench.errors import BenchError
from isnet_bench.files import read_json, replacing, write_json

__all__ = ["DataSet", "Split", "info", "load", "names", "prepare", "publishable", "settings_type"]

log = logging.getLogger(__name__)

_INFO = "data.json"
_REMEDY = "make the data with: python -m isnet_bench prepare --config YOUR.yaml --experiment NAME"


def names() -> list[str]:
    """Return the names of all data sets."""
    modules = (_module(found.name) for found in pkgutil.iter_modules(__path__))
    return sorted(module.__name__.rpartition(".")[2] for module in modules if hasattr(module, "make"))


def settings_type(name: str) -> type:
    """Return a data set's settings, a frozen dataclass.

    Raises
    ------
    BenchError
        If there is no such data set; the message lists those that are.
    """
    if name not in names():
        raise BenchError(f"unknown data set {name!r}; known: {', '.join(names())}")
    return _module(name).Settings


def publishable(made: str, asked: str) -> bool | frozenset[str]:
    """Return whether images of a data set may be published: all, none, or only those of some sources.

    Parameters
    ----------
    made, asked : str
        The data set's name in data.json, and in the configuration, which differ where another one stands in.
    """
    return getattr(_module(made if made in names() else asked), "PUBLISHABLE", False)


def prepare(experiment: str, config: dict[str, Any], out: Path) -> None:
    """Make an experiment's data: for each split an ``.npz`` and for some data a ``.csv``, reports, and ``data.json``.

    Parameters
    ----------
    experiment : str
        Id in the configuration.
    config : dict
        A checked configuration.
    out : Path
        Folder; made if need be.

    Raises
    ------
    BenchError
        If the data cannot be found or read, or the settings ask for the impossible.
    """
    given = config["experiments"][experiment]["data"]
    kind = settings_type(given["name"])
    settings = fields.fill(kind, {key: value for key, value in given.items() if key != "name"})
    dataset = _module(given["name"]).make(settings)
    out = Path(out)
    # data.json is written last: where it is, all splits are.
    (out / _INFO).unlink(missing_ok=True)
    for split, arrays in dataset.splits.items():
        with replacing(out / f"{split}.npz") as temporary:
            np.savez_compressed(temporary, **arrays._asdict())
    for split, table in dataset.records.items():
        with replacing(out / f"{split}.csv") as temporary:
            table.to_csv(temporary, index_label="index")
    for name, text in dataset.texts.items():
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_json(out / _INFO, _describe(dataset, dataclasses.asdict(settings)))
    log.info("%s: %s in %s", experiment, dataset.title, out)


def info(folder: Path) -> dict[str, Any]:
    """Return what ``data.json`` says of prepared data.

    Raises
    ------
    BenchError
        If the data have not been prepared.
    """
    return read_json(Path(folder) / _INFO, _REMEDY)


def load(folder: Path, split: str) -> Split:
    """Load one split of prepared data.

    Raises
    ------
    BenchError
        If the file is missing or damaged.
    """
    path = Path(folder) / f"{split}.npz"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = Arrays(*(stored[name] for name in Arrays._fields))
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {_REMEDY}") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BenchError(f"{path} is damaged ({error}): delete it, then {_REMEDY}") from error
    return Split(
        torch.from_numpy(arrays.images).float().div_(255),
        torch.from_numpy(arrays.masks).float(),
        torch.from_numpy(arrays.labels),
    )


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{name}")


def _describe(dataset: DataSet, settings: dict[str, Any]) -> dict[str, Any]:
    channels, height = dataset.splits["train"].images.shape[1:3]
    return {
        "name": dataset.name,
        "title": dataset.title,
        "stand_in": dataset.stand_in,
        "classes": list(dataset.classes),
        "channels": channels,
        "image_size": height,
        "test_sets": list(dataset.test_sets),
        "background_changes": {name: list(sets) for name, sets in dataset.background_changes.items()},
        "splits": {name: len(arrays.labels) for name, arrays in dataset.splits.items()},
        "background_area": {name: 1 - float(dataset.splits[name].masks.mean()) for name in dataset.test_sets},
        "settings": settings,
        **dataset.details,
    }
