"""Global weighted rank pooling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["gwrp"]


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
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"decay of GWRP must lie in [0, 1], got {decay}")
    if decay == 1.0:
        return values.mean(-1)
    if decay == 0.0:
        return values.max(-1).values
    visible = math.ceil(math.log(torch.finfo(values.dtype).eps / 2) / math.log(decay))
    if visible < values.shape[-1]:
        ranked = values.topk(visible, dim=-1).values
    else:
        ranked = values.sort(dim=-1, descending=True).values
    weights = decay ** torch.arange(ranked.shape[-1], dtype=values.dtype, device=values.device)
    return ranked @ (weights / weights.sum())
