"""A configuration is read and checked as a whole: sentences about all that is wrong in it, before anything is done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pydantic

from isnet_bench.config import catalog, grids, reading
from isnet_bench.config.configuration import Config
from isnet_bench.config.models import Experiment, Overview, Row, Study
from isnet_bench.config.timing import MAIN
from isnet_bench.io.errors import BenchError, listed, unknown
from isnet_bench.layout import Layout

OWN_MASKS = "segment"
"""Value of a data set's `predicted_masks` that stands for the masks of the configuration's own segmentation."""
_BIASED = ("iid", "ood", "deceiving")
# Of the built-in data sets: which test sets they have, whatever their settings are.
_TEST_SETS = {"mnist": _BIASED, "phantom": _BIASED, "xray": (*_BIASED, "swapped")}
# What names of tables have behind an experiment's.
_OF_TABLES = ("classes", "comparison")


def load(source: str | Path, results: str | Path | None = None) -> Config:
    """Read and check a configuration: a YAML file, or JSON text, a part of one as `Config.part` makes it.

    `results` is the folder below which its own masks lie; that of the configuration where absent.
    Raises BenchError if it cannot be read, or for all that is wrong in it.
    """
    raw, origin = reading.parse(source)
    return check(raw, origin, whole=not str(source).lstrip().startswith("{"), results=results)


def check(
    raw: Mapping[str, Any], origin: str, whole: bool = True, strict: bool = True, results: str | Path | None = None
) -> Config:
    """Check a configuration that has been read already.

    Parameters
    ----------
    raw : mapping
        The configuration.
    origin : str
        Where it comes from, for the message.
    whole : bool
        Whether the keys that every configuration has must be there.
    strict : bool
        Whether a number must not be given as text, which is what Snakemake makes of those inside a list or a mapping
        of ``--config``.
    results : path, optional
        The folder below which its own masks lie; that of the configuration where absent.

    Raises
    ------
    BenchError
        For all that is wrong in it, each with its place and the nearest name that is known.
    """
    raw, unmade = _with_own_masks(raw, results or raw.get("results", Config.model_fields["results"].default))
    text, endless = reading.plain(raw)
    plugins = raw.get("plugins")
    known = catalog.read(
        [file for file in plugins if isinstance(file, str)] if isinstance(plugins, (list, tuple)) else ()
    )
    needed = ("seeds", "experiments") if whole else ()
    errors = [
        f"the configuration lacks the key {key!r}"
        for key in needed
        if key not in raw or (key, raw[key]) == ("seeds", None)
    ]
    errors += unmade
    labels = {card.name: card.label for card in known.methods.values()}
    try:
        config = Config.model_validate_json(text, strict=strict, context={"labels": labels})
    except pydantic.ValidationError as error:
        raise reading.all_of(origin, [*errors, *reading.sentences(error, Config)]) from error
    errors += endless or _mistakes(config, known)
    if errors:
        raise reading.all_of(origin, errors)
    return config


def _with_own_masks(raw: Mapping[str, Any], results: str | Path) -> tuple[dict[str, Any], list[str]]:
    """Put the folder of the configuration's own masks, below its results, where `predicted_masks` is `OWN_MASKS`.

    Return the configuration, and sentences about experiments that ask for such masks where there is no segmentation.
    """
    whole, errors, experiments = dict(raw), [], raw.get("experiments")
    for name, experiment in experiments.items() if isinstance(experiments, Mapping) else ():
        data = experiment.get("data") if isinstance(experiment, Mapping) else None
        if isinstance(data, Mapping) and data.get("predicted_masks") == OWN_MASKS:
            made = {**data, "predicted_masks": str(Layout(str(results)).masks())}
            whole["experiments"] = {**whole["experiments"], name: {**experiment, "data": made}}
            if not raw.get("segment"):
                errors.append(
                    f"experiments.{name}.data.predicted_masks: {OWN_MASKS} means the masks of the key segment, which "
                    "is missing; add it, or name a folder"
                )
    return whole, errors


def _mistakes(config: Config, known: catalog.Catalog) -> Iterator[str]:
    """Yield a sentence for all that is wrong in a configuration."""
    yield from (f"plugins: there is no file {file}" for file in config.plugins if not Path(file).is_file())
    for name, experiment in config.experiments.items():
        yield from _of_experiment(experiment, f"experiments.{name}", known)
        yield from _same_labels(experiment.rows, f"experiments.{name}.methods")
        for word in _OF_TABLES:
            if f"{name}_{word}" in config.experiments:
                yield f"experiments.{name}_{word}: a table of experiment {name} has that name; choose another one"
    for case, timing in config.cases.items():
        place = "timing" if case == MAIN else f"timing.cases.{case}"
        yield from _of_rows(timing.rows, f"{place}.methods", known)
    for name, study in config.studies.items():
        yield from _of_study(name, study, config, known)
    for name, overview in config.overviews.items():
        yield from _of_overview(name, overview, config)


def _of_study(name: str, study: Study, config: Config, known: catalog.Catalog) -> Iterator[str]:
    place = f"studies.{name}"
    for experiment in config.experiments:
        # Tables and figures of an experiment have its id and a word: mnist.csv, mnist_comparison.csv.
        if name == experiment or name.startswith(f"{experiment}_"):
            yield f"{place}: files of experiment {experiment} may have that name; begin it with another word"
    try:
        made = grids.expand(name, study, config.experiments)
    except BenchError as error:
        yield f"{place}: {error}"
        return
    for inner, section in made.items():
        if inner in config.experiments:
            yield f"{place}: its experiment {inner} would overwrite another one; rename one of them"
        try:
            experiment = Experiment.model_validate_json(json.dumps(section), strict=True)
        except pydantic.ValidationError as error:
            yield from reading.sentences(error, Experiment, f"{place} ({inner})")
        else:
            yield from _of_experiment(experiment, f"{place} ({inner})", known)


def _of_overview(name: str, overview: Overview, config: Config) -> Iterator[str]:
    place = f"overviews.{name}"
    if name in {*config.experiments, *config.studies}:
        yield f"{place}: an experiment or a study has that name; choose another one"
    tested = {**config.experiments, **{key: one for key, one in config.studies.items() if not one.select}}
    for label, source in overview.of.items():
        if source not in tested:
            yield f"{place}.of.{label}: {unknown('experiment or study', source, tested)}"
            return
        if overview.against and not _varies(config, source, overview.against):
            yield (
                f"{place}.against: {source} does not vary {overview.against} by numbers above 0; leave it out of the "
                "overview, or leave out against"
            )
    known = {row for source in overview.of.values() for row in _rows_of(config, source)}
    yield from (f"{place}.rows: {unknown('row', row, known)}" for row in overview.rows if row not in known)


def _varies(config: Config, source: str, setting: str) -> bool:
    axes = config.axes(source) if source in config.studies else ()
    return any(axis.numeric and min(one.given for one in axis.values) > 0 for axis in axes if axis.setting == setting)


def _rows_of(config: Config, source: str) -> Mapping[str, Row]:
    return config.study_rows(source) if source in config.studies else config.experiments[source].rows


def _of_experiment(experiment: Experiment, place: str, known: catalog.Catalog) -> Iterator[str]:
    data = experiment.data
    if data.name in known.data:
        yield from _schema_errors(known.data[data.name].schema, data.settings, f"{place}.data")
    else:
        yield f"{place}.data.name: {unknown('data set', data.name, known.data)}{_broken(known)}"
    sets = _TEST_SETS.get(data.name)
    if sets and experiment.gallery_set not in (None, *sets):
        yield f"{place}.gallery_set: no test set {experiment.gallery_set!r}; the data {data.name} have {listed(sets)}"
    yield from _of_rows(experiment.rows, f"{place}.methods", known)
    for name, row in experiment.rows.items() if data.masks is not None else ():
        if row.method in known.methods and known.methods[row.method].oracle:
            yield (
                f"{place}.methods.{name}: {row.method} sees the mask of every image and is undefined where only some "
                "have one; leave the row out, or set data.masks to null"
            )


def _of_rows(rows: Mapping[str, Row], place: str, known: catalog.Catalog) -> Iterator[str]:
    for name, row in rows.items():
        if row.method in known.methods:
            yield from _schema_errors(known.methods[row.method].schema, row.params, f"{place}.{name}.params")
        else:
            yield f"{place}.{name}: {unknown('method', row.method, known.methods)}{_broken(known)}"


def _same_labels(rows: Mapping[str, Row], place: str) -> Iterator[str]:
    """Find rows that no table could tell apart."""
    by_label: dict[str, list[str]] = {}
    for name, row in rows.items():
        by_label.setdefault(row.label, []).append(name)
    for label, names in by_label.items():
        if len(names) > 1:
            yield f"{place}: the rows {', '.join(names)} have one label, {label!r}; give each its own"


def _broken(known: catalog.Catalog) -> str:
    return "".join(f"; {file} could not be read: {why}" for file, why in known.broken.items())


def _schema_errors(schema: Mapping[str, Any], values: Mapping[str, Any], place: str) -> Iterator[str]:
    for whole in jsonschema.Draft202012Validator(schema).iter_errors(values):
        for error in _meant(whole):
            where = ".".join([place, *map(str, error.absolute_path)])
            if error.validator == "additionalProperties":
                keys = error.schema.get("properties", {})
                yield from (f"{where}: {unknown('key', key, keys)}" for key in sorted(set(error.instance) - set(keys)))
            else:
                yield f"{where}: {error.message}"


def _meant(error: jsonschema.ValidationError) -> Iterator[jsonschema.ValidationError]:
    """Yield the error; of a union's members only what is wrong with the one that the value is of the type of."""
    meant = [inner for inner in error.context or () if inner.validator not in ("type", "const")]
    for inner in meant:
        yield from _meant(inner)
    if not meant:
        yield error
