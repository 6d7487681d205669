"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

from isnet_bench.training import allocator

# How many pages of memory the kernel has to bring in while a tensor of 40 MB comes and goes 20 times.
_FAULTS = """
import resource, sys, torch
from isnet_bench.training import allocator
if sys.argv[1] == "keep":
    assert allocator.keep_memory()
# How soon freed memory is used again depends on what else lies in the heap: after eight steps at most, as seen so far.
for step in range(50):
    if step == 20:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(how):
    done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_with_glibc_no_page_is_cleared_twice():
    if platform.libc_ver()[0] == "glibc":
        assert _faults("keep") < 0.1 * _faults("default")
    else:
        assert allocator.keep_memory() is False


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_other_c_libraries_are_left_as_they_are(monkeypatch, error):
    def absent(_):
        raise error

    monkeypatch.setattr(allocator.ctypes, "CDLL", absent)
    assert allocator.keep_memory() is False
