"""Trains one method on one experiment with one seed, and writes what came out."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightning
import torch
from safetensors.torch import save
from torch import Tensor, nn

from isnet_bench import config as configuration
from isnet_bench import data as datasets
from isnet_bench import fields, methods, provenance
from isnet_bench.errors import BenchError
from isnet_bench.files import read_json, replacing, write_json
from isnet_bench.fitting import State, fit
from isnet_bench.runs import RECORD, WEIGHTS, Settings, device_of

__all__ = ["identity", "outcome", "train", "write"]


def train(
    config: dict[str, Any],
    experiment: str,
    method: str,
    seed: int,
    data: Path,
    out: Path,
    ranges: Path | None,
) -> None:
    """Train; write ``weights.safetensors``, ``history.csv`` and ``run.json``.

    The weights are those of the epoch with the lowest validation loss, as the method itself computes it, and
    of the classifier alone (see `isnet_bench.methods.classifier`). An interrupted run resumes from
    ``out/checkpoints``.

    Parameters
    ----------
    config : dict
        A checked configuration.
    experiment, method : str
        Ids in the configuration; the method is a row of the experiment.
    seed : int
        Of initial weights, batches and the method's own random choices.
    data, out : Path
        Folder of the prepared data, and of the results.
    ranges : Path or None
        What the verb `range` wrote, for methods that need it.

    Raises
    ------
    BenchError
        If inputs are missing, the backbone does not suit the method, or a loss is not finite.
    """
    data, out = Path(data), Path(out)
    entry = configuration.method_entry(config, experiment, method)
    settings = fields.fill(Settings, entry.training)
    info = datasets.info(data)
    measured = None if ranges is None else read_json(Path(ranges), "make it with the verb range")
    device = device_of(config)
    started = datetime.now(UTC)
    record = {
        "experiment": experiment,
        "method": method,
        "label": entry.label,
        "seed": seed,
        "config": configuration.prune(config, experiment, method),
        "hyperparameters": dataclasses.asdict(methods.hyperparameters(entry)),
        "training": dataclasses.asdict(settings),
        "data": info,
        "range": measured,
    }
    lightning.seed_everything(seed, verbose=False)
    images = {split: datasets.load(data, split) for split in ("train", "val")}
    weights = _class_weights(settings, images["train"].labels, len(info["classes"]))
    task = methods.task(config["experiments"][experiment]["backbone"], info, weights)
    # Convolutions of narrow networks are faster in this layout, in every method: about a quarter of a plain step.
    module = methods.build(entry, task, measured).to(memory_format=torch.channels_last)
    state = fit(
        module,
        images["train"],
        images["val"],
        settings,
        seed=seed,
        name=f"{experiment}, {method}, seed {seed}",
        folder=out / "checkpoints",
        identity=identity(record, device),
        device=device,
    )
    record |= outcome(state, methods.classifier(module), started, device)
    write(out, methods.classifier(module), state, record)
    shutil.rmtree(out / "checkpoints")


def _class_weights(settings: Settings, labels: Tensor, classes: int) -> Tensor | None:
    if settings.class_weights == "none":
        return None
    counts = labels.bincount(minlength=classes)
    if not bool((counts > 0).all()):
        raise BenchError("class_weights is balanced, but a class has no training image; add some, or set it to none")
    return len(labels) / (classes * counts.float())


def identity(record: dict[str, Any], device: torch.device) -> str:
    """Name all that a training depends on: what is known of it beforehand, and where it takes place."""
    known = {**record, "device": device.type, "torch": torch.__version__}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def outcome(state: State, network: nn.Module, started: datetime, device: torch.device) -> dict[str, Any]:
    """Return what ``run.json`` says of a finished training: how long it took, with which software, and where."""
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(state.seconds, 3),
        "train_seconds": round(state.train_seconds, 3),
        "epochs": len(state.history),
        "best_epoch": state.best_epoch,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(device),
        **provenance.git(),
    }


def write(out: Path, network: nn.Module, state: State, record: dict[str, Any]) -> None:
    """Write a finished training: the network's weights, the history of its epochs, and the record as ``run.json``."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(out / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))
    with (
        replacing(out / "history.csv") as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(state.history[0]))
        writer.writeheader()
        writer.writerows(state.history)
    write_json(out / RECORD, record)
