"""Whether predictions follow the background, found without test sets whose background differs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from baselines.backgrounds import filled, on
from isnet_bench.data import Split
from isnet_bench.data.stored import masks_there

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
    shown, lent = (masks_there(split.masks).nonzero().flatten() for split in (val, train))
    if not len(shown) or not len(lent):
        return None
    each = min(len(lent), max(1, PAIRS // len(shown)))
    changed = 0
    for pairs in torch.arange(len(shown) * each).split(batch_size):
        images, masks = (rows[shown[pairs // each]].to(device) for rows in (val.images, val.masks))
        around = lent[pairs % len(lent)]
        backgrounds = filled(*(rows[around].to(device) for rows in (train.images, train.masks)))
        before, after = (classify(seen, masks).argmax(1) for seen in (images, on(images, masks, backgrounds)))
        changed += int((before != after).sum())
    return changed / (len(shown) * each)
