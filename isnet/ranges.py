"""The C1/C2 heuristic: in which range an ordinary classifier's heatmaps naturally lie."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

__all__ = ["RelevanceRange", "relevance_range"]


class RelevanceRange(NamedTuple):
    """Natural range [c1, c2] of the absolute relevance of a heatmap, the foreground bounds of the heatmap loss."""

    c1: float
    c2: float


def relevance_range(totals: Tensor) -> RelevanceRange:
    """Derive the foreground range of :class:`isnet.HeatmapLoss` from an ordinary classifier's heatmaps.

    ``c1 = max(mean / 5, mean - 3 std)`` and ``c2 = min(25 c1, mean + 3 std)`` with the sample standard deviation over
    images. Heatmaps whose totals are all equal have no spread: c1 and c2 would be their mean, a range without width.

    Parameters
    ----------
    totals : Tensor
        Total absolute relevance sum|R| of each heatmap, over the whole image, shape ``(images,)`` or ``(images, K)``.
        The K maps of an image are averaged first. The z-plus and the epsilon maps of a Dual ISNet have ranges of
        their own: call this once for each.

    Raises
    ------
    ValueError
        If there are fewer than two images, or the totals are not finite, not >= 0, or all the same.

    Notes
    -----
    arXiv 2401.08409, Section III (heuristic for C1 and C2); computed over the training images with a plain classifier.
    """
    if totals.ndim not in (1, 2) or totals.shape[0] < 2:
        raise ValueError(
            f"totals must have shape (images,) or (images, K) with 2 images or more, got {tuple(totals.shape)}"
        )
    if not bool((totals.isfinite() & (totals >= 0)).all()):
        raise ValueError("totals of absolute relevance must be finite and >= 0")
    per_image = totals.double() if totals.ndim == 1 else totals.double().mean(1)
    mean, std = per_image.mean().item(), per_image.std(correction=1).item()
    if mean == 0:
        raise ValueError("all heatmaps are zero, so they have no natural range")
    # Compared rather than read off the deviation, which rounding keeps from 0.
    if bool((per_image == per_image[0]).all()):
        raise ValueError(f"all heatmaps have the same total relevance, {mean:g}, so they have no natural range")
    c1 = max(mean / 5, mean - 3 * std)
    return RelevanceRange(c1, min(25 * c1, mean + 3 * std))
