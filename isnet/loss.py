"""The heatmap loss: relevance on the background must vanish, on the foreground stay in its natural range."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from isnet.affine_layers import wide

_TINY = 1e-10
_ACTIVATION_CEILING = 1 - 1e-7


class Losses(NamedTuple):
    """What a method's ``training_loss`` returns: the scalar to minimise and its named parts, unweighted."""

    total: Tensor
    parts: dict[str, Tensor]


def gwrp(values: Tensor, decay: float) -> Tensor:
    r"""Global weighted rank pooling over the last dimension.

    .. math:: \mathrm{GWRP}_d(v) = \sum_i d^i v_{(i)} \Big/ \sum_i d^i, \qquad v_{(0)} \ge v_{(1)} \ge \dots

    ``decay=1`` is the mean, ``decay=0`` the maximum. Ranks whose weight lies below the floating-point resolution of
    the largest one cannot change the result and are not sorted.

    Parameters
    ----------
    values : Tensor
        Shape ``(..., n)``, n >= 1.
    decay : float
        In [0, 1].

    Returns
    -------
    Tensor
        Shape ``(...)``.

    Raises
    ------
    ValueError
        If `decay` lies outside [0, 1].

    Notes
    -----
    Kolesnikov and Lampert, "Seed, expand and constrain", ECCV 2016, used by the ISNet's heatmap loss (Nature
    Communications 15, 291, 2024, Methods).
    """
    return _pooled_each(values, (decay,))[0]


def _pooled_each(values: Tensor, decays: Sequence[float]) -> list[Tensor]:
    """Pool by several decays with one sort."""
    for decay in decays:
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay of GWRP must lie in [0, 1], got {decay}")
    precise = wide(values)
    smallest = math.log(torch.finfo(precise.dtype).eps / 2)
    visible = {decay: math.ceil(smallest / math.log(decay)) for decay in decays if 0 < decay < 1}
    ranked = precise
    if visible and max(visible.values()) < values.shape[-1]:
        ranked = precise.topk(max(visible.values()), dim=-1).values
    elif visible:
        ranked = precise.sort(dim=-1, descending=True).values

    def pooled(decay: float) -> Tensor:
        if decay == 1:
            return values.mean(-1)
        if decay == 0:
            return values.max(-1).values
        seen = ranked[..., : visible[decay]]
        weights = decay ** torch.arange(seen.shape[-1], dtype=seen.dtype, device=seen.device)
        with torch.autocast(values.device.type, enabled=False):
            return (seen @ (weights / weights.sum())).to(values.dtype)

    return [pooled(decay) for decay in decays]


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


class HeatmapLoss(nn.Module):
    r"""Penalise relevance outside the foreground mask and keep the relevance inside it in a natural range.

    Per image, ``w1 * background + w2 * foreground``:

    * *background*: heatmaps are normalised by their mean absolute relevance in the foreground, each channel's
      background is pooled with :func:`isnet.gwrp` to g, squashed to ``g / (g + saturation)``, and its cross-entropy
      with 0 is averaged over channels and maps, and over the decays if there are several;
    * *foreground*: F, the absolute relevance in the foreground, is pulled into ``[c1, c2]``; without it a network could
      satisfy the background loss by making the whole heatmap vanish.

    Parameters
    ----------
    c1, c2 : float or sequence of float
        Natural range of F, ``0 < c1 < c2``; see :func:`isnet.relevance_range`. One value for all heatmaps, or one per
        heatmap (Dual ISNet).
    w1, w2 : float
        Weights of the background and the foreground term. With ``w2=0`` the loss is the unweighted background term,
        as in the authors' implementation.
    decay : float or sequence of float
        GWRP decay d over background pixels, in [0, 1]: near 0 punishes the single strongest pixel, near 1 the mean.
        Several punish relevance on few pixels and on many at once; that is this project's own.
    saturation : float
        E > 0 of ``g / (g + E)``.
    foreground : {"hybrid", "l2", "l1"}
        Growth of the foreground term above c2. "hybrid" is quadratic up to ``c1 + c2`` and linear beyond.
    normalization : {"abs_roi_mean", "roi_mean", "none"}
        Divide heatmaps by their mean absolute relevance in the foreground, by their mean relevance there, or only
        multiply them by their number of entries C*H*W ("none", as the authors' implementation does).
    reduction : {"mean", "sum", "none"}
        Over the images of the batch.
    channel_decay : float
        GWRP decay over channels; 1 (default) is the mean.

    Raises
    ------
    ValueError
        If an argument lies outside its range.

    Notes
    -----
    Nature Communications 15, 291, 2024, Methods; "hybrid" foreground loss: arXiv 2401.08409, Section III. NaNs in a
    heatmap are replaced by the mean of the finite foreground relevance and infinities by the finite extremes, all
    without gradient.
    """

    def __init__(
        self,
        c1: float | Sequence[float],
        c2: float | Sequence[float],
        w1: float = 1.0,
        w2: float = 1.0,
        decay: float | Sequence[float] = 0.9,
        saturation: float = 1.0,
        foreground: Literal["hybrid", "l2", "l1"] = "hybrid",
        normalization: Literal["abs_roi_mean", "roi_mean", "none"] = "abs_roi_mean",
        reduction: Literal["mean", "sum", "none"] = "mean",
        channel_decay: float = 1.0,
    ) -> None:
        super().__init__()
        lower, upper = torch.as_tensor(c1, dtype=torch.float64), torch.as_tensor(c2, dtype=torch.float64)
        if lower.shape != upper.shape or lower.ndim > 1:
            raise ValueError(f"c1 and c2 must both be numbers or sequences of the same length, got {c1} and {c2}")
        if not bool(((lower > 0) & (lower < upper) & upper.isfinite()).all()):
            raise ValueError(f"the foreground range needs 0 < c1 < c2, got c1={c1}, c2={c2}")
        for name, weight in (("w1", w1), ("w2", w2)):
            if not weight >= 0:
                raise ValueError(f"{name} must be at least 0, got {weight}")
        self.decays = (decay,) if isinstance(decay, int | float) else tuple(decay)
        if not self.decays:
            raise ValueError("decay needs a number in [0, 1], or several, got none")
        for name, values in (("decay", self.decays), ("channel_decay", (channel_decay,))):
            if not all(0 <= value <= 1 for value in values):
                raise ValueError(f"{name} must lie in [0, 1], got {', '.join(map(str, values))}")
        if not saturation > 0:
            raise ValueError(f"saturation must be positive, got {saturation}")
        _one_of("foreground", foreground, ("hybrid", "l2", "l1"))
        _one_of("normalization", normalization, ("abs_roi_mean", "roi_mean", "none"))
        _one_of("reduction", reduction, ("mean", "sum", "none"))
        self.c1: Tensor
        self.c2: Tensor
        # Not persistent: an ISNet's weights are those of its backbone alone.
        self.register_buffer("c1", lower, persistent=False)
        self.register_buffer("c2", upper, persistent=False)
        self.w1, self.w2, self.saturation = w1, w2, saturation
        self.foreground, self.normalization, self.reduction = foreground, normalization, reduction
        self.channel_decay = channel_decay

    def forward(self, relevance: Tensor, masks: Tensor, maps: slice = slice(None)) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        relevance : Tensor
            Heatmaps, shape ``(N, K, C, H, W)``, or ``(N, K, C, D, H, W)`` of volumes.
        masks : Tensor
            Foreground masks, 1 = foreground, 0 = background, shape ``(N, 1 or C, h, w)``; another resolution is pooled
            to ``(H, W)``, a pixel being foreground if any part of it is. NaN everywhere: this image has no mask, and
            does not count.
        maps : slice
            Which of the heatmaps that `c1` and `c2` count these are, if they are not all.

        Returns
        -------
        Tensor
            Scalar, or shape ``(N,)`` with ``reduction="none"``; 0 where there is no mask.

        Raises
        ------
        ValueError
            If shapes do not fit, or a mask holds other values.
        """
        relevance = wide(relevance)
        masks, present = _check_masks(masks, relevance)
        with torch.autocast(relevance.device.type, enabled=False):
            if present is None:
                losses = self._of_images(relevance, masks, maps)
            elif bool(present.any()):
                losses = self._of_images(relevance[present], masks[present], maps)
            else:
                losses = relevance.new_zeros(1)
        if self.reduction == "none" and present is not None:
            return relevance.new_zeros(len(relevance)).masked_scatter(present, losses)
        return losses.mean() if self.reduction == "mean" else losses.sum() if self.reduction == "sum" else losses

    def _of_images(self, relevance: Tensor, masks: Tensor, maps: slice) -> Tensor:
        mask = _fit_mask(masks, relevance)
        relevance = _finite(relevance, mask)
        magnitude = relevance.abs()
        inside = magnitude * mask
        total = _sum(inside)
        losses = self._background(relevance, magnitude - inside, total, mask)
        return self.w1 * losses + self.w2 * self._foreground(total, maps) if self.w2 != 0 else losses

    def _background(self, relevance: Tensor, outside: Tensor, total: Tensor, mask: Tensor) -> Tensor:
        pooled = torch.stack(_pooled_each(outside.flatten(3), self.decays))
        pooled = self._normalise(pooled, relevance, total, mask)
        # -log(1 - g / (g + E)) without the cancellation of 1 - g / (g + E), capped where the authors clamp g / (g + E).
        ceiling = -math.log(1 - torch.tensor(_ACTIVATION_CEILING, dtype=relevance.dtype).item())
        per_channel = torch.log1p(pooled / self.saturation).clamp(max=ceiling)
        return gwrp(per_channel, self.channel_decay).mean(2).mean(0)

    def _normalise(self, pooled: Tensor, relevance: Tensor, total: Tensor, mask: Tensor) -> Tensor:
        """Normalise pooled heatmaps ``(..., N, K, C)``, which is pooling normalised ones: all have positive factors."""
        if self.normalization == "none":
            return pooled * relevance[0, 0].numel()
        inside = total if self.normalization == "abs_roi_mean" else _sum(relevance * mask)
        mean = inside / (_sum(mask) + _TINY) + _TINY
        return pooled / mean.abs().unsqueeze(-1)

    def _foreground(self, total: Tensor, maps: slice) -> Tensor:
        c1, c2 = (bound.to(total.dtype)[maps if bound.ndim else ...] for bound in (self.c1, self.c2))
        if c1.ndim and c1.shape[0] != total.shape[1]:
            raise ValueError(f"the loss has {c1.shape[0]} foreground ranges, but there are {total.shape[1]} heatmaps")
        low = ((total / c1).clamp(max=1) - 1).square()
        excess = (total - c2).clamp(min=0)
        high = excess if self.foreground == "l1" else (excess / c1).square()
        if self.foreground == "hybrid":
            high = torch.where(total <= c1 + c2, high, total - (c1 + c2) + 1)
        return (low + high).mean(1)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _sum(values: Tensor) -> Tensor:
    """Sum over channels and pixels of heatmaps."""
    return values.sum(tuple(range(2, values.ndim)))


def _check_masks(masks: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return masks of the heatmaps' type, and which images have one; None if all."""
    if relevance.ndim not in (5, 6) or masks.ndim != relevance.ndim - 1 or masks.shape[0] != relevance.shape[0]:
        raise ValueError(
            "expected relevance (N, K, C, H, W) and masks (N, 1 or C, h, w), got "
            f"{tuple(relevance.shape)} and {tuple(masks.shape)}"
        )
    if masks.shape[1] not in (1, relevance.shape[2]):
        raise ValueError(
            f"masks have {masks.shape[1]} channels, but one channel is expected (or {relevance.shape[2]}, one per "
            "channel of the heatmaps): of a one-hot mask give the channel of the foreground, masks[:, k : k + 1]"
        )
    masks = masks.to(relevance.dtype)
    lowest, highest = (end.item() for end in masks.aminmax())
    if 0 <= lowest <= highest <= 1:
        return masks, None
    present = ~masks.isnan().flatten(1).all(1)
    values = masks[present].unique()
    if bool(((values >= 0) & (values <= 1)).all()):
        return masks, present
    shown = ", ".join([f"{value:g}" for value in values[:4].tolist()] + ["..."] * (len(values) > 4))
    raise ValueError(
        f"masks must be 1 on the foreground and 0 on the background, but hold {shown}: use (masks > threshold).float();"
        " the mask of an image without one is NaN everywhere"
    )


def _fit_mask(mask: Tensor, relevance: Tensor) -> Tensor:
    """Return masks as ``(N, 1, C, H, W)``."""
    size = relevance.shape[3:]
    if mask.shape[2:] != size:
        pool: Callable[..., Tensor] = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool3d
        mask = (pool(mask, size) > 0).to(relevance.dtype)
    return mask.expand(-1, relevance.shape[2], *size)[:, None]


def _finite(relevance: Tensor, mask: Tensor) -> Tensor:
    values = relevance.detach()
    # A finite sum has finite terms, which is all that is asked of almost every batch.
    if bool(values.sum().isfinite()):
        return relevance
    finite = values.isfinite()
    foreground = finite & (mask > 0)
    number = foreground.sum().clamp(min=1)
    mean = values.where(foreground, 0).sum() / number
    filled = torch.where(
        values.isnan(),
        mean,
        values.clamp(values[finite].min(), values[finite].max()) if bool(finite.any()) else torch.zeros_like(values),
    )
    return torch.where(finite, relevance, filled)
