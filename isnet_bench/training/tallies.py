"""What an epoch comes to, added up batch by batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F


class Means:
    """Means over images of named losses."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images = 0

    def add(self, values: Mapping[str, Tensor], images: int) -> None:
        """Add the means over so many images."""
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0) + value.detach().double() * images
        self._images += images

    def values(self, prefix: str) -> dict[str, float]:
        """Return the means over all images, with a prefix to their names."""
        return {f"{prefix}{key}": float(total) / self._images for key, total in self._sums.items()}


class WorstGroup:
    """How often images of each of some groups are classified rightly."""

    def __init__(self, groups: int, device: torch.device) -> None:
        self._right, self._images = torch.zeros(2, groups, dtype=torch.float64, device=device)

    def add(self, correct: Tensor, groups: Tensor) -> None:
        """Add images: whether each is classified rightly, bool (N,), and its group, int64 (N,)."""
        members = F.one_hot(groups, len(self._images)).double()
        self._right += correct.double() @ members
        self._images += members.sum(0)

    def error(self) -> float:
        """Return 1 minus the lowest accuracy of the groups that have images."""
        there = self._images > 0
        return 1 - float((self._right[there] / self._images[there]).min())
