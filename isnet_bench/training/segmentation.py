"""Lung segmentation: a U-Net learns from images with masks, and gives a mask to each X-ray that has none."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

import isnet
from isnet_bench.config import Config, Segment, Training
from isnet_bench.config.segment import Augmentation
from isnet_bench.data.base import Split
from isnet_bench.data.images.reading import read as read_image
from isnet_bench.io import torchvision_shim
from isnet_bench.io.errors import BenchError
from isnet_bench.io.files import locked, replacing, write_json, write_text
from isnet_bench.layout import METRICS
from isnet_bench.training import runs, segmentation_data
from isnet_bench.training import train as training
from isnet_bench.training.segmentation_data import Sources

torchvision_shim.ensure()

import lightning  # noqa: E402
import segmentation_models_pytorch as smp  # noqa: E402
from torchvision import tv_tensors  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

log = logging.getLogger(__name__)

_AREAS = (0.05, 0.7)
_LEAST_SIDE = 0.2
_LUNGS = 2
_CLASSES = 2
_BATCH = 32
Masks = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Segmenter(nn.Module):
    """A U-Net as `isnet_bench.training.fit` trains it: it classifies each pixel as background, 0, or lung, 1.

    The encoder is named as in segmentation-models-pytorch (BenchError: unknown); images are augmented in training.
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

    @torch.no_grad()
    def masks(self, images: Sequence[np.ndarray], size: int) -> list[np.ndarray]:
        """Return masks, bool and as large as their images, of images uint8 (H, W), seen as squares of a size."""
        batch = torch.cat([segmentation_data.resize(image, size) for image in images])
        logits = self.network(batch.to(next(self.parameters()).device)).cpu()
        margins = (logits[:, 1] - logits[:, 0])[:, None]
        sized = (
            F.interpolate(margin[None], size=image.shape, mode="bilinear")
            for margin, image in zip(margins, images, strict=True)
        )
        return [(margin[0, 0] > 0).numpy() for margin in sized]

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


def segment(config: Config, out: Path) -> None:
    """Train the U-Net, test it, and predict the masks that are missing.

    Written are ``weights.safetensors`` (of the plain network), ``history.csv``, ``run.json``, ``masks/`` with one PNG
    (0 or 255, of the image's own size) for each image of the data set without a mask, ``masks.csv`` with the origin of
    every image's mask, ``report.md`` and, last, ``metrics.json``. Masks that can hardly be right are written like the
    others, but are listed in these three files, and the log warns of them. An interrupted training is resumed. Raises
    BenchError for all that `segmentation_data` checks, and if a loss is not finite.
    """
    if config.segment is None:
        raise BenchError("the configuration has no key segment, so there is nothing to segment")
    sources = segmentation_data.find(config.segment)
    with locked(Path(out)):
        _segment(config, config.segment, sources, Path(out))


def _segment(config: Config, settings: Segment, sources: Sources, out: Path) -> None:
    device = runs.device_of(config)
    # It is written last: where it is, all else is.
    (out / METRICS).unlink(missing_ok=True)
    lightning.seed_everything(settings.seed, verbose=False)
    # This layout is faster on processors and GPUs alike.
    module = Segmenter(settings.encoder, settings.augmentation).to(memory_format=torch.channels_last)
    _fit(config, module, settings, sources, out, device)
    masks = partial(module.to(device).eval().masks, size=settings.image_size)
    scores = _validate(masks, sources)
    log.info("segment: on %d validation images Dice %.4f, IoU %.4f", len(scores), *scores[["dice", "iou"]].mean())
    table = _predict(masks, sources, out / "masks")
    _report(settings, scores, table, out)
    shutil.rmtree(out / "checkpoints")


def _fit(
    config: Config, module: Segmenter, settings: Segment, sources: Sources, out: Path, device: torch.device
) -> None:
    """Train the module, and write all but its masks."""
    parts = {"train": sources.train, "val": sources.val}
    read = partial(segmentation_data.split, sources.folder, size=settings.image_size)
    splits = {part: read(pairs) for part, pairs in parts.items()}
    record = {
        "seed": settings.seed,
        "config": json.loads(config.part("segment")),
        "segment": settings.model_dump(),
        "data": {part: {"images": len(pairs), "sha256": _digest(splits[part])} for part, pairs in parts.items()},
    }
    # Images are changed by the segmenter itself, which has other ways to.
    recipe = Training(**settings.model_dump(include=set(Training.model_fields) - {"augmentation"}))
    training.learn(module, attrgetter("network"), splits.values(), recipe, record, "segment", out, device)


def _digest(split: Split) -> str:
    return hashlib.sha256(split.images.numpy().tobytes() + split.masks.numpy().tobytes()).hexdigest()


def _validate(masks: Masks, sources: Sources) -> pd.DataFrame:
    """Return Dice and IoU of each validation image at its own size, of tidied masks and of raw ones."""
    rows = []
    for pair in sources.val:
        image, given = segmentation_data.read_pair(sources.folder, pair)
        (raw,) = masks([image])
        row = overlap(tidy(raw), given)
        untidied = {f"untidied_{key}": value for key, value in overlap(raw, given).items()}
        rows.append({"image": pair.image, **row, **untidied})
    return pd.DataFrame(rows)


def _predict(masks: Masks, sources: Sources, folder: Path) -> pd.DataFrame:
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
        for row, raw in zip(rows, masks(read), strict=True):
            mask = tidy(raw)
            table.loc[row, ["area", "fault"]] = mask.mean(), fault(mask)
            with replacing((unfinished / table["image"][row]).with_suffix(".png")) as temporary:
                Image.fromarray(mask.astype(np.uint8) * 255).save(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return table


def _report(settings: Segment, scores: pd.DataFrame, table: pd.DataFrame, out: Path) -> None:
    """Write the origin of each mask, what the scores are, and which masks can hardly be right."""
    faulty, predicted = table[table["fault"] != ""], table["mask_origin"] == "predicted"
    if len(faulty):
        told = "segment: %d of %d predicted masks can hardly be right; %s lists them"
        log.warning(told, len(faulty), predicted.sum(), out / "report.md")
    with replacing(out / "masks.csv") as temporary:
        table.drop(columns="mask").to_csv(temporary, index=False, float_format="%.4f")
    means, lowest = scores.drop(columns="image").mean(), scores.loc[scores["dice"].idxmin()]
    rows = [
        ["masks as written", means["dice"], means["iou"]],
        ["as the network gives them", means["untidied_dice"], means["untidied_iou"]],
        [f"lowest: {lowest['image']}", lowest["dice"], lowest["iou"]],
    ]
    measured = pd.DataFrame(rows, columns=[f"{len(scores)} validation images", "Dice", "IoU"])
    faults = table["fault"].where(table["fault"] != "", "plausible").where(predicted, "given").rename(None)
    listed = [f"- {row.image}: {row.fault} (area {row.area:.1%})" for row in faulty.itertuples()]
    paragraphs = [
        "# Lung masks",
        f"The network learned from the part train of {settings.masks}, and was tested on the part val, which also chose"
        " the best epoch.",
        measured.to_markdown(index=False, floatfmt=".4f"),
        f"Masks of {settings.manifest}: those that are given, and how many of the predicted ones are plausible.",
        pd.crosstab(table["source"], faults, margins=True, margins_name="all").to_markdown(),
        "Predicted masks that can hardly be those of two lungs; see for yourself before you use them:",
        "\n".join(listed) or "none",
    ]
    write_text(out / "report.md", "\n\n".join(paragraphs) + "\n")
    metrics = {
        **{key: getattr(settings, key) for key in ("masks", "manifest", "seed")},
        **{key: float(means[key]) for key in ("dice", "iou")},
        "untidied": {key: float(means[f"untidied_{key}"]) for key in ("dice", "iou")},
        "images": len(scores),
        "per_image": scores.to_dict("records"),
        "mask_origin": table["mask_origin"].value_counts().to_dict(),
    }
    write_json(out / METRICS, metrics)


def tidy(mask: np.ndarray) -> np.ndarray:
    """Keep the two largest connected parts of a mask, bool (H, W), and fill their holes."""
    labels, parts = ndimage.label(mask)
    if parts > _LUNGS:
        sizes = np.bincount(labels.ravel())[1:]
        mask = np.isin(labels, 1 + np.argsort(sizes)[-_LUNGS:])
    return ndimage.binary_fill_holes(mask)


def overlap(predicted: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """Return Dice and IoU of two masks, bool (H, W); both are 1 where both masks are empty."""
    masks = (torch.from_numpy(mask)[None, None].long() for mask in (predicted, given))
    counts = smp.metrics.get_stats(*masks, mode="binary")
    return {"dice": smp.metrics.f1_score(*counts).item(), "iou": smp.metrics.iou_score(*counts).item()}


def fault(mask: np.ndarray) -> str:
    """Tell why a mask, bool (H, W), can hardly be that of two lungs in a frontal X-ray; empty if it can.

    Its area is less than 5 % or more than 70 % of the image, or less than a fifth of it lies in one half of the image.
    Lungs outlined by radiologists cover 20 to 60 % of it, and at least two fifths of them lie in either half.
    """
    area = mask.mean()
    if area < _AREAS[0]:
        return f"area below {_AREAS[0]:.0%}"
    if area > _AREAS[1]:
        return f"area above {_AREAS[1]:.0%}"
    left = mask[:, : mask.shape[1] // 2].sum() / mask.sum()
    return "one lung only" if min(left, 1 - left) < _LEAST_SIDE else ""
