"""Evaluates a trained network: how right it is on each test set, how much it looks at the background, and by what."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isnet_bench import data as datasets
from isnet_bench.data import Split
from isnet_bench.data.base import Groups
from isnet_bench.data.stored import masks_there
from isnet_bench.evaluation.mediation import mediation
from isnet_bench.evaluation.metrics import by_group, classification
from isnet_bench.evaluation.relevance import Examination, examine, explainer, spread
from isnet_bench.evaluation.swap import swap_changes
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import digests, locked, replacing, write_json
from isnet_bench.layout import HEATMAPS, MEDIATION, METRICS, PREDICTIONS
from isnet_bench.training.runs import Job, device_of, trained, training_splits

log = logging.getLogger(__name__)


def evaluate(job: Job, run: Path) -> None:
    """Evaluate a run on every test set; write ``metrics.json``, ``predictions.parquet`` and ``heatmaps.npz``.

    How right a network is: `isnet_bench.evaluation.metrics.classification`, and where a test set has groups,
    `isnet_bench.evaluation.metrics.by_group`. Background relevance is
    defined in `isnet_bench.evaluation.relevance`; it is null where no image has any relevance. Background area
    is the mean share of background pixels, which a heatmap that ignores the image would have as its background
    relevance. Where test sets differ in the background alone, prediction changes is the share of images whose
    prediction differs between any two of them, also given for each change on its own. Swap changes need no such sets:
    `isnet_bench.evaluation.swap.swap_changes`, with the masks that the run was trained with. Training masks are the
    numbers of training images of each class that kept their mask.

    `run` is the folder of the run; results are written there, too.

    Raises
    ------
    BenchError
        If the run is missing or damaged, is another one, was made with other data, or another process works on it.
    """
    with locked(run):
        _evaluate(job, run)


def _evaluate(job: Job, run: Path) -> None:
    network, record = trained(job, run)
    splits = {name: datasets.load(job.data, name) for name in job.info["test_sets"]}
    batch_size, device = job.entry.training.batch_in_order, device_of(job.config)
    train, val = training_splits(job)
    explained = explainer(job.method, network, next(iter(splits.values())).images[:2].to(device))
    found = {
        name: examine(explained, split, spread(split.labels.numpy()), batch_size, device)
        for name, split in splits.items()
    }
    predictions = {name: one.probabilities.argmax(1) for name, one in found.items()}
    metrics = {
        "data": job.info["title"],
        "stand_in": job.info["stand_in"],
        "row": job.row,
        "seed": job.seed,
        "explainer": explained.name,
        "sets": {
            name: {**_metrics(one), **_groups(one, datasets.groups(job.data, name))} for name, one in found.items()
        },
        **_changes(job.info["background_changes"], predictions),
        "swap_changes": swap_changes(explained.classify, val, train, batch_size, device),
        "training_masks": _masks_by_class(train, len(job.info["classes"])),
        "train_seconds": record["train_seconds"],
    }
    with replacing(run / PREDICTIONS) as temporary:
        tables = [_predictions(name, examination) for name, examination in found.items()]
        pd.concat(tables).to_parquet(temporary, index=False)
    with replacing(run / HEATMAPS) as temporary:
        examples = {f"{name}_{key}": array for name, one in found.items() for key, array in one.examples.items()}
        np.savez_compressed(temporary, **examples)
    # What the numbers are of, and what belongs to them.
    files = {**record.get("files", {}), **digests(run, [PREDICTIONS, HEATMAPS])}
    write_json(run / METRICS, {**metrics, "files": files})


def mediate(job: Job, run: Path) -> None:
    """Find the units by which the background changes a run's predictions; write ``mediation.csv``.

    Its columns: change (of the background, by the name that the data set gives it), images (those whose prediction
    differs), and those of `isnet_bench.evaluation.mediation.mediation`. `run` and errors are `evaluate`'s;
    moreover it raises BenchError where no test sets differ in the background alone, and for a network without ReLU.
    """
    network, _ = trained(job, run)
    if not job.info["background_changes"]:
        raise BenchError(f"experiment {job.experiment} has no test sets that differ in the background alone")
    batch_size, device = job.entry.training.batch_in_order, device_of(job.config)
    tables = []
    for change, sets in job.info["background_changes"].items():
        before, after = (datasets.load(job.data, name) for name in sets)
        try:
            table, images = mediation(network, before, after, batch_size, device, job.method.classify)
        except ValueError as error:
            raise BenchError(f"the network of row {job.row}: {error}") from error
        table.insert(0, "images", images)
        table.insert(0, "change", change)
        tables.append(table)
        log.info("%s: %d of %d predictions change", change, images, len(before.labels))
    with replacing(run / MEDIATION) as temporary:
        pd.concat(tables).to_csv(temporary, index=False, float_format="%.4f")


def _metrics(found: Examination) -> dict[str, Any]:
    explained = ~np.isnan(found.background_relevance)
    relevance = float(found.background_relevance[explained].mean()) if explained.any() else None
    return {
        **classification(found.labels, found.probabilities),
        "background_relevance": relevance,
        "background_area": None if np.isnan(found.background_area) else found.background_area,
        "images": len(found.labels),
        "images_explained": len(explained),
        "images_without_relevance": int((~explained).sum()),
    }


def _groups(found: Examination, groups: Groups | None) -> dict[str, Any]:
    return {} if groups is None else by_group(found.labels, found.probabilities.argmax(1), *groups)


def _changes(changes: Mapping[str, tuple[str, str]], predictions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Share of images whose prediction changes with the background: for each change, and for any of them."""
    changed = {name: predictions[before] != predictions[after] for name, (before, after) in changes.items()}
    return {
        "background_changes": {name: float(images.mean()) for name, images in changed.items()},
        "prediction_changes": float(np.any(list(changed.values()), axis=0).mean()) if changed else None,
    }


def _masks_by_class(train: Split, classes: int) -> list[int]:
    return train.labels[masks_there(train.masks)].bincount(minlength=classes).tolist()


def _predictions(name: str, found: Examination) -> pd.DataFrame:
    probabilities = found.probabilities
    columns = {f"prob_{label}": probabilities[:, label] for label in range(probabilities.shape[1])}
    return pd.DataFrame(
        {
            "set": name,
            "index": np.arange(len(found.labels)),
            "label": found.labels,
            "prediction": probabilities.argmax(1),
            **columns,
        }
    )
