"""The C1/C2 heuristic of the heatmap loss, run once for each experiment and seed and shared by all methods."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn

import isnet
from baselines.base import Explained
from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench import fields, methods, provenance
from isnet_bench.errors import BenchError
from isnet_bench.files import write_json
from isnet_bench.fitting import Settings, fit
from isnet_bench.training import device_of

__all__ = ["EPOCHS", "IMAGES", "explanations", "measure"]

log = logging.getLogger(__name__)

EPOCHS = 4
"""Length of the plain training, unless the experiment's is shorter."""
IMAGES = 2000
"""Training images over which relevance is measured, at most."""
_BATCH = 100


def measure(config: dict[str, Any], experiment: str, seed: int, data: Path, out: Path) -> None:
    """Train an ordinary classifier for a short time and write the natural ranges of its heatmaps.

    The experiment's backbone is trained with the experiment's settings for at most `EPOCHS` epochs, and its heatmaps
    are made in evaluation mode for up to `IMAGES` training images: one range [C1, C2] for each distinct explanation
    of the configuration's methods, each supervised layer, and each rule.

    Parameters
    ----------
    config : dict
        A checked configuration.
    experiment : str
        Id in the configuration.
    seed : int
        Of the classifier, and of the choice of images.
    data, out : Path
        Folder of the prepared data, and the JSON file to write.

    Raises
    ------
    BenchError
        If inputs are missing or a range cannot be measured.
    """
    data, out = Path(data), Path(out)
    section = config["experiments"][experiment]
    settings = fields.fill(Settings, {**section["training"], "epochs": min(EPOCHS, section["training"]["epochs"])})
    device, train, info = device_of(config), datasets.load(data, "train"), datasets.info(data)
    lightning.seed_everything(seed, verbose=False)
    plain = configuration.MethodEntry("range", "resnet", "range", {}, section["training"])
    module = methods.build(plain, methods.task(section["backbone"], info), None)
    checkpoints = out.parent / f".{out.stem}-checkpoints"
    shutil.rmtree(checkpoints, ignore_errors=True)
    state = fit(
        module,
        train,
        datasets.load(data, "val"),
        settings,
        seed=seed,
        name=f"{experiment}, range, seed {seed}",
        folder=checkpoints,
        identity="range",
        device=device,
    )
    shutil.rmtree(checkpoints)
    classifier = methods.classifier(module).to(device).eval()
    chosen = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    found = {
        item.name: _ranges(item, classifier, train.images[chosen].to(device))
        for item in explanations(config, experiment)
    }
    write_json(
        out,
        {
            "experiment": experiment,
            "seed": seed,
            "epochs": settings.epochs,
            "images": len(chosen),
            "val_accuracy": state.history[-1]["val_accuracy"],
            "seconds": round(state.seconds, 3),
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
