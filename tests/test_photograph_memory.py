"""The memory of a process does not grow with the number of photographs."""

import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FEW, MANY, SIDE = 100, 300, 224
# In 10^6 bytes: 200 more images and masks take 40 as bytes, and 160 as floating-point numbers.
MOST = 25


@pytest.fixture(scope="module")
def photograph_memory():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        patch.setenv("PYTHONPATH", str(ROOT))
        yield importlib.import_module("photograph_memory")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of memory in /proc")
@pytest.mark.parametrize("planted", [{"places": {}}], ids=["places"])
def test_memory_does_not_grow_with_the_number_of_photographs(photograph_memory, tmp_path, planted):
    peaks = {}
    for number in (FEW, MANY):
        folder = tmp_path / str(number)
        photograph_memory.write(folder, number, SIDE, 64, 4, planted)
        for stage in ("prepare", "train"):
            found = photograph_memory.measure(stage, folder, 2, in_memory=0)
            peaks.setdefault(stage, []).append(found["anonymous_mb"])
    growth = {stage: many - few for stage, (few, many) in peaks.items()}
    assert max(growth.values()) < MOST, growth
