"""Publishes collected runs: what tables and figures are made of, small enough to be committed, and nothing else."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench import layout as places
from isnet_bench.config import Config, Row
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import read_json, replacing, write_text
from isnet_bench.layout import Layout
from isnet_bench.reporting import figures, outputs, snapshot
from isnet_bench.reporting.collect import other_settings
from isnet_bench.reporting.snapshot import Snapshot
from isnet_bench.timing.summary import REMEDY

log = logging.getLogger(__name__)

_LARGEST_MB = 10
_RANGES = "ranges.csv"


def publish(cfg: Config, text: str, results: Path, out: Path) -> None:
    """Write one snapshot of all experiments, and of the studies and timing cases that are there; draw what it holds.

    It has the configuration (``config.yaml``) and, below ``timing`` and ``segment``, the measured times and the record
    of the lung segmentation. Of a gallery it has the images that are drawn, and only those that are `permitted`. A
    snapshot that is there already is replaced, but for what was not run again and is still configured so.

    `text` is the configuration as the user wrote it. Raises BenchError if an experiment was neither collected nor
    published before, or if no image of a gallery may be published. Nothing is written then.
    """
    results, out = Path(results), Path(out)
    if results.resolve() == out.resolve():
        raise BenchError(f"{out} holds the results themselves; publish them to another folder")
    layout = Layout(results)
    kept = _kept(cfg, out, [name for name in cfg.studies if name not in outputs.collected_studies(cfg, results)])
    kept |= _kept(cfg, out, [name for name in cfg.experiments if not layout.collected(name).exists()])
    names = [name for name in (*cfg.experiments, *outputs.collected_studies(cfg, results)) if name not in kept]
    whole = snapshot.concatenate([*(snapshot.read(layout.collected(name)) for name in names), *kept.values()])
    fresh = [name for name in cfg.experiments if name not in kept]
    drawn = {key: one for name in fresh for key, one in _gallery(cfg, whole, name, layout).items()}
    drawn |= {key: one for part in kept.values() for key, one in part.gallery.items()}
    files = [layout.timing(cfg.case(case).suffix) for case in outputs.measured_cases(cfg, results)]
    times = {file: _times(file) for file in files}
    write_text(out / "config.yaml", text)
    if whole.data:
        snapshot.write(replace(whole, gallery=drawn), out)
    for file, measured in times.items():
        write_text(out / file.relative_to(results), measured)
    for name in (places.RECORD, places.HISTORY, places.METRICS) if layout.segment().is_dir() else ():
        with replacing(Layout(out).segment() / name) as part:
            shutil.copyfile(layout.segment() / name, part)
    outputs.redraw(cfg, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    log.info("%s holds %.1f MB", out, size)
    if size > _LARGEST_MB:
        log.warning("%s is larger than %d MB, which is much for a repository", out, _LARGEST_MB)


def permitted(rule: bool | frozenset[str], folder: Path, test_set: str, images: np.ndarray) -> np.ndarray:
    """Return which images, uint8 (n, C, H, W), may be published, by what `isnet_bench.data.publishable` says.

    Where that is a set of sources, an image's own are looked up by its pixels in the folder of the prepared data. An
    image that is not found is not permitted, nor one of which any source (also that of a background that was put around
    it) is none of these.
    """
    if isinstance(rule, bool):
        return np.full(len(images), rule)
    path = folder / f"{test_set}.csv"
    try:
        records = pd.read_csv(path)
        known = np.load(places.arrays_file(folder, test_set), mmap_mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"{path} does not say where the images are from ({error}): prepare the data again") from error
    sources = records[[column for column in records if column.endswith("source")]]
    allowed = sources.isin(rule).all(axis=1).to_numpy() & bool(sources.shape[1])
    same = np.empty((len(images), len(known)), bool)
    # One after the other, since there may be more of them than fit into memory.
    for number, one in enumerate(known):
        same[:, number] = (images == one).all(axis=(1, 2, 3))
    return np.array([rows.any() and allowed[rows].all() for rows in same], dtype=bool)


def _kept(cfg: Config, out: Path, names: Sequence[str]) -> dict[str, Snapshot]:
    """Return the runs of experiments and studies that an earlier snapshot has as they are configured, by name."""
    kept = {}
    for name in names:
        wanted, tested = _runs(cfg, name)
        experiments = {experiment for experiment, _, _ in wanted}
        if not wanted or not snapshot.experiments(out) >= experiments:
            continue
        found = _part(snapshot.read(out), experiments)
        runs = {key: group.iloc[0] for key, group in found.tables["runs.csv"].groupby(snapshot.KEY)}
        same = all(key in runs and not other_settings(row, _record(runs[key]), tested) for key, row in wanted.items())
        data = all(_agree(cfg.experiment(each).data.settings, info["settings"]) for each, info in found.data.items())
        if same and data:
            log.info("%s stays as it was published", name)
            kept[name] = found
        else:
            log.warning("%s is left out: it was published with other settings than are configured now", name)
    return kept


def _runs(cfg: Config, name: str) -> tuple[dict[tuple[str, str, int], Row], bool]:
    """Return the row of each run of an experiment or a study, and whether the runs are tested."""
    if name in cfg.experiments:
        rows = cfg.experiment(name).rows.items()
        return {(name, key, seed): row for key, row in rows for seed in cfg.experiment_seeds(name)}, True
    runs = {
        (cell.experiment, cell.row, seed): cfg.row(cell.experiment, cell.row)
        for cell in cfg.cells(name)
        for seed in cfg.study_seeds(name)
    }
    return runs, cfg.study(name).tested


def _part(whole: Snapshot, experiments: set[str]) -> Snapshot:
    """Return the runs of some experiments, with the ranges that they were trained with, whatever these were called."""
    tables = {
        name: table[table["experiment"].isin(experiments)] for name, table in whole.tables.items() if name != _RANGES
    }
    if _RANGES in whole.tables:
        ranges = whole.tables[_RANGES]
        tables[_RANGES] = ranges[ranges["range"].isin(tables["runs.csv"]["range"])]
    return replace(
        whole,
        tables={name: table for name, table in tables.items() if len(table)},
        data={name: entry for name, entry in whole.data.items() if name in experiments},
        gallery={key: one for key, one in whole.gallery.items() if key.partition("/")[0] in experiments},
    )


def _agree(asked: Any, made: Any) -> bool:
    """Return whether settings that were asked for, perhaps not all of them, are those that were used."""
    if isinstance(asked, Mapping) and isinstance(made, Mapping):
        return all(_agree(value, made.get(key, value)) for key, value in asked.items())
    return asked == made


def _record(run: pd.Series) -> dict[str, Any]:
    return {kind: json.loads(run[kind]) for kind in ("training", "hyperparameters")}


def _gallery(cfg: Config, whole: Snapshot, name: str, layout: Layout) -> dict[str, np.ndarray]:
    # Torch comes with it, which no table or figure needs.
    from isnet_bench import data

    info, experiment = whole.data[name], cfg.experiment(name)
    wanted = [*snapshot.GALLERY, *(experiment.rows if experiment.gallery is None else experiment.gallery)]
    found = {f"{name}/{key}": whole.gallery.get(f"{name}/{key}") for key in wanted}
    found = {key: one for key, one in found.items() if one is not None}
    if not found or experiment.gallery == ():
        return {}
    rule = data.publishable(info["name"], experiment.data.name, cfg.plugins)
    test_set = experiment.gallery_set or info["test_sets"][0]
    allowed = np.flatnonzero(permitted(rule, layout.data(name), test_set, found[f"{name}/images"]))
    if not allowed.size:
        sources = f" but for those of {', '.join(sorted(rule))}" if rule else ""
        raise BenchError(
            f"the images of experiment {name} ({info['title']}) must not be published{sources}; set its gallery to [] "
            "in the configuration that you publish with"
        )
    chosen = allowed[figures.chosen(found[f"{name}/labels"][allowed])]
    return {key: one[chosen] for key, one in found.items()}


def _times(file: Path) -> str:
    """Return the measurements with every round, but without what pytest-benchmark works out from them or writes twice.

    Rounds are in whole nanoseconds, which is as fine as the clock.
    """
    content = read_json(file, REMEDY)
    content["benchmarks"] = [
        {key: entry[key] for key in ("name", "extra_info") if key in entry}
        | {"stats": {"data": [round(seconds, 9) for seconds in entry["stats"]["data"]]}}
        for entry in content["benchmarks"]
    ]
    return json.dumps(content, separators=(",", ":")) + "\n"
