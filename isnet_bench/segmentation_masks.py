"""Lung masks after the network: tidying, comparing with given ones, and telling which cannot be lungs."""

from __future__ import annotations

import numpy as np
import segmentation_models_pytorch as smp
import torch
from scipy import ndimage

__all__ = ["AREAS", "LEAST_SIDE", "fault", "overlap", "tidy"]

AREAS = (0.05, 0.7)
LEAST_SIDE = 0.2
_LUNGS = 2


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
    if area < AREAS[0]:
        return f"area below {AREAS[0]:.0%}"
    if area > AREAS[1]:
        return f"area above {AREAS[1]:.0%}"
    left = mask[:, : mask.shape[1] // 2].sum() / mask.sum()
    return "one lung only" if min(left, 1 - left) < LEAST_SIDE else ""
