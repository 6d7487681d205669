"""The training loop: batches, one epoch after the other, checkpoints, and where training stands."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from isnet_bench import methods
from isnet_bench.config import Training
from isnet_bench.config.models import WORST_GROUP
from isnet_bench.data import Split
from isnet_bench.data.base import GroupedSplit
from isnet_bench.data.stored import masks_there
from isnet_bench.io import torchvision_shim
from isnet_bench.io.errors import BenchError
from isnet_bench.training import allocator, checkpoints
from isnet_bench.training.augmentation import Augment
from isnet_bench.training.tallies import Means, WorstGroup

torchvision_shim.ensure()

import lightning  # noqa: E402
from lightning.pytorch.callbacks import TQDMProgressBar  # noqa: E402
from lightning.pytorch.plugins.environments import LightningEnvironment  # noqa: E402

log = logging.getLogger(__name__)

_SHOWN = ("train_loss", "val_loss", "val_accuracy")
_REFRESH = 20


@dataclass
class State:
    """How far training has come.

    Attributes
    ----------
    history : list of dict
        One row for each epoch, counted from 1.
    train_seconds : float
        Time spent on training batches alone, without validation and checkpoints.
    seconds : float
        Time spent on all.
    """

    history: list[dict[str, float]]
    train_seconds: float = 0.0
    seconds: float = 0.0


def fit(
    module: nn.Module,
    train: Split,
    val: Split,
    settings: Training,
    *,
    seed: int,
    name: str,
    folder: Path,
    identity: str,
    device: torch.device,
    classify: methods.Classify = methods.without_masks,
    grouped: bool = False,
) -> State:
    """Train a method; its module then has the weights of the best epoch by the rule `settings.epoch`.

    Every epoch has random numbers of its own, drawn from `seed` and the epoch alone: a run that was
    interrupted, and is resumed at the end of the last whole epoch, ends like one that was not.

    Parameters
    ----------
    module : nn.Module
        With ``training_loss(images, masks, labels) -> Losses`` and ``forward(images) -> logits``.
    train, val : Split or GroupedSplit
        Validation images decide which epoch is the best one, by the method's own loss, its classification part or the
        accuracy of their worst group, in evaluation mode.
    settings : Training
        Trainer settings.
    seed : int
        Of batches and of all random numbers that the method draws.
    name : str
        What is trained, for messages.
    folder : Path
        For checkpoints. If one is there of the same `identity`, training resumes from it.
    identity : str
        Names all that the result depends on.
    device : torch.device
        The processor, or one GPU.
    classify : callable
        How the module classifies validation images.
    grouped : bool
        Whether the loss is given the groups of the images, too.

    Raises
    ------
    BenchError
        If a loss or a gradient is not finite, the loss lacks the part that chooses the epoch, images with a mask are to
        be added to each batch and there are none, or groups are needed and there are none.
    """
    _check_groups(name, train, val, settings, grouped)
    allocator.keep_memory()
    masked = masks_there(train.masks).nonzero().flatten()
    if settings.masked_images and not len(masked):
        raise BenchError(f"{name}: no training image has a mask; set training.masked_images to null")
    if settings.batch_size > len(train.labels):
        log.warning(
            "%s: training.batch_size is %d, and a batch has all of the %d training images",
            name,
            settings.batch_size,
            len(train.labels),
        )
    batches = SeededBatches(len(train.labels), settings.batch_size, seed, masked, settings.masked_images or 0)
    groups = int(val.groups.max()) + 1 if isinstance(val, GroupedSplit) else 0
    loop = Loop(module, classify, settings, 4 if grouped else 3, groups, seed=seed, name=name, identity=identity)
    monitored = settings.monitored
    bar = sys.stdout.isatty()
    with _quiet():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            plugins=[LightningEnvironment(), checkpoints.Whole(name)],
            max_epochs=settings.epochs,
            precision={"float32": "32-true", "bf16": "bf16-mixed"}[settings.precision],
            num_sanity_val_steps=0,
            # Validation needs gradients: heatmaps are made of them.
            inference_mode=False,
            deterministic="warn" if device.type == "cuda" else None,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=bar,
            callbacks=[
                *checkpoints.savers(folder, monitored),
                ProgressBar(_REFRESH, leave=True) if bar else ProgressLines(),
            ],
        )
        in_order = torch.arange(len(val.labels)).split(settings.batch_in_order)
        trainer.fit(
            loop,
            _loader(train, batches),
            _loader(val, in_order),
            ckpt_path=checkpoints.resumable(folder, identity, monitored),
            weights_only=True,
        )
    loop.load_state_dict(checkpoints.kept(folder, identity, monitored, name)["state_dict"])
    return loop.progress


def _check_groups(name: str, train: Split, val: Split, settings: Training, grouped: bool) -> None:
    without = "training" if not isinstance(train, GroupedSplit) else "validation"
    if grouped and not (isinstance(train, GroupedSplit) and isinstance(val, GroupedSplit)):
        raise BenchError(f"{name}: the method needs groups, and {without} images have none; take it out of the rows")
    if settings.epoch == "worst_group" and not isinstance(val, GroupedSplit):
        raise BenchError(f"{name}: validation images have no groups; set training.epoch to another rule")


class SeededBatches(Sampler):
    """Indices of the batches of one epoch, drawn from the seed and the epoch alone.

    Each batch has so many of all `images`, and `added` ones of those at the places `masked`: no image twice as long as
    there are enough of them, else all equally often but for one.
    """

    def __init__(self, images: int, batch_size: int, seed: int, masked: Tensor | None = None, added: int = 0) -> None:
        self.images, self.batch_size, self.seed = images, min(batch_size, images), seed
        self.masked, self.added = masked, added
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(_epoch_seed(self.seed, self.epoch))
        order = torch.randperm(self.images, generator=generator)
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            yield torch.cat([batch, self._draw(generator)]) if self.added else batch

    def _draw(self, generator: torch.Generator) -> Tensor:
        number = len(self.masked)
        rounds = [torch.randperm(number, generator=generator) for _ in range(-(-self.added // number))]
        return self.masked[torch.cat(rounds)[: self.added]]


class Loop(lightning.LightningModule):
    """What Lightning must know of a method.

    The loss takes the first `given` tensors of a batch: images, masks, labels and perhaps groups. Validation images
    have that many `groups`, 0 for none.
    """

    def __init__(
        self,
        module: nn.Module,
        classify: methods.Classify,
        settings: Training,
        given: int,
        groups: int,
        *,
        seed: int,
        name: str,
        identity: str,
    ) -> None:
        super().__init__()
        self.module, self.classify, self.settings = module, classify, settings
        self.given, self.groups = given, groups
        self.seed, self.name, self.identity = seed, name, identity
        self.augment = None if settings.augmentation is None else Augment(settings.augmentation)
        self.progress = State([])
        self._train, self._val = Means(), Means()
        self._clock = self._epoch_start = time.perf_counter()

    def configure_optimizers(self) -> Any:
        settings = self.settings
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        kind, own = torch.optim.AdamW, {}
        if settings.optimizer == "sgd":
            kind, own = torch.optim.SGD, {"momentum": settings.momentum}
        optimizer = kind(parameters, settings.learning_rate, weight_decay=settings.weight_decay, fused=True, **own)
        steps = self.trainer.estimated_stepping_batches
        if settings.schedule == "constant":
            return optimizer
        if settings.schedule == "cosine":
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        else:
            # One step more than there are batches: Lightning asks for the rate after the last one, too.
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps + 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.gradient_clip or float("inf"))
        self._check(norm, "gradient", self.trainer.fit_loop.batch_idx)

    def on_train_epoch_start(self) -> None:
        lightning.seed_everything(_epoch_seed(self.seed, self.current_epoch), verbose=False)
        self._train, self._val = Means(), Means()
        self._epoch_start = self._now()

    def training_step(self, batch: Split, batch_idx: int) -> Tensor:
        if self.augment is not None:
            batch = [*self.augment(*batch[:2]), *batch[2:]]
        losses = self.module.training_loss(*batch[: self.given])
        self._check(losses.total, "loss", batch_idx)
        self._train.add(_with_parts(losses), len(batch[0]))
        return losses.total

    def on_validation_epoch_start(self) -> None:
        self.progress.train_seconds += self._now() - self._epoch_start
        self._groups = WorstGroup(self.groups, self.device)
        # The same random choices for every epoch, so that their losses can be compared.
        lightning.seed_everything(self.seed, verbose=False)

    def validation_step(self, batch: Split, batch_idx: int) -> None:
        images, masks, labels, *groups = batch
        with torch.enable_grad():
            losses = self.module.training_loss(*batch[: self.given])
        self._check(losses.total, "validation loss", batch_idx)
        correct = self.classify(self.module, images, masks).argmax(1) == labels
        self._val.add({**_with_parts(losses), "accuracy": correct.float().mean()}, len(images))
        if groups:
            self._groups.add(correct, *groups)

    def on_validation_epoch_end(self) -> None:
        row = {"epoch": self.current_epoch + 1, **self._train.values("train_"), **self._val.values("val_")}
        if self.groups:
            row[WORST_GROUP] = self._groups.error()
        self.progress.history.append(row)
        self.log_dict({key: row[key] for key in _SHOWN}, prog_bar=True)
        monitored = self.settings.monitored
        if monitored is not None and monitored not in row:
            raise BenchError(f"{self.name}: the loss has no part 'classification'; set training.epoch to total or last")
        if monitored not in (None, *_SHOWN):
            self.log(monitored, row[monitored])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        now = self._now()
        self.progress.seconds += now - self._clock
        self._clock = now
        checkpoint |= {"progress": vars(self.progress), "identity": self.identity}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.progress = State(**checkpoint["progress"])

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _check(self, value: Tensor, what: str, batch: int) -> None:
        if not bool(torch.isfinite(value)):
            place = f"epoch {self.current_epoch + 1}, batch {batch + 1}"
            raise BenchError(
                f"{self.name}: the {what} is {value.item()} at {place}; "
                "lower training.learning_rate or training.gradient_clip"
            )


class ProgressBar(TQDMProgressBar):
    """One bar for each epoch, without another one for validation."""

    def init_validation_tqdm(self) -> Any:
        bar = super().init_validation_tqdm()
        bar.disable = True
        return bar


class ProgressLines(lightning.Callback):
    """One line in the log for each epoch, where there is no terminal for a bar; of a resumed training, too."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Snakemake removes the log of what was interrupted.
        for row in pl_module.progress.history:
            self._log(row, trainer, pl_module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._log(pl_module.progress.history[-1], trainer, pl_module)

    def _log(self, row: dict[str, float], trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        figures = ", ".join(f"{key} {row[key]:.4g}" for key in _SHOWN)
        log.info("%s: epoch %d of %d: %s", pl_module.name, row["epoch"], trainer.max_epochs, figures)


def _with_parts(losses: Any) -> dict[str, Tensor]:
    return {"loss": losses.total, **losses.parts}


def _epoch_seed(seed: int, epoch: int) -> int:
    return seed * 100_003 + epoch + 1


def _loader(split: Split, batches: Any) -> DataLoader:
    # A generator of its own: the loader draws a number that must not come from the method's stream.
    return DataLoader(TensorDataset(*split), batch_size=None, sampler=batches, generator=torch.Generator())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning from telling what it found and what it would like to sell."""
    chatter = logging.getLogger("lightning.pytorch")
    level = chatter.level
    chatter.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            yield
    finally:
        chatter.setLevel(level)
