"""Studies: settings of an experiment take several values, each of which is trained and tested like all else.

A study is expanded into ordinary experiments with ordinary rows. Each value of a setting of the data or the backbone
makes an experiment, each value of a setting of the rows makes a row. (The *timing* studies are `isnet_bench.studies`.)
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from typing import Any

from isnet_bench.errors import BenchError

__all__ = ["Cell", "Value", "Variation", "cells", "expand", "names", "owners", "part", "rows", "seeds", "variations"]

_OF_ROWS = ("params", "training")
_OF_EXPERIMENTS = ("data", "backbone", "training", "score")


@dataclass(frozen=True)
class Value:
    """A value of a setting: as it is called, as it stands in ids, and as it is given."""

    name: str
    id: str
    given: Any


@dataclass(frozen=True)
class Variation:
    """A setting that takes several values.

    Attributes
    ----------
    setting : str
        Where it stands: ``data.…`` and ``backbone.…`` in an experiment, ``params.…`` and ``training.…`` in its rows.
    label : str
        What it is called in tables and figures.
    scale : {"linear", "log", "even"}
        Of its axis; "even": values stand at equal distances, in the order of the configuration.
    named : bool
        Whether the configuration names the values, rather than only listing them.
    values : tuple of Value
        In the order of the configuration.
    """

    setting: str
    label: str
    scale: str
    named: bool
    values: tuple[Value, ...]

    @property
    def of_rows(self) -> bool:
        """Whether it is a setting of rows, and not one of experiments."""
        return self.setting.partition(".")[0] in _OF_ROWS

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value.given, (int, float)) and not isinstance(value.given, bool) for value in self.values)


@dataclass(frozen=True)
class Cell:
    """A row of one of a study's experiments: a row that takes part, with one value of each variation."""

    experiment: str
    row: str
    source: str
    values: tuple[Value, ...]


def names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of all studies."""
    return list(config.get("studies", {}))


def seeds(config: Mapping[str, Any], study: str) -> list[int]:
    """Return the seeds of a study: its own, or those of the configuration. Raises what `rows` raises."""
    return _section(config, study).get("seeds") or config["seeds"]


def rows(config: Mapping[str, Any], study: str) -> dict[str, dict[str, Any]]:
    """Return the rows that take part in a study, as its experiment has them or as it gives them itself.

    Raises
    ------
    BenchError
        If there is no such study, experiment or row; those that there are are listed.
    """
    chosen = _section(config, study)["rows"]
    if isinstance(chosen, Mapping):
        return dict(chosen)
    available = _base(config, study)["methods"]
    unknown = [row for row in chosen if row not in available]
    if unknown:
        known = ", ".join(available) or "none"
        raise BenchError(f"studies.{study}.rows: no row {', '.join(unknown)} in the experiment; its rows are {known}")
    return {row: available[row] for row in chosen}


def variations(config: Mapping[str, Any], study: str) -> tuple[Variation, ...]:
    """Return what a study varies, in the order of the configuration.

    Raises
    ------
    BenchError
        If there is no such study, if two values would have the same id, or if a setting is named twice.
    """
    found = tuple(_variation(study, given) for given in _section(config, study)["vary"])
    for setting in _twice(variation.setting for variation in found):
        raise BenchError(f"studies.{study}.vary: {setting} is there twice; give all of its values in one place")
    return found


def cells(config: Mapping[str, Any], study: str) -> list[Cell]:
    """Return all rows of all experiments of a study. Raises what `rows` and `variations` raise."""
    varied = variations(config, study)
    return [
        Cell(
            "_".join([study, *(_ids(varied, chosen, of_rows=False) or ["runs"])]),
            "_".join([row, *_ids(varied, chosen, of_rows=True)]),
            row,
            chosen,
        )
        for chosen in product(*(variation.values for variation in varied))
        for row in rows(config, study)
    ]


def owners(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the id of every experiment that a study is expanded into, and the name of that study."""
    return {cell.experiment: study for study in names(config) for cell in cells(config, study)}


def expand(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with the experiments of all studies added.

    Raises
    ------
    BenchError
        If a study cannot be expanded, or a name is taken by an experiment.
    """
    experiments = dict(config["experiments"])
    for study in names(config):
        for name, experiment in _expanded(config, study).items():
            if experiments.setdefault(name, experiment) != experiment:
                raise BenchError(f"studies.{study}: its experiment {name} would take the place of another; rename one")
    for study in names(config):
        _check_name(study, experiments)
    return {**config, "experiments": experiments}


def part(config: Mapping[str, Any], study: str) -> dict[str, Any]:
    """Return the part of a configuration that a study's table and figure depend on. Raises what `rows` raises."""
    section = {**_section(config, study), "seeds": seeds(config, study)}
    base = {key: value for key, value in _base(config, study).items() if key in _OF_EXPERIMENTS}
    if not isinstance(section["rows"], Mapping):
        base["methods"] = rows(config, study)
    return {"studies": {study: section}, "experiments": {section["experiment"]: base}}


def _section(config: Mapping[str, Any], study: str) -> Mapping[str, Any]:
    if study not in names(config):
        raise BenchError(f"unknown study {study!r}; the configuration has: {', '.join(names(config)) or 'none'}")
    return config["studies"][study]


def _base(config: Mapping[str, Any], study: str) -> Mapping[str, Any]:
    """Return the experiment that a study starts from."""
    name = _section(config, study)["experiment"]
    if name not in config["experiments"]:
        known = ", ".join(config["experiments"]) or "none"
        raise BenchError(f"studies.{study}.experiment: unknown experiment {name!r}; there are: {known}")
    base = config["experiments"][name]
    if not base.keys() >= {"backbone", "training"}:
        raise BenchError(f"studies.{study}.experiment: {name} has no backbone and training to start from")
    return base


def _variation(study: str, given: Mapping[str, Any]) -> Variation:
    setting, values = given["setting"], given["values"]
    named = isinstance(values, Mapping)
    pairs = values.items() if named else [(_name(value), value) for value in values]
    found = tuple(Value(name, re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower(), v) for name, v in pairs)
    for taken in _twice(value.id for value in found):
        alike = ", ".join(repr(value.name) for value in found if value.id == taken)
        raise BenchError(f"studies.{study}.vary: the values {alike} of {setting} look alike in file names; rename one")
    return Variation(setting, given.get("label", setting), given.get("scale", "linear"), named, found)


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _twice(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def _ids(varied: Sequence[Variation], chosen: Sequence[Value], of_rows: bool) -> list[str]:
    return [value.id for variation, value in zip(varied, chosen, strict=True) if variation.of_rows == of_rows]


def _check_name(study: str, experiments: Iterable[str]) -> None:
    for experiment in experiments:
        # Tables and figures of an experiment have its id and a word: mnist.csv, mnist_comparison.csv.
        if study == experiment or study.startswith(f"{experiment}_"):
            raise BenchError(
                f"studies.{study}: files of the experiment {experiment} may have that name; choose one that does not "
                f"begin with {experiment}"
            )


def _expanded(config: Mapping[str, Any], study: str) -> dict[str, Any]:
    """Return the experiments of a study."""
    section, given, varied = _section(config, study), rows(config, study), variations(config, study)
    base = {key: value for key, value in _base(config, study).items() if key in _OF_EXPERIMENTS}
    experiments = {}
    for cell in cells(config, study):
        changes = [*section.get("changes", {}).items()]
        changes += [(variation.setting, value.given) for variation, value in zip(varied, cell.values, strict=True)]
        of_rows = [change for change in changes if change[0].partition(".")[0] in _OF_ROWS]
        rest = [change for change in changes if change not in of_rows]
        made = experiments.setdefault(
            cell.experiment, {**_changed(study, base, rest), "title": section["title"], "methods": {}}
        )
        entry = {"method": cell.source, **given[cell.source]}
        made["methods"][cell.row] = {**_changed(study, entry, of_rows), "label": _label(entry, varied, cell)}
    return experiments


def _label(entry: Mapping[str, Any], varied: Sequence[Variation], cell: Cell) -> str:
    pairs = zip(varied, cell.values, strict=True)
    values = [f"{variation.label} {value.name}" for variation, value in pairs if variation.of_rows]
    return ", ".join([entry.get("label", entry["method"]), *values])


def _changed(study: str, section: Mapping[str, Any], changes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return an experiment or a row with other settings."""

    def change(section: Mapping[str, Any], setting_and_value: tuple[str, Any]) -> dict[str, Any]:
        setting, value = setting_and_value
        try:
            return _put(section, setting.split("."), value)
        except TypeError as error:
            raise BenchError(f"studies.{study}: there is no setting {setting}, since {error}") from None

    return reduce(change, changes, dict(section))


def _put(section: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a section with a value at a path; the keys of a mapping are put on top of those that are there."""
    first, *rest = path
    before = section.get(first)
    if rest:
        if before is not None and not isinstance(before, Mapping):
            raise TypeError(f"{first} is no mapping but {before!r}")
        value = _put(before or {}, rest, value)
    elif isinstance(before, Mapping) and isinstance(value, Mapping):
        value = {**before, **value}
    return {**section, first: value}
