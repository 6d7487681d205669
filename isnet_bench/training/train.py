"""Trains one method on one experiment with one seed, and writes what came out."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from isnet_bench import methods
from isnet_bench.config import Training
from isnet_bench.data import Split
from isnet_bench.io import provenance, torchvision_shim
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import digests, locked, replacing, write_json
from isnet_bench.layout import HISTORY, RECORD, WEIGHTS
from isnet_bench.training import range_file
from isnet_bench.training.fit import State, fit
from isnet_bench.training.runs import Job, device_of, training_splits

torchvision_shim.ensure()

import lightning  # noqa: E402


def train(job: Job, out: Path, measured_range: Path | None) -> None:
    """Train; write ``weights.safetensors``, ``history.csv`` and ``run.json`` into the folder `out`.

    The weights are those of the epoch that the setting ``training.epoch`` chooses by validation images, and of
    what is left of the method alone (`Method.kept`). An interrupted run resumes from ``out/checkpoints``.
    `measured_range` is what the verb `range` wrote, for methods that need it.

    Raises
    ------
    BenchError
        If inputs are missing, the backbone does not suit the method, a loss is not finite, or another process trains
        in this folder.
    """
    method, settings = job.method, job.entry.training
    measured = None if measured_range is None else range_file.read(job, measured_range)
    device = device_of(job.config)
    record = {
        **job.identity,
        "config": json.loads(job.config.part("train", job.experiment, job.row)),
        "range": measured,
    }
    lightning.seed_everything(job.seed, verbose=False)
    splits = training_splits(job)
    weights = _class_weights(settings, splits[0].labels, len(job.info["classes"]))
    # Convolutions of narrow networks are faster in this layout, in every method: about a quarter of a plain step.
    module = job.build(measured, weights).to(memory_format=torch.channels_last)
    name = f"{job.experiment}, {job.row}, seed {job.seed}"
    with locked(out):
        learn(module, method.trained, splits, settings, record, name, out, device, method.classify, method.groups)
        shutil.rmtree(out / "checkpoints")


def _class_weights(settings: Training, labels: Tensor, classes: int) -> Tensor | None:
    if settings.class_weights == "none":
        return None
    counts = labels.bincount(minlength=classes)
    if not bool((counts > 0).all()):
        raise BenchError("class_weights is balanced, but a class has no training image; add some, or set it to none")
    return len(labels) / (classes * counts.float())


def learn(
    module: nn.Module,
    kept: Callable[[nn.Module], nn.Module],
    splits: Iterable[Split],
    settings: Training,
    record: dict[str, Any],
    name: str,
    out: Path,
    device: torch.device,
    classify: methods.Classify = methods.without_masks,
    grouped: bool = False,
) -> None:
    """Fit a module to training and validation images, and write what is kept of it.

    `record` names all that the result depends on besides the device and torch itself, and has the seed; ``run.json``
    says, too, how long it took, with which software, and where. The rest is as in `isnet_bench.training.fit.fit`.
    """
    started = datetime.now(UTC)
    known = {**record, "device": device.type, "torch": torch.__version__}
    state = fit(
        module,
        *splits,
        settings,
        seed=record["seed"],
        name=name,
        folder=out / "checkpoints",
        identity=hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest(),
        device=device,
        classify=classify,
        grouped=grouped,
    )
    network = kept(module)
    outcome = {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(state.seconds, 3),
        "train_seconds": round(state.train_seconds, 3),
        "epochs": len(state.history),
        "best_epoch": int(settings.kept(state.history)["epoch"]),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(
            torch.get_num_threads(), torch.cuda.get_device_name(device) if device.type == "cuda" else None
        ),
        **provenance.git(),
    }
    write(out, network, state, record | outcome)


def write(out: Path, network: nn.Module, state: State, record: dict[str, Any]) -> None:
    """Write a finished training: the network's weights, the history of its epochs, and the record as ``run.json``.

    The record gets the digests of the other two, so that they cannot be taken for those of another run.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    with replacing(out / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))
    with (
        replacing(out / HISTORY) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, list(state.history[0]))
        writer.writeheader()
        writer.writerows(state.history)
    write_json(out / RECORD, {**record, "files": digests(out, [WEIGHTS, HISTORY])})
