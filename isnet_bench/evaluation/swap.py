"""Whether predictions follow the background, found without test sets whose background differs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.backgrounds import filled, on
from baselines.base import with_mask
from isnet_bench.data import Split

PAIRS = 2000
"""Foregrounds on other backgrounds that are classified, about, at most."""


@torch.inference_mode()
def swap_changes(
    classify: Callable[[Tensor, Tensor], Tensor], val: Split, train: Split, batch_size: int, device: torch.device
) -> float | None:
    """Return the share of predictions for validation images that change on the backgrounds of training images.

    Only images with a mask count; None: there are none. Each foreground is put on all of the backgrounds, or on as many
    as `PAIRS` allow; the holes in these are filled as `baselines.backgrounds.filled` does. ``classify(images, masks)``
    gives logits (N, classes).
    """
    val, train = (Split(*(tensor[with_mask(split.masks)] for tensor in split[:3])) for split in (val, train))
    if not len(val.labels) or not len(train.labels):
        return None
    each = min(len(train.labels), max(1, PAIRS // len(val.labels)))
    changed = 0
    for pairs in torch.arange(len(val.labels) * each).split(batch_size):
        images, masks = (tensor[pairs // each].to(device) for tensor in val[:2])
        backgrounds = filled(*(tensor[pairs % len(train.labels)].to(device) for tensor in train[:2]))
        before, after = (classify(shown, masks).argmax(1) for shown in (images, on(images, masks, backgrounds)))
        changed += int((before != after).sum())
    return changed / (len(val.labels) * each)
