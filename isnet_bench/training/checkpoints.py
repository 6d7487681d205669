"""Checkpoints: written whole or not at all, and read only where they are undamaged and of the same training."""

from __future__ import annotations

import io
import logging
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from isnet_bench.io import torchvision_shim
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import UNREADABLE, replacing

torchvision_shim.ensure()

from lightning.fabric.plugins import TorchCheckpointIO  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

log = logging.getLogger(__name__)

_BEST, _LAST = "best.ckpt", "last.ckpt"
_DAMAGE = (*UNREADABLE, RuntimeError, TypeError, AttributeError, pickle.UnpicklingError)


class Whole(TorchCheckpointIO):
    """Writes a checkpoint beside the one before, then puts it in its place: Lightning copies it there from elsewhere.

    A process that is killed, or a full disk, leaves the one before. `name` says what is trained, for messages.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with replacing(Path(path)) as temporary:
                temporary.write_bytes(content.getbuffer())
        except BenchError as error:
            raise BenchError(f"{self.name}: {error}; if it is run again, training resumes") from error


def savers(folder: Path, monitored: str | None) -> list[ModelCheckpoint]:
    """Return what saves the best epoch's weights, if it may be another, then the last epoch whole.

    The last one also knows which is the best: the one with the lowest value in the history's column `monitored`.
    """
    common = {"dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False}
    last = ModelCheckpoint(filename="last", **common)
    if monitored is None:
        return [last]
    return [ModelCheckpoint(filename="best", monitor=monitored, save_weights_only=True, **common), last]


def resumable(folder: Path, identity: str, monitored: str | None) -> Path | None:
    """Return the checkpoint to resume from, where all that are needed are of use; else they are deleted."""
    path = folder / _LAST
    if not path.is_file():
        return None
    useless = [name for name in ([_BEST, _LAST] if monitored else [_LAST]) if _read(folder / name, identity) is None]
    if not useless:
        log.info("training resumes from %s", path)
        return path
    log.warning("%s is damaged or belongs to another configuration; training starts anew", folder / useless[0])
    shutil.rmtree(folder)
    return None


def kept(folder: Path, identity: str, monitored: str | None, name: str) -> dict[str, Any]:
    """Return the checkpoint of the epoch whose weights are kept. Raises BenchError if it is not of this training."""
    path = folder / (_BEST if monitored else _LAST)
    found = _read(path, identity)
    if found is None:
        raise BenchError(f"{name}: {path} is damaged or of another training; delete {folder}, and train again")
    return found


def _read(path: Path, identity: str) -> dict[str, Any] | None:
    """Read a checkpoint of this training; None where there is no whole one."""
    try:
        # torch does not look at the checksums that it writes.
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        found = torch.load(path, map_location="cpu", weights_only=True)
        return found if found["identity"] == identity else None
    except _DAMAGE:
        return None
