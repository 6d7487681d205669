"""Publishes finished runs: what tables and figures are made of, small enough to be committed, and nothing else."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench import candidates
from isnet_bench import data as datasets
from isnet_bench.errors import BenchError
from isnet_bench.files import read_json, replacing
from isnet_bench.reporting import collect, comparison, figures, outputs, variations

__all__ = ["permitted", "publish"]

log = logging.getLogger(__name__)

_RECORDS = ("run.json", "history.csv")
_LARGEST_MB = 10
_ON_DEMAND = "mediation.csv"
# Beside the records; of these, what a snapshot no longer has is removed from it.
_EVIDENCE = ("metrics.json", "predictions.parquet", "heatmaps.npz", _ON_DEMAND)


def publish(config: dict[str, Any], text: str, results: Path, out: Path) -> None:
    """Write a snapshot of finished runs, of which `isnet_bench.reporting.outputs.redraw` makes all tables and figures.

    It holds the configuration (``config.yaml``), of each run its record, history, metrics and predictions (set, index,
    label, prediction), relevance ranges, measured times, what the data are (``data.json``), of the first seed of each
    row of the gallery the heatmaps that are drawn, and the tables and figures, drawn from just that. Images are
    published only where `permitted`. Tables of mediation, and records of tuning, of finished studies and of the
    segmentation are added where they are in `results`. A snapshot of the same experiments that is there already is
    replaced.

    Parameters
    ----------
    config : dict
        A checked configuration, all of whose runs are finished.
    text : str
        The configuration as the user wrote it.
    results, out : Path
        Root of the results, and of the snapshot.

    Raises
    ------
    BenchError
        If a run is missing or unreadable, or if no image of a gallery may be published. Nothing is written then.
    """
    results, out = Path(results), Path(out)
    if results.resolve() == out.resolve():
        raise BenchError(f"{out} holds the results themselves; publish them to another folder")
    experiments = outputs.experiments(config)
    found = {name: collect.runs(config, name, results) for name in experiments}
    predicted = {name: comparison.predictions(runs, results) for name, runs in found.items()}
    galleries = {name: _gallery(config, runs, results) for name, runs in found.items()}
    before = _written(out)
    with replacing(out / "config.yaml") as part:
        part.write_text(text, encoding="utf-8")
    for name, runs in found.items():
        kept = {*_copy_runs(runs, results, out), *_write_predictions(predicted[name], name, out)}
        kept |= {*_write_gallery(galleries[name], runs, out), *_copy_ranges(name, results, out)}
        _remove_others(out / name, kept)
        _copy(results / "data" / name / "data.json", out / "data" / name / "data.json")
    _copy_rest(config, results, out)
    outputs.redraw(config, out)
    _tell(out, before)


def permitted(rule: bool | frozenset[str], folder: Path, test_set: str, images: np.ndarray) -> np.ndarray:
    """Return which images may be published.

    Parameters
    ----------
    rule : bool or frozenset of str
        What `isnet_bench.data.publishable` says: all, none, or those of some sources.
    folder : Path
        Of the prepared data, where an image's sources are looked up by its pixels; read for a rule of sources only.
    test_set : str
        The images' split.
    images : ndarray
        uint8 (n, C, H, W).

    Returns
    -------
    ndarray
        Bool (n,). False for an image that is not found, and where any of its sources (also that of a background that
        was put around it) is none of the rule's.
    """
    if isinstance(rule, bool):
        return np.full(len(images), rule)
    path = folder / f"{test_set}.csv"
    try:
        records = pd.read_csv(path)
        with np.load(folder / f"{test_set}.npz") as stored:
            known = stored["images"]
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{path} does not tell where the images are from ({error}): prepare the data again") from error
    sources = records[[column for column in records if column.endswith("source")]]
    allowed = sources.isin(rule).all(axis=1).to_numpy() & bool(sources.shape[1])
    same = [(known == image).all(axis=(1, 2, 3)) for image in images]
    return np.array([rows.any() and allowed[rows].all() for rows in same], dtype=bool)


def _gallery(config: dict[str, Any], runs: collect.Runs, results: Path) -> dict[str, dict[str, np.ndarray]]:
    """For each row of the gallery the examples that are drawn, in few bits."""
    return {
        row: _slim(config, runs, results, row, examples) for row, examples in collect.gallery(results, runs).items()
    }


def _slim(
    config: dict[str, Any], runs: collect.Runs, results: Path, row: str, examples: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    record = read_json(
        collect.folder(results, runs.experiment, row, runs.seeds[0]) / "run.json", "train this run again"
    )
    rule = datasets.publishable(record["data"]["name"], config["experiments"][runs.experiment]["data"]["name"])
    images = np.rint(255 * examples["images"]).astype(np.uint8)
    allowed = np.flatnonzero(permitted(rule, results / "data" / runs.experiment, runs.gallery_set, images))
    if not allowed.size:
        sources = f" but for those of {', '.join(sorted(rule))}" if rule else ""
        raise BenchError(
            f"the images of experiment {runs.experiment} ({runs.data}) must not be published{sources}; set its gallery "
            "to [] in the configuration that you publish with"
        )
    chosen = allowed[figures.chosen(examples["labels"][allowed])]
    relevance = examples["relevance"][chosen]
    largest = np.abs(relevance).max(axis=(1, 2, 3), keepdims=True)
    # Figures show shares of an image's relevance, so that each heatmap may have a unit of its own.
    scaled = np.divide(relevance, largest, out=np.zeros_like(relevance), where=largest > 0)
    return {
        "images": images[chosen],
        "masks": examples["masks"][chosen].astype(np.uint8),
        "relevance": scaled.astype(np.float16),
        "labels": examples["labels"][chosen].astype(np.int16),
    }


def _write_gallery(gallery: Mapping[str, Mapping[str, np.ndarray]], runs: collect.Runs, out: Path) -> Iterator[Path]:
    for row, examples in gallery.items():
        path = collect.folder(out, runs.experiment, row, runs.seeds[0]) / "heatmaps.npz"
        with replacing(path) as part:
            np.savez_compressed(part, **{f"{runs.gallery_set}_{key}": values for key, values in examples.items()})
        yield path


def _write_predictions(predicted: pd.DataFrame, experiment: str, out: Path) -> Iterator[Path]:
    small = predicted.astype(dict.fromkeys(collect.PREDICTED[1:], "int32"))
    for (row, seed), table in small.groupby(["method", "seed"], sort=False):
        path = collect.folder(out, experiment, row, seed) / "predictions.parquet"
        with replacing(path) as part:
            table[collect.PREDICTED].to_parquet(
                part,
                index=False,
                compression="zstd",
                use_dictionary=["set", "label", "prediction"],
                column_encoding={"index": "DELTA_BINARY_PACKED"},
                write_statistics=False,
                store_schema=False,
            )
        yield path


def _copy_runs(runs: collect.Runs, results: Path, out: Path) -> Iterator[Path]:
    for row in runs.looks:
        for seed in runs.seeds:
            source, target = (collect.folder(root, runs.experiment, row, seed) for root in (results, out))
            for name in _evidence_of(source):
                _copy(source / name, target / name)
                yield target / name


def _evidence_of(run: Path) -> Iterator[str]:
    """Files of a run that a snapshot has as they are."""
    yield from (*_RECORDS, "metrics.json")
    if (run / _ON_DEMAND).is_file():
        yield _ON_DEMAND


def _copy_ranges(experiment: str, results: Path, out: Path) -> Iterator[Path]:
    source, target = results / experiment / "range", out / experiment / "range"
    for path in [*source.glob("*/seed*.json"), *(path for name in _RECORDS for path in source.glob(f"*/seed*/{name}"))]:
        copy = target / path.relative_to(source)
        _copy(path, copy)
        yield copy


def _copy_rest(config: dict[str, Any], results: Path, out: Path) -> None:
    for study in outputs.measured_studies(config, results):
        _copy(outputs.timing_json(results, study), outputs.timing_json(out, study))
    tuned = candidates.experiment(config)
    if tuned is not None and (results / tuned).is_dir():
        records = [path for name in _RECORDS for path in (results / tuned).glob(f"*_candidate*/seed*/{name}")]
        kept = {out / path.relative_to(results) for path in records} | {*_copy_ranges(tuned, results, out)}
        for path in [*records, results / "tables" / "tuning.json"]:
            _copy(path, out / path.relative_to(results))
        _remove_others(out / tuned, kept)
    for study in outputs.finished_studies(config, results):
        runs = [folder.relative_to(results) for folder in variations.folders(config, study, results)]
        kept = {run / name for run in runs for name in _evidence_of(results / run)}
        for path in sorted(kept):
            _copy(results / path, out / path)
        for experiment in {run.parts[0] for run in runs}:
            _remove_others(out / experiment, {out / path for path in kept})
    if (results / "segment").is_dir():
        for name in (*_RECORDS, "metrics.json"):
            _copy(results / "segment" / name, out / "segment" / name)


def _copy(source: Path, target: Path) -> None:
    try:
        with replacing(target) as part:
            shutil.copyfile(source, part)
    except BenchError as error:
        if source.is_file():
            raise
        raise BenchError(f"{source} is missing, so that {target.parent} cannot be published; make it again") from error


def _remove_others(folder: Path, kept: set[Path]) -> None:
    """Remove from an experiment what an earlier snapshot had and this one has not."""
    names = {*_RECORDS, *_EVIDENCE}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path not in kept and (path.name in names or path.match("range/*/seed*.json")):
            path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _written(out: Path) -> dict[Path, int]:
    """When the tables and figures of a snapshot were written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for part in ("tables", "figures") for path in (out / part).glob("*")}


def _tell(out: Path, before: Mapping[Path, int]) -> None:
    now = _written(out)
    for path, time in before.items():
        if now.get(path) == time:
            log.warning("%s is older: this configuration does not make it; delete it if it has no other maker", path)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    log.info("%s holds %.1f MB", out, size)
    if size > _LARGEST_MB:
        log.warning("%s is larger than %d MB, which is much for a repository", out, _LARGEST_MB)
