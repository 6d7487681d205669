"""The C1/C2 heuristic of the heatmap loss: one short plain training for each experiment and seed, shared by all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import isnet
from isnet_bench import data as datasets
from isnet_bench.io import provenance
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import write_json
from isnet_bench.training import range_file, runs
from isnet_bench.training.runs import Job

log = logging.getLogger(__name__)

IMAGES = 2000
"""Training images over which relevance is measured, at most."""
_BATCH = 100


def train_classifier(job: Job, out: Path) -> None:
    """Train the ordinary classifier whose heatmaps have the natural range, with the backbone of the experiment.

    Any row of the experiment gives the same one. Raises what `isnet_bench.training.train.train` raises.
    """
    # Imported here, because measuring a range needs no trainer.
    from isnet_bench.training import train as training

    training.train(range_file.plain(job), out, None)


def measure(job: Job, classifier: Path, out: Path) -> None:
    """Measure the natural ranges of an ordinary classifier's heatmaps, and write them to the JSON file `out`.

    Heatmaps are made in evaluation mode for up to `IMAGES` training images, as the row's method makes them: one range
    [C1, C2] for each supervised layer, and each rule. `classifier` is the folder of the run of `train_classifier`.

    Raises
    ------
    BenchError
        If inputs are missing or a range cannot be measured.
    """
    train = datasets.load(job.data, "train")
    network, run = runs.trained(range_file.plain(job), classifier)
    torch.manual_seed(job.seed)
    chosen = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(job.seed))[:IMAGES]
    device = runs.device_of(job.config)
    # Batch by batch, since all of them may be too many for memory.
    images = (train.images[rows].to(device) for rows in chosen.split(_BATCH))
    method, hyperparameters = job.method, job.hyperparameters
    write_json(
        out,
        {
            **range_file.about(job),
            "images": len(chosen),
            "classifier": {key: run[key] for key in ("epochs", "best_epoch", "seconds", "git_commit")},
            "ranges": _ranges(partial(method.range.totals, hyperparameters, network), images, method.name),
            "versions": provenance.versions(),
            **provenance.git(),
        },
    )


def _ranges(
    totals: Callable[[Tensor], Mapping[str, Tensor]], images: Iterable[Tensor], method: str
) -> dict[str, list[dict[str, float]]]:
    log.info("measuring the relevance range of %s", method)
    with torch.no_grad():
        parts = [totals(batch) for batch in images]
    try:
        return {
            place: [_range(column) for column in torch.cat([part[place] for part in parts]).unbind(1)]
            for place in parts[0]
        }
    except ValueError as error:
        raise BenchError(f"no range of {method} can be measured: {error}; give c1 and c2 as numbers") from error


def _range(totals: Tensor) -> dict[str, float]:
    c1, c2 = isnet.relevance_range(totals)
    return {"c1": c1, "c2": c2, "mean": totals.double().mean().item(), "std": totals.double().std().item()}
