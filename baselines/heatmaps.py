"""What the methods with a heatmap loss share: its hyper-parameters, and how the loss is made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic.dataclasses import dataclass

import isnet

Share = Annotated[float, Field(ge=0, le=1)]
Ranges = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Hyperparameters:
    """`heatmap_weight` is P; the meaning of the others is that of :class:`isnet.HeatmapLoss`.

    With ``c1: auto`` (and then ``c2: auto``) the range of foreground relevance is measured with an ordinary
    classifier by the rule ``relevance_range``.
    """

    heatmap_weight: Share = 0.7
    c1: PositiveFloat | Literal["auto"] = "auto"
    c2: PositiveFloat | Literal["auto"] = "auto"
    w1: NonNegativeFloat = 1.0
    w2: NonNegativeFloat = 1.0
    decay: Share | Annotated[tuple[Share, ...], Field(min_length=1)] = 0.9
    saturation: PositiveFloat = 1.0
    foreground: Literal["hybrid", "l2", "l1"] = "hybrid"
    normalization: Literal["abs_roi_mean", "roi_mean", "none"] = "abs_roi_mean"

    def __post_init__(self) -> None:
        if (self.c1 == "auto") != (self.c2 == "auto"):
            raise ValueError("c1 and c2 must either both be auto or both be numbers")
        if self.c1 != "auto" and not self.c1 < self.c2:
            raise ValueError(f"the foreground range needs 0 < c1 < c2, got c1={self.c1}, c2={self.c2}")

    def loss(self, ranges: Ranges | None, place: str = isnet.INPUT) -> isnet.HeatmapLoss:
        """Make the heatmap loss at the input or at a layer, with the given or the measured range."""
        c1, c2 = self.c1, self.c2
        if c1 == "auto":
            if not ranges or place not in ranges:
                raise ValueError(
                    f"no relevance range at {place!r} was measured: do so with 'python -m isnet_bench range', or give "
                    "c1 and c2 as numbers"
                )
            pairs = [(found["c1"], found["c2"]) for found in ranges[place]]
            c1, c2 = pairs[0] if len(pairs) == 1 else zip(*pairs, strict=True)
        weights = (self.w1, self.w2, self.decay, self.saturation)
        return isnet.HeatmapLoss(c1, c2, *weights, self.foreground, self.normalization)
