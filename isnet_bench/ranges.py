"""The C1/C2 heuristic of the heatmap loss: one short plain training for each experiment and seed, shared by all."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import isnet
from baselines.base import Explained
from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench import methods, provenance, runs
from isnet_bench.config import CLASSIFIER
from isnet_bench.errors import BenchError
from isnet_bench.files import write_json

__all__ = ["IMAGES", "explanations", "measure", "train_classifier"]

log = logging.getLogger(__name__)

IMAGES = 2000
"""Training images over which relevance is measured, at most."""
_BATCH = 100


def train_classifier(config: dict[str, Any], experiment: str, seed: int, data: Path, out: Path) -> None:
    """Train the ordinary classifier whose heatmaps have the natural range, with the backbone of the experiment.

    Parameters
    ----------
    config : dict
        A checked configuration.
    experiment : str
        Id in the configuration.
    seed : int
        Of the classifier.
    data, out : Path
        Folder of the prepared data, and of the classifier's run.

    Raises
    ------
    BenchError
        As `isnet_bench.training.train`.
    """
    # Imported here, because measuring a range needs no trainer.
    from isnet_bench import training

    training.train(
        configuration.prune(config, experiment, verb="range_classifier"), experiment, CLASSIFIER, seed, data, out, None
    )


def measure(config: dict[str, Any], experiment: str, seed: int, data: Path, classifier: Path, out: Path) -> None:
    """Measure the natural ranges of an ordinary classifier's heatmaps, and write them.

    Heatmaps are made in evaluation mode for up to `IMAGES` training images: one range [C1, C2] for each distinct
    explanation of the configuration's methods, each supervised layer, and each rule.

    Parameters
    ----------
    config : dict
        A checked configuration.
    experiment : str
        Id in the configuration.
    seed : int
        Of the choice of images.
    data, classifier, out : Path
        Folder of the prepared data, folder of the run of `train_classifier`, and the JSON file to write.

    Raises
    ------
    BenchError
        If inputs are missing or a range cannot be measured.
    """
    data, classifier = Path(data), Path(classifier)
    device, train, info = runs.device_of(config), datasets.load(data, "train"), datasets.info(data)
    plain = configuration.MethodEntry(CLASSIFIER, "resnet", CLASSIFIER, {}, {})
    task = methods.task(config["experiments"][experiment]["backbone"], info)
    network = methods.classifier(methods.build(plain, task, None))
    run = runs.read_record(classifier, info)
    runs.load_weights(network, classifier)
    network.to(device).eval()
    torch.manual_seed(seed)
    chosen = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    found = {
        item.name: _ranges(item, network, train.images[chosen].to(device)) for item in explanations(config, experiment)
    }
    write_json(
        Path(out),
        {
            "experiment": experiment,
            "seed": seed,
            "images": len(chosen),
            "classifier": {key: run[key] for key in ("epochs", "best_epoch", "seconds", "git_commit")},
            "explanations": found,
            "versions": provenance.versions(),
            **provenance.git(),
        },
    )


def explanations(config: dict[str, Any], experiment: str) -> Iterable[Explained]:
    """Return the distinct explanations whose ranges the experiment's methods need."""
    needed = {}
    for entry in configuration.experiment_entries(config, experiment):
        method = methods.get(entry.method)
        if method.needs_range(entry.params):
            item = method.explained(methods.hyperparameters(entry))
            needed[item.name] = item
    return needed.values()


def _ranges(item: Explained, classifier: nn.Module, images: Tensor) -> dict[str, list[dict[str, float]]]:
    log.info("measuring the relevance range of: %s", item.name)
    with torch.no_grad():
        parts = [item.totals(classifier, batch) for batch in images.split(_BATCH)]
    try:
        return {
            key: [_range(totals) for totals in torch.cat([part[key] for part in parts]).unbind(1)] for key in parts[0]
        }
    except ValueError as error:
        raise BenchError(f"no range of {item.name!r} can be measured: {error}; give c1 and c2 as numbers") from error


def _range(totals: Tensor) -> dict[str, float]:
    c1, c2 = isnet.relevance_range(totals)
    return {"c1": c1, "c2": c2, "mean": totals.double().mean().item(), "std": totals.double().std().item()}
