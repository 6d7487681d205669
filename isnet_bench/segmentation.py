"""Lung segmentation: a U-Net learns from images with masks, and gives a mask to each X-ray that has none."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pandas as pd
import segmentation_models_pytorch as smp
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2

import isnet
from isnet_bench import fields, fitting, runs, segmentation_data, segmentation_masks, training
from isnet_bench.data.base import Split
from isnet_bench.data.images import read as read_image
from isnet_bench.errors import BenchError
from isnet_bench.files import replacing, write_json
from isnet_bench.segmentation_data import Augmentation, Settings, Sources

__all__ = ["Network", "Segmenter", "segment"]

log = logging.getLogger(__name__)

_METRICS = "metrics.json"
_CLASSES = 2
_BATCH = 32


class Segmenter(nn.Module):
    """A U-Net as `isnet_bench.fitting` trains it: it classifies each pixel as background, 0, or lung, 1.

    Parameters
    ----------
    encoder : str
        As segmentation-models-pytorch names it.
    augmentation : Augmentation
        Of the images in training mode.

    Raises
    ------
    BenchError
        If the encoder is unknown.
    """

    def __init__(self, encoder: str, augmentation: Augmentation) -> None:
        super().__init__()
        try:
            self.network = smp.Unet(encoder, encoder_weights=None, in_channels=1, classes=_CLASSES)
        except (KeyError, RuntimeError, ValueError) as error:
            known = ", ".join(name for name in smp.encoders.get_encoder_names() if name.startswith("resnet"))
            raise BenchError(
                f"segment.encoder: a U-Net cannot have the encoder {encoder!r}; common ones: {known}"
            ) from error
        self.augmentation = augmentation
        self.affine = v2.RandomAffine(
            augmentation.degrees,
            (augmentation.translate, augmentation.translate),
            augmentation.scale,
            interpolation=v2.InterpolationMode.BILINEAR,
        )
        self.dice = smp.losses.DiceLoss("multiclass", classes=[1])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 2, H, W) of images (N, 1, H, W) in [0, 1]."""
        return self.network(images)

    def training_loss(self, images: Tensor, masks: Tensor, labels: Tensor) -> isnet.Losses:
        """Return the pixels' mean cross-entropy plus the lungs' Dice loss; masks (N, 1, H, W) say what labels say."""
        if self.training:
            images, masks = self._augment(images, masks)
        logits, labels = self.network(images), masks[:, 0].long()
        parts = {"cross_entropy": F.cross_entropy(logits, labels), "dice": self.dice(logits, labels)}
        return isnet.Losses(torch.stack(list(parts.values())).sum(), parts)

    def _augment(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [self._vary(image, mask) for image, mask in zip(images, masks, strict=True)]
        return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])

    def _vary(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        exponent = self.augmentation.gamma ** (2 * torch.rand(()).item() - 1)
        image, mask = self.affine(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return v2.functional.adjust_gamma(image.as_subclass(Tensor), exponent), mask.as_subclass(Tensor)


def segment(config: dict[str, Any], out: Path) -> None:
    """Train the U-Net, test it, and predict the masks that are missing.

    Written are ``weights.safetensors`` (of the plain network), ``history.csv``, ``run.json``, ``masks/`` with one PNG
    (0 or 255, of the image's own size) for each image of the data set without a mask, ``masks.csv`` with the origin of
    every image's mask, ``report.md`` and, last, ``metrics.json``. Masks that can hardly be right are written like the
    others, but are listed in these three files, and the log warns of them.

    Parameters
    ----------
    config : dict
        A checked configuration with the key ``segment``.
    out : Path
        Folder. An interrupted training there is resumed.

    Raises
    ------
    BenchError
        If the configuration has no such key, for all that `isnet_bench.segmentation_data` checks, and if a loss is not
        finite.
    """
    if "segment" not in config:
        raise BenchError("the configuration has no key segment, so there is nothing to segment")
    out, device = Path(out), runs.device_of(config)
    settings = fields.fill(Settings, config["segment"])
    sources = segmentation_data.find(settings)
    # It is written last: where it is, all else is.
    (out / _METRICS).unlink(missing_ok=True)
    lightning.seed_everything(settings.seed, verbose=False)
    # This layout is faster on processors and GPUs alike.
    module = Segmenter(settings.encoder, settings.augmentation).to(memory_format=torch.channels_last)
    _fit(config, module, settings, sources, out, device)
    network = Network(module.to(device).eval(), settings.image_size, device)
    scores = _validate(network, sources)
    log.info("segment: on %d validation images Dice %.4f, IoU %.4f", len(scores), *scores[["dice", "iou"]].mean())
    table = _predict(network, sources, out / "masks")
    _report(settings, scores, table, out)
    shutil.rmtree(out / "checkpoints")


class Network:
    """A trained `Segmenter` that takes grey images of any size.

    Parameters
    ----------
    module : Segmenter
        In evaluation mode, on the device.
    size : int
        Side of the square to which it was trained.
    device : torch.device
        Where it is.
    """

    def __init__(self, module: Segmenter, size: int, device: torch.device) -> None:
        self.module, self.size, self.device = module, size, device

    @torch.no_grad()
    def masks(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the masks, bool and as large as their images, of images uint8 (H, W)."""
        batch = torch.cat([segmentation_data.resize(image, self.size) for image in images]).to(self.device)
        logits = self.module(batch).cpu()
        margins = (logits[:, 1] - logits[:, 0])[:, None]
        sized = (
            F.interpolate(margin[None], size=image.shape, mode="bilinear")
            for margin, image in zip(margins, images, strict=True)
        )
        return [(margin[0, 0] > 0).numpy() for margin in sized]


def _fit(
    config: dict[str, Any], module: Segmenter, settings: Settings, sources: Sources, out: Path, device: torch.device
) -> None:
    """Train the module, and write all but its masks."""
    started = datetime.now(UTC)
    parts = {"train": sources.train, "val": sources.val}
    read = partial(segmentation_data.split, sources.folder, size=settings.image_size)
    splits = {part: read(pairs) for part, pairs in parts.items()}
    record = {
        "seed": settings.seed,
        "config": {key: config[key] for key in ("device", "segment")},
        "segment": dataclasses.asdict(settings),
        "data": {part: {"images": len(pairs), "sha256": _digest(splits[part])} for part, pairs in parts.items()},
    }
    state = fitting.fit(
        module,
        *splits.values(),
        runs.Settings(
            settings.epochs,
            settings.batch_size,
            settings.learning_rate,
            settings.weight_decay,
            settings.gradient_clip,
        ),
        seed=settings.seed,
        name="segment",
        folder=out / "checkpoints",
        identity=training.identity(record, device),
        device=device,
    )
    training.write(out, module.network, state, record | training.outcome(state, module.network, started, device))


def _digest(split: Split) -> str:
    digest = hashlib.sha256(split.images.numpy().tobytes())
    digest.update(split.masks.numpy().tobytes())
    return digest.hexdigest()


def _validate(network: Network, sources: Sources) -> pd.DataFrame:
    """Return Dice and IoU of each validation image at its own size, of tidied masks and of raw ones."""
    rows = []
    for pair in sources.val:
        image, given = segmentation_data.read_pair(sources.folder, pair)
        (raw,) = network.masks([image])
        row = segmentation_masks.overlap(segmentation_masks.tidy(raw), given)
        untidied = {f"untidied_{key}": value for key, value in segmentation_masks.overlap(raw, given).items()}
        rows.append({"image": pair.image, **row, **untidied})
    return pd.DataFrame(rows)


def _predict(network: Network, sources: Sources, folder: Path) -> pd.DataFrame:
    """Fill the folder with the masks that are missing; return the manifest with origin, area and fault of each mask."""
    table = sources.listed.assign(mask_origin="given", area=np.nan, fault="")
    missing = table.index[table["mask"] == ""]
    table.loc[missing, "mask_origin"] = "predicted"
    log.info("segment: %d of %d images need a mask", len(missing), len(table))
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for start in range(0, len(missing), _BATCH):
        rows = missing[start : start + _BATCH]
        read = [read_image(sources.folder / name) for name in table["image"][rows]]
        for row, raw in zip(rows, network.masks(read), strict=True):
            mask = segmentation_masks.tidy(raw)
            table.loc[row, ["area", "fault"]] = mask.mean(), segmentation_masks.fault(mask)
            _save(mask, (unfinished / table["image"][row]).with_suffix(".png"))
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return table


def _save(mask: np.ndarray, path: Path) -> None:
    with replacing(path) as temporary:
        Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)


def _report(settings: Settings, scores: pd.DataFrame, table: pd.DataFrame, out: Path) -> None:
    faulty = table[table["fault"] != ""]
    means = scores.drop(columns="image").mean()
    metrics = {
        "masks": settings.masks,
        "manifest": settings.manifest,
        "seed": settings.seed,
        **{key: float(means[key]) for key in ("dice", "iou")},
        "untidied": {key: float(means[f"untidied_{key}"]) for key in ("dice", "iou")},
        "images": len(scores),
        "per_image": scores.to_dict("records"),
        "mask_origin": dict(Counter(table["mask_origin"])),
        "faults": dict(Counter(faulty["fault"])),
        "implausible": faulty[["image", "source", "area", "fault"]].to_dict("records"),
    }
    if len(faulty):
        log.warning(
            "segment: %d of %d predicted masks can hardly be right; %s lists them",
            len(faulty),
            (table["mask_origin"] == "predicted").sum(),
            out / "report.md",
        )
    with replacing(out / "masks.csv") as temporary:
        table.drop(columns="mask").to_csv(temporary, index=False, float_format="%.4f")
    with replacing(out / "report.md") as temporary:
        temporary.write_text(_text(metrics, table), encoding="utf-8")
    write_json(out / _METRICS, metrics)


def _text(metrics: dict[str, Any], table: pd.DataFrame) -> str:
    rows = [["masks as written", metrics["dice"], metrics["iou"]]]
    rows.append(["as the network gives them", metrics["untidied"]["dice"], metrics["untidied"]["iou"]])
    lowest = min(metrics["per_image"], key=lambda row: row["dice"])
    rows.append([f"lowest: {lowest['image']}", lowest["dice"], lowest["iou"]])
    scores = pd.DataFrame(rows, columns=[f"{metrics['images']} validation images", "Dice", "IoU"])
    faults = table["fault"].where(table["fault"] != "", "plausible").where(table["mask_origin"] == "predicted", "given")
    counts = pd.crosstab(table["source"], faults.rename(None), margins=True, margins_name="all")
    listed = [f"- {row['image']}: {row['fault']} (area {row['area']:.1%})" for row in metrics["implausible"]]
    paragraphs = [
        "# Lung masks",
        f"The network learned from the part train of {metrics['masks']}, and was tested on the part val, which also"
        " chose the best epoch.",
        scores.to_markdown(index=False, floatfmt=".4f"),
        f"Masks of {metrics['manifest']}: those that are given, and how many of the predicted ones are plausible.",
        counts.to_markdown(),
        "Predicted masks that can hardly be those of two lungs; see for yourself before you use them:",
        "\n".join(listed) or "none",
    ]
    return "\n\n".join(paragraphs) + "\n"
