"""Reads, checks and prunes the benchmark's configuration.

A configuration is a YAML file (``config/*.yaml``), or as JSON text a part of one: what one job needs, so
that the job is run again when that part changes and only then. Its form is ``config/schema.json``; a data
set's own settings and a method's hyper-parameters are checked against the frozen dataclasses that stand
beside their code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from isnet_bench import candidates, data, fields, methods, segmentation_data, studies, variations
from isnet_bench.errors import BenchError, listed, located

SCHEMA = Path(__file__).resolve().parents[1] / "config" / "schema.json"

_DEFAULTS = {"device": "auto", "results": "results", "experiments": {}}
_EXPERIMENT_DEFAULTS = {"methods": {}}
_BACKBONE_DEFAULTS = {"options": {}}

CLASSIFIER = "range_classifier"
"""Id of the row that is trained to measure relevance ranges."""
_CLASSIFIER_EPOCHS = 4

_RUN = (("device", "results"), ("data", "backbone", "training", "methods"))
_REPORT = (
    ("seeds", "results"),
    ("title", "data", "backbone", "training", "methods", "score", "gallery", "gallery_set"),
)
# verb -> the keys that its jobs depend on: of the configuration, and of the experiment
_NEEDED = {
    "prepare": (("results",), ("data",)),
    "segment": (("device", "results", "segment"), ()),
    "range_classifier": _RUN,
    "range": _RUN,
    "tune": (("results", "tuning"), ("title", "data", "backbone", "training")),
    "train": _RUN,
    "evaluate": _RUN,
    "tables": _REPORT,
    "figures": _REPORT,
    "time": (("device", "results", "timing"), ()),
    "study": (("results",), ()),
}


@dataclass(frozen=True)
class MethodEntry:
    """One row of the tables.

    Attributes
    ----------
    row : str
        Its id: a folder of the results.
    method : str
        The registered method that is trained.
    label : str
        Its name in tables and figures.
    params : dict
        Hyper-parameters that differ from the method's own defaults.
    training : dict
        Trainer settings: the experiment's, with the row's own on top.
    """

    row: str
    method: str
    label: str
    params: dict[str, Any]
    training: dict[str, Any]


def load(source: str | Path) -> dict[str, Any]:
    """Read and check a configuration.

    Parameters
    ----------
    source : str or Path
        Path of a YAML file, or JSON text (its first character is a brace). JSON text may be a part of a
        configuration, as `prune` makes it.

    Raises
    ------
    BenchError
        If it cannot be read, or has an unknown key (the known ones are listed), a missing one, or a value of
        the wrong kind.
    """
    text = str(source)
    if text.lstrip().startswith("{"):
        return check(_parse(json.loads, text, "the JSON text of --config"), "the JSON text of --config", whole=False)
    path = Path(source)
    if not path.is_file():
        raise BenchError(f"there is no configuration {path}; give the path of a YAML file, such as config/smoke.yaml")
    return check(_parse(yaml.safe_load, path.read_text(encoding="utf-8"), str(path)), str(path))


def check(config: Mapping[str, Any], origin: str, whole: bool = True) -> dict[str, Any]:
    """Check a configuration that has been read already, and fill in what may be left out.

    Parameters
    ----------
    config : mapping
        The configuration; it is not changed.
    origin : str
        Where it comes from, for the messages.
    whole : bool
        Whether the keys that every configuration has must be there.

    Raises
    ------
    BenchError
        As `load`.
    """
    _check_schema(config, origin, whole)
    with located(origin):
        config = variations.expand(candidates.expand(_with_defaults(config)))
        owners = variations.owners(config)
        for name, experiment in config["experiments"].items():
            place = f"studies.{owners[name]} ({name})" if name in owners else f"experiments.{name}"
            _check_data(experiment["data"], f"{place}.data")
            _check_methods(experiment_entries(config, name), f"{place}.methods")
            _check_gallery(experiment, f"{place}.gallery")
        _check_segment(config)
        _check_tuning(config, whole)
        for study in studies.names(config):
            _check_methods(timing_entries(config, study), f"{studies.place(study)}.methods")
    return config


def typed(value: Any) -> Any:
    """Return a value with the numbers, booleans and nulls in it read as YAML reads them.

    Snakemake leaves all of them text inside the lists and mappings of ``--config``.
    """
    if isinstance(value, Mapping):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return _scalar(value) if isinstance(value, str) else value


def method_entry(config: Mapping[str, Any], experiment: str, row: str) -> MethodEntry:
    """Return one row of an experiment.

    Raises
    ------
    BenchError
        If the configuration has no such experiment or row; those that it has are listed.
    """
    section = _pick(config["experiments"], experiment, "experiment")
    given = _pick(section["methods"], row, f"method of experiment {experiment}")
    return _entry(row, given, section.get("training", {}))


def experiment_entries(config: Mapping[str, Any], experiment: str) -> list[MethodEntry]:
    """Return all rows of an experiment, in the configuration's order."""
    section = _pick(config["experiments"], experiment, "experiment")
    return [method_entry(config, experiment, row) for row in section["methods"]]


def timing_entries(config: Mapping[str, Any], study: str = studies.MAIN) -> list[MethodEntry]:
    """Return the methods that a timing study times. Raises what `isnet_bench.studies.settings` raises."""
    given = studies.settings(config, study)["methods"]
    if not isinstance(given, Mapping):
        given = {row: {} for row in given}
    return [_entry(row, entry, {}) for row, entry in given.items()]


def study_entries(config: Mapping[str, Any], study: str) -> list[MethodEntry]:
    """Return the rows that take part in a study. Raises what `isnet_bench.variations.rows` raises."""
    return [_entry(row, given, {}) for row, given in variations.rows(config, study).items()]


def range_id(config: Mapping[str, Any], experiment: str, row: str) -> str | None:
    """Return the id of the relevance range (C1, C2) that a row is trained with; None where it needs none.

    It is the range of an ordinary classifier's heatmaps. Rows whose heatmaps explain the same share it.
    """
    entry = method_entry(config, experiment, row)
    if not methods.get(entry.method).needs_range(entry.params):
        return None
    return _explanation(config, experiment, row)[0]


def prune(
    config: Mapping[str, Any],
    experiment: str | None = None,
    method: str | None = None,
    verb: str = "train",
    study: str | None = None,
) -> dict[str, Any]:
    """Return the part of a configuration that a job depends on.

    Parameters
    ----------
    config : mapping
        A checked configuration.
    experiment, method : str, optional
        What the job is about; without a method, the part covers all methods of the experiment. For the verb
        `range`, the part holds instead of the method one that is named `range_id` and explains the same; for
        `range_classifier` it holds the plain network, trained for a short time. The verb `tune` has no experiment.
    verb : str
        The job's verb on the command line.
    study : str, optional
        The timing study that the job is about; without one, the part covers all of them. For the verb `study`, the
        study whose results are put together.

    Raises
    ------
    BenchError
        If the configuration has no such experiment, method or study.
    """
    top, inner = _NEEDED[verb]
    if verb == "tune":
        experiment = config["tuning"]["experiment"]
    part = _subset(config, top)
    if verb == "study":
        return part | variations.part(config, study)
    if study is not None:
        part["timing"] = studies.part(config, study)
    if experiment is not None and inner:
        section = _subset(_pick(config["experiments"], experiment, "experiment"), inner)
        if verb == "range":
            section["methods"] = dict([_explanation(config, experiment, method)])
        elif verb == CLASSIFIER:
            epochs = min(_CLASSIFIER_EPOCHS, section["training"]["epochs"])
            section["methods"] = {CLASSIFIER: {"method": "resnet", "training": {"epochs": epochs}}}
        elif method is not None and "methods" in section:
            section["methods"] = {method: _pick(section["methods"], method, f"method of experiment {experiment}")}
        part["experiments"] = {experiment: section}
    return part


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if value is None or isinstance(value, (bool, int, float)) else text


def _explanation(config: Mapping[str, Any], experiment: str, row: str) -> tuple[str, dict[str, Any]]:
    """Return the id of a row's explanation, and a row that explains the same with no needless parameters."""
    entry = method_entry(config, experiment, row)
    explained = methods.get(entry.method).explained

    def name(params: Mapping[str, Any]) -> str | None:
        try:
            return explained(methods.hyperparameters(dataclasses.replace(entry, params=params))).name
        except ValueError:
            return None

    whole = name(entry.params)
    params = entry.params
    for key in entry.params:
        rest = {other: value for other, value in params.items() if other != key}
        params = rest if name(rest) == whole else params
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{entry.method}_{digest}", {"method": entry.method, "params": params}


def _subset(section: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: section[key] for key in keys if key in section}


def _pick(section: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in section:
        raise BenchError(f"unknown {what}: {name!r}; the configuration has: {listed(section)}")
    return section[name]


def _entry(row: str, given: Mapping[str, Any] | None, training: Mapping[str, Any]) -> MethodEntry:
    given = given or {}
    method = given.get("method", row)
    known = method in methods.names()
    return MethodEntry(
        row=row,
        method=method,
        label=given.get("label") or (methods.get(method).label if known else row),
        params=dict(given.get("params", {})),
        training={**training, **given.get("training", {})},
    )


def _parse(read: Callable[[str], Any], text: str, origin: str) -> Any:
    try:
        config = read(text)
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise BenchError(f"{origin} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, Mapping):
        raise BenchError(f"{origin} is no configuration: it must be a mapping with the keys seeds and experiments")
    return config


def _with_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    config = {**_DEFAULTS, **json.loads(json.dumps(config))}
    for name, section in config["experiments"].items():
        config["experiments"][name] = {"title": name, **_EXPERIMENT_DEFAULTS, **section}
    for name, section in config.get("studies", {}).items():
        config["studies"][name] = {"title": name, **section}
        if isinstance(section["rows"], dict):
            config["studies"][name]["rows"] = {row: entry or {} for row, entry in section["rows"].items()}
    timing = config.get("timing", {})
    for section in (*config["experiments"].values(), timing, *timing.get("studies", {}).values()):
        if "backbone" in section:
            section["backbone"] = {**_BACKBONE_DEFAULTS, **section["backbone"]}
        if isinstance(section.get("methods"), dict):
            section["methods"] = {row: entry or {} for row, entry in section["methods"].items()}
    return config


def _check_schema(config: Mapping[str, Any], origin: str, whole: bool) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    if not whole:
        del schema["required"]
    plain = json.loads(json.dumps(config))
    error = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(plain))
    if error is not None:
        raise BenchError(f"{origin}: {_sentence(error)}")


def _sentence(error: jsonschema.ValidationError) -> str:
    place = ".".join(str(part) for part in error.absolute_path) or "the configuration"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        return fields.unknown(place, sorted(set(error.instance) - set(known)), known)
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"{place} lacks the key {missing!r}"
    if error.validator == "not":
        return f"{place}: {error.instance!r} is taken: it names a rule or another folder of the results"
    return f"{place}: {error.message}"


def _check_data(section: Mapping[str, Any], place: str) -> None:
    with located(place):
        kind = data.settings_type(section["name"])
    fields.check(kind, {key: value for key, value in section.items() if key != "name"}, place)


def _check_methods(entries: Iterable[MethodEntry], place: str) -> None:
    for entry in entries:
        if entry.method not in methods.names():
            known = listed(methods.names())
            raise BenchError(f"{place}.{entry.row}: unknown method {entry.method!r}; known: {known}")
        fields.check(methods.get(entry.method).hyperparameters, entry.params, f"{place}.{entry.row}.params")


def _check_segment(config: Mapping[str, Any]) -> None:
    if "segment" in config:
        fields.check(segmentation_data.Settings, config["segment"], "segment")


def _check_gallery(section: Mapping[str, Any], place: str) -> None:
    unknown = sorted(set(section.get("gallery", [])) - set(section["methods"]))
    if unknown and section["methods"]:
        raise BenchError(f"{place}: no row {', '.join(unknown)}; the rows are {listed(section['methods'])}")


def _check_tuning(config: Mapping[str, Any], whole: bool) -> None:
    name = config.get("tuning", {}).get("experiment")
    if name is not None and name not in config["experiments"] and whole:
        raise BenchError(f"tuning.experiment: unknown experiment {name!r}; there are: {listed(config['experiments'])}")
