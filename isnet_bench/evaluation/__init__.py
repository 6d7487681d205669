"""Evaluates a trained network: how right it is on each test set, how much it looks at the background, and by what."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench import fields, methods
from isnet_bench.errors import BenchError
from isnet_bench.evaluation.mediation import mediation
from isnet_bench.evaluation.metrics import classification
from isnet_bench.evaluation.relevance import Examination, examine, explainer, spread
from isnet_bench.files import replacing, write_json
from isnet_bench.runs import Settings, device_of, load_weights, read_record

__all__ = ["evaluate", "mediate"]

log = logging.getLogger(__name__)


def evaluate(config: dict[str, Any], experiment: str, method: str, seed: int, data: Path, run: Path) -> None:
    """Evaluate a run on every test set; write ``metrics.json``, ``predictions.parquet`` and ``heatmaps.npz``.

    How right a network is: `isnet_bench.evaluation.metrics.classification`. Background relevance is
    defined in `isnet_bench.evaluation.relevance`; it is null where no image has any relevance. Background area
    is the mean share of background pixels, which a heatmap that ignores the image would have as its background
    relevance. Where test sets differ in the background alone, prediction changes is the share of images whose
    prediction differs between any two of them, also given for each change on its own.

    Parameters
    ----------
    config : dict
        A checked configuration.
    experiment, method : str
        Ids in the configuration; the method is a row of the experiment.
    seed : int
        Of the run.
    data, run : Path
        Folder of the prepared data, and of the run; results are written to the latter.

    Raises
    ------
    BenchError
        If the run is missing, damaged or was made with other data.
    """
    run = Path(run)
    trained = _trained(config, experiment, method, Path(data), run)
    info, batch_size, device = trained.info, trained.batch_size, trained.device
    shown = {name: spread(split.labels.numpy()) for name, split in trained.splits.items()}
    explained = explainer(trained.network, next(iter(trained.splits.values())).images[:2].to(device))
    found = {name: examine(explained, split, shown[name], batch_size, device) for name, split in trained.splits.items()}
    metrics = {
        "data": info["title"],
        "stand_in": info["stand_in"],
        "method": method,
        "label": configuration.method_entry(config, experiment, method).label,
        "seed": seed,
        "explainer": explained.name,
        "sets": {name: _metrics(examination) for name, examination in found.items()},
        **_changes(info["background_changes"], {name: one.probabilities.argmax(1) for name, one in found.items()}),
        "train_seconds": trained.record["train_seconds"],
    }
    with replacing(run / "predictions.parquet") as temporary:
        pd.concat([_predictions(name, examination) for name, examination in found.items()]).to_parquet(
            temporary, index=False
        )
    with replacing(run / "heatmaps.npz") as temporary:
        np.savez_compressed(
            temporary,
            **{
                f"{name}_{key}": array
                for name, examination in found.items()
                for key, array in examination.examples.items()
            },
        )
    write_json(run / "metrics.json", metrics)


def mediate(config: dict[str, Any], experiment: str, method: str, seed: int, data: Path, run: Path) -> None:
    """Find the units by which the background changes a run's predictions; write ``mediation.csv``.

    Its columns: change (of the background, by the name that the data set gives it), images (those whose prediction
    differs), and those of `isnet_bench.evaluation.mediation.mediation`. Parameters and errors are `evaluate`'s;
    moreover it raises BenchError where no test sets differ in the background alone, and for a network without ReLU.
    """
    run = Path(run)
    trained = _trained(config, experiment, method, Path(data), run)
    if not trained.info["background_changes"]:
        raise BenchError(f"experiment {experiment} has no test sets that differ in the background alone")
    tables = []
    for change, sets in trained.info["background_changes"].items():
        before, after = (trained.splits[name] for name in sets)
        try:
            table, images = mediation(trained.network, before, after, trained.batch_size, trained.device)
        except ValueError as error:
            raise BenchError(f"the network of row {method}: {error}") from error
        table.insert(0, "images", images)
        table.insert(0, "change", change)
        tables.append(table)
        log.info("%s: %d of %d predictions change", change, images, len(before.labels))
    with replacing(run / "mediation.csv") as temporary:
        pd.concat(tables).to_csv(temporary, index=False, float_format="%.4f")


class _Trained(NamedTuple):
    """A trained network, and what it is tested on."""

    info: dict[str, Any]
    record: dict[str, Any]
    network: nn.Module
    splits: dict[str, datasets.Split]
    batch_size: int
    device: torch.device


def _trained(config: dict[str, Any], experiment: str, method: str, data: Path, run: Path) -> _Trained:
    entry = configuration.method_entry(config, experiment, method)
    info = datasets.info(data)
    record = read_record(run, info)
    task = methods.task(config["experiments"][experiment]["backbone"], info)
    network = methods.classifier(methods.build(entry, task, record["range"]))
    load_weights(network, run)
    settings = fields.fill(Settings, entry.training)
    splits = {name: datasets.load(data, name) for name in info["test_sets"]}
    device = device_of(config)
    batch_size = settings.val_batch_size or settings.batch_size
    return _Trained(info, record, network.to(device).eval(), splits, batch_size, device)


def _metrics(found: Examination) -> dict[str, Any]:
    explained = ~np.isnan(found.background_relevance)
    relevance = float(found.background_relevance[explained].mean()) if explained.any() else None
    return {
        **classification(found.labels, found.probabilities),
        "background_relevance": relevance,
        "background_area": found.background_area,
        "images": len(found.labels),
        "images_explained": len(explained),
        "images_without_relevance": int((~explained).sum()),
    }


def _changes(changes: Mapping[str, tuple[str, str]], predictions: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Share of images whose prediction changes with the background: for each change, and for any of them."""
    changed = {name: predictions[before] != predictions[after] for name, (before, after) in changes.items()}
    return {
        "background_changes": {name: float(images.mean()) for name, images in changed.items()},
        "prediction_changes": float(np.any(list(changed.values()), axis=0).mean()) if changed else None,
    }


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
