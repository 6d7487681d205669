"""Checks of hyper-parameters: one sentence that names the field, what it may be, and what it is."""

from __future__ import annotations

import math

__all__ = ["at_least", "between", "positive"]


def positive(**values: float) -> None:
    """Raise ValueError unless every value is a finite number above 0."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, not {value}")


def at_least(low: float, **values: float) -> None:
    """Raise ValueError unless every value is finite and not below `low`."""
    for name, value in values.items():
        if not low <= value < math.inf:
            raise ValueError(f"{name} must be at least {low}, not {value}")


def between(low: float, high: float, **values: float) -> None:
    """Raise ValueError unless every value lies in [low, high]."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} must lie in [{low}, {high}], not {value}")
