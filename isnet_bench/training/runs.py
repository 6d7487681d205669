"""A run: what it is about, and what later stages read of what training leaves behind.

Apart from the trainer, whose import takes longer than evaluating a small network.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from isnet_bench import data as datasets
from isnet_bench import methods
from isnet_bench.config import Config, Row, Training
from isnet_bench.data import Split
from isnet_bench.data.base import GroupedSplit
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import read_json, verify
from isnet_bench.layout import RECORD, WEIGHTS
from isnet_bench.training.mask_subset import keep_masks

_DEFAULTS = {key: field.default for key, field in Training.model_fields.items() if not field.is_required()}
_REMEDY = "train this method with this seed again"
_OTHER = {
    "data": "on other data than the prepared data are now",
    "source": "with other code of its method than there is now",
}
_ANEW = "delete this folder, then train this method with this seed again"


@dataclass(frozen=True)
class Job:
    """A row of an experiment with one seed, and the data that it is trained and tested on.

    Attributes
    ----------
    config : Config
        The configuration, or the part of it that the run depends on.
    experiment, row : str
        Ids in the configuration.
    seed : int
        Of initial weights, batches and all random choices.
    data : Path
        Folder of the prepared data.
    """

    config: Config
    experiment: str
    row: str
    seed: int
    data: Path

    @property
    def entry(self) -> Row:
        """The row as it is configured."""
        return self.config.row(self.experiment, self.row)

    @property
    def method(self) -> methods.Method:
        """What the row trains."""
        return methods.get(self.entry.method, self.config.plugins)

    @property
    def hyperparameters(self) -> Any:
        """Those of the method, none left open."""
        return methods.hyperparameters(self.entry, self.config.plugins)

    @cached_property
    def info(self) -> dict[str, Any]:
        """What the data are."""
        return datasets.info(self.data)

    @property
    def identity(self) -> dict[str, Any]:
        """What a run's record must say for the run to be this one, as JSON has it."""
        masks = self.config.experiment(self.experiment).data.masks
        told = {
            "experiment": self.experiment,
            "row": self.row,
            "method": self.method.name,
            "seed": self.seed,
            "hyperparameters": dataclasses.asdict(self.hyperparameters),
            "training": self.entry.training.model_dump(),
            "data": self.info,
            "masks": masks and masks.model_dump(),
            "source": self.config.catalog.methods[self.entry.method].code,
        }
        return json.loads(json.dumps(told))

    def build(self, measured: dict[str, Any] | None, class_weights: Tensor | None = None) -> nn.Module:
        """Return the row's module, not trained, given what the verb `range` wrote for rows that need it."""
        task = methods.task(self.config.experiment(self.experiment).backbone, self.info, class_weights)
        return methods.build(self.entry, task, measured, self.config.plugins)


def training_splits(job: Job) -> tuple[Split | GroupedSplit, Split | GroupedSplit]:
    """Return training and validation images, with the masks that the run keeps of them, and groups where they have any.

    Raises BenchError if files are missing or damaged, or fewer images have a mask than are to keep it.
    """
    train, val = (_with_groups(job.data, split) for split in ("train", "val"))
    subset = job.config.experiment(job.experiment).data.masks
    return (train, val) if subset is None else keep_masks(train, val, subset, job.seed)


def _with_groups(folder: Path, split: str) -> Split | GroupedSplit:
    loaded, groups = datasets.load(folder, split), datasets.groups(folder, split)
    return loaded if groups is None else GroupedSplit(*loaded, torch.from_numpy(groups.ids))


def trained(job: Job, run: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network of a finished run, in evaluation mode on the configured device, and the run's record.

    Raises
    ------
    BenchError
        If the run is missing or damaged, is another one, or was made with other data.
    """
    record = read_json(run / RECORD, _REMEDY)
    if "training" in record:
        # A key that is younger than the record: what its default says was done.
        record["training"] = _DEFAULTS | record["training"]
    for key, value in job.identity.items():
        if record.get(key, value) != value:
            raise BenchError(f"{run} was trained {_OTHER.get(key, f'with another {key}')}: {_REMEDY}")
    verify(run, record.get("files", {}), _ANEW)
    network = job.method.trained(job.build(record["range"]))
    path = run / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {_REMEDY}") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"{path} does not hold this method's weights ({reason}): {_REMEDY}") from error
    return network.to(device_of(job.config)).eval(), record


def device_of(config: Config) -> torch.device:
    """Return the device that the configuration asks for. Raises BenchError if that is a GPU, and there is none."""
    wanted, found = config.device, torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise BenchError("device is cuda, but torch finds no GPU; set device to auto or cpu in the configuration")
    return torch.device("cuda", 0) if found and wanted != "cpu" else torch.device("cpu")
