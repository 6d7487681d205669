"""What training leaves behind, and what later stages read of it: settings, records and weights of a run.

Apart from `isnet_bench.training`, because importing the trainer takes longer than evaluating a small network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from isnet_bench.errors import BenchError
from isnet_bench.files import read_json

__all__ = ["RECORD", "WEIGHTS", "Settings", "device_of", "load_weights", "read_record"]

WEIGHTS, RECORD = "weights.safetensors", "run.json"
"""Names of a run's files."""
_REMEDY = "train this method with this seed again"


@dataclass(frozen=True)
class Settings:
    """Trainer settings, shared by all methods of an experiment.

    Attributes
    ----------
    epochs, batch_size : int
        A last batch that would be smaller is left out; which images these are differs from epoch to epoch.
    learning_rate, weight_decay : float
        Of AdamW. The learning rate is the highest of the schedule.
    gradient_clip : float or None
        Largest Euclidean norm of the gradient of all parameters together; None: not clipped.
    schedule : {"one_cycle", "cosine", "constant"}
        Course of the learning rate over the batches.
    val_batch_size : int or None
        None: `batch_size`.
    class_weights : {"none", "balanced"}
        Weights of the cross-entropy, of every method; "balanced": inversely proportional to the class's
        number of training images, and 1 on average over those.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    gradient_clip: float | None = 1.0
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    val_batch_size: int | None = None
    class_weights: Literal["none", "balanced"] = "none"


def read_record(run: Path, info: dict[str, Any]) -> dict[str, Any]:
    """Return the record ``run.json`` of a run.

    Raises
    ------
    BenchError
        If it is missing or damaged, or the run was made with other data than those that `info` describes.
    """
    record = read_json(run / RECORD, _REMEDY)
    if record["data"] != info:
        raise BenchError(f"{run} was trained on other data than the prepared data are now: {_REMEDY}")
    return record


def load_weights(network: nn.Module, run: Path) -> None:
    """Load the weights of a run into its network.

    Raises
    ------
    BenchError
        If they are missing or damaged.
    """
    path = run / WEIGHTS
    try:
        network.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise BenchError(f"{path} is missing: {_REMEDY}") from error
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(f"{path} does not hold this method's weights ({reason}): {_REMEDY}") from error


def device_of(config: dict[str, Any]) -> torch.device:
    """Return the device that the configuration asks for.

    Raises
    ------
    BenchError
        If that is a GPU, and there is none.
    """
    wanted, found = config["device"], torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise BenchError("device is cuda, but torch finds no GPU; set device to auto or cpu in the configuration")
    return torch.device("cuda", 0) if found and wanted != "cpu" else torch.device("cpu")
