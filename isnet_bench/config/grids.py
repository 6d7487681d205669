"""Studies: settings of an experiment take several values, each of which is trained and tested like all else.

A study is expanded into ordinary experiments with ordinary rows: each value of a setting of the data or the backbone
makes an experiment, each value of a setting of the rows makes a row, each candidate of a choice makes a row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from isnet_bench.config.models import Experiment, Study, Variation
from isnet_bench.io.errors import BenchError, pick

_OF_ROWS = ("params", "training")
_OF_EXPERIMENTS = ("data", "backbone", "training", "score")


@dataclass(frozen=True)
class Value:
    """A value of a setting: as it is called, as it stands in ids, and as it is given."""

    name: str
    id: str
    given: Any


@dataclass(frozen=True)
class Axis:
    """A setting that takes several values, as `isnet_bench.config.models.Variation` has it, and its values.

    Attributes
    ----------
    setting, label, scale : str
        Where it stands, what it is called, and the scale of its axis in figures: "linear", "log" or "even".
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
        return _is_of_rows(self.setting)

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers."""
        return all(isinstance(value.given, (int, float)) and not isinstance(value.given, bool) for value in self.values)


@dataclass(frozen=True)
class Cell:
    """A row of one of a study's experiments.

    Attributes
    ----------
    experiment, row : str
        Their ids.
    source : str
        The row that takes part in the study, or the method whose candidate this is.
    values : tuple of Value
        One for each axis; of a candidate, the candidate.
    """

    experiment: str
    row: str
    source: str
    values: tuple[Value, ...]


def axes(study: Study) -> tuple[Axis, ...]:
    """Return what a study varies, in the order of the configuration; nothing for a choice among candidates.

    Raises BenchError if two values would have the same id.
    """
    return tuple(_axis(variation) for variation in study.vary)


def cells(name: str, study: Study) -> tuple[Cell, ...]:
    """Return all rows of all experiments of a study. Raises what `axes` raises."""
    if study.candidates is not None:
        return tuple(
            Cell(f"{name}_runs", f"{method}_candidate{place}", method, (Value(settings(one.given()), str(place), one),))
            for method, candidates in study.candidates.items()
            for place, one in enumerate(candidates, start=1)
        )
    varied = axes(study)
    return tuple(
        Cell(
            "_".join([name, *(_ids(varied, chosen, of_rows=False) or ["runs"])]),
            "_".join([row, *_ids(varied, chosen, of_rows=True)]),
            row,
            chosen,
        )
        for chosen in product(*(axis.values for axis in varied))
        for row in study.rows
    )


def settings(candidate: Mapping[str, Any]) -> str:
    """Return what a candidate sets, as text for a table."""
    merged = {**candidate.get("params", {}), **candidate.get("training", {})}
    return ", ".join(f"{key} {json.dumps(value)}" for key, value in merged.items()) or "defaults"


def expand(name: str, study: Study, experiments: Mapping[str, Experiment]) -> dict[str, dict[str, Any]]:
    """Return the experiments of a study, as a configuration would have them.

    Raises BenchError if the study's experiment or a row of it does not exist, or if a setting cannot be changed.
    """
    base = pick("experiment", study.experiment, experiments)
    if base.backbone is None or base.training is None:
        raise BenchError(f"experiment {study.experiment} has no backbone and training to start from")
    given, varied = _rows(study, base), axes(study)
    shared = {key: value for key, value in base.given().items() if key in _OF_EXPERIMENTS}
    made: dict[str, dict[str, Any]] = {}
    for cell in cells(name, study):
        changes = [*study.changes.items()]
        changes += [(axis.setting, value.given) for axis, value in zip(varied, cell.values, strict=False)]
        of_rows = [change for change in changes if _is_of_rows(change[0])]
        rest = [change for change in changes if not _is_of_rows(change[0])]
        experiment = made.setdefault(
            cell.experiment, {**_changed(shared, rest), "title": study.title or name, "methods": {}}
        )
        experiment["methods"][cell.row] = _row(study, given, varied, cell, of_rows)
    return made


def _row(
    study: Study, given: Mapping[str, Any], varied: Sequence[Axis], cell: Cell, changes: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    """Return a row of a study, as a configuration would have it."""
    if study.select:
        # From the method's own defaults, whatever the rows of the experiment have: a choice that was made once has no
        # say in the next one.
        candidate = cell.values[0].given.given()
        return {**candidate, "method": cell.source, "label": f"{cell.source}: {settings(candidate)}"}
    entry = {"method": cell.source, **given[cell.source]}
    pairs = zip(varied, cell.values, strict=True)
    values = [f"{axis.label} {value.name}" for axis, value in pairs if axis.of_rows]
    entry["label"] = ", ".join([entry.get("label", cell.source), *values])
    return _changed(entry, changes)


def _rows(study: Study, base: Experiment) -> dict[str, dict[str, Any]]:
    if isinstance(study.rows, Mapping):
        return {row: entry.given() for row, entry in study.rows.items()}
    return {row: pick("row", row, base.methods).given() for row in study.rows}


def _axis(variation: Variation) -> Axis:
    setting, values = variation.setting, variation.values
    named = isinstance(values, Mapping)
    pairs = values.items() if named else [(_name(value), value) for value in values]
    found = tuple(Value(name, re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower(), v) for name, v in pairs)
    by_id: dict[str, list[str]] = {}
    for value in found:
        by_id.setdefault(value.id, []).append(repr(value.name))
    for alike in by_id.values():
        if len(alike) > 1:
            raise BenchError(f"the values {', '.join(alike)} of {setting} look alike in file names; rename one")
    return Axis(setting, variation.label or setting, variation.scale, named, found)


def _name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_of_rows(setting: str) -> bool:
    return setting.partition(".")[0] in _OF_ROWS


def _ids(varied: Sequence[Axis], chosen: Sequence[Value], of_rows: bool) -> list[str]:
    return [value.id for axis, value in zip(varied, chosen, strict=True) if axis.of_rows == of_rows]


def _changed(section: Mapping[str, Any], changes: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return an experiment or a row with other settings."""
    for setting, value in changes:
        section = _put(section, setting.split("."), value, setting)
    return dict(section)


def _put(section: Mapping[str, Any], path: Sequence[str], value: Any, setting: str) -> dict[str, Any]:
    """Return a section with a value at a path; the keys of a mapping are put on top of those that are there."""
    first, *rest = path
    before = section.get(first)
    if rest:
        if before is not None and not isinstance(before, Mapping):
            raise BenchError(f"there is no setting {setting}: {first} is {before!r}, not a mapping")
        value = _put(before or {}, rest, value, setting)
    elif isinstance(before, Mapping) and isinstance(value, Mapping):
        value = {**before, **value}
    return {**section, first: value}
