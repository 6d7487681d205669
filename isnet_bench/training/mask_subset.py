"""Fewer training masks: how many must there be that a method learns from?"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from isnet_bench.config import MaskSubset
from isnet_bench.data import Split
from isnet_bench.data.stored import StoredMasks, masks_there
from isnet_bench.io.errors import BenchError


def keep_masks(train: Split, val: Split, subset: MaskSubset, seed: int) -> tuple[Split, Split]:
    """Return training and validation images of which only some keep their masks; those of the others are NaN.

    With the same seed, a larger number of training masks includes a smaller one. Validation keeps the same share, at
    least one mask where there is any, and no more masks than training. Raises BenchError if there are too few.
    """
    generator = torch.Generator().manual_seed(seed)
    order, val_order = (_order(split, subset.choose, generator) for split in (train, val))
    there, val_there = (int(masks_there(split.masks).sum()) for split in (train, val))
    number = subset.number if isinstance(subset.number, int) else max(1, round(subset.number * there))
    if number > len(order):
        which = " of the lowest label" if subset.choose == "one_class" else ""
        raise BenchError(
            f"data.masks asks for {number} masks, but {len(order)} training images{which} have one; lower it"
        )
    of_val = min(number, max(1, round(number / there * val_there)))
    return _only(train, order[:number]), _only(val, val_order[:of_val])


def _order(split: Split, choose: str, generator: Generator) -> Tensor:
    """Return the images with a mask that may keep it, in the order in which they do."""
    masked = masks_there(split.masks).nonzero().flatten()
    drawn = masked[torch.randperm(len(masked), generator=generator)]
    labels = split.labels[drawn]
    if choose == "one_class":
        return drawn[labels == labels.min()] if len(labels) else drawn
    if choose == "per_class":
        # How many of its own class come before each: the first of every class, then the second of every class, ...
        by_class, numbers = labels.argsort(stable=True), labels.bincount()
        before = torch.empty_like(by_class)
        before[by_class] = torch.arange(len(labels)) - (numbers.cumsum(0) - numbers)[labels[by_class]]
        return drawn[before.argsort(stable=True)]
    return drawn


def _only(split: Split, kept: Tensor) -> Split:
    if isinstance(split.masks, StoredMasks):
        return split._replace(masks=split.masks.only(kept))
    masks = torch.full(split.masks.shape, torch.nan)
    masks[kept] = split.masks[kept]
    return split._replace(masks=masks)
