"""The rows of docs/architectures.md hold, one after the other."""

from __future__ import annotations

import os

import pytest
from architecture_sweep import Outcome, look_at, rows


def test_there_are_enough_architectures() -> None:
    found = rows()
    assert len(found) >= 120
    assert len({row.name for row in found}) == len(found)
    assert sum(row.flex == "exact" for row in found) >= 120


@pytest.mark.slow
@pytest.mark.parametrize("row", rows()[:: int(os.environ.get("SWEEP_STEP", "1"))], ids=lambda row: row.name)
def test_an_architecture_is_exact_or_refused_for_its_true_reason(row: Outcome) -> None:
    assert look_at(row.name) == row
