"""Seconds, peak memory and floating-point operations of one call of a function, on the processor or on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["DeviceClock", "clock", "flop", "free_memory", "peak_memory", "storage_bytes"]


class DeviceClock:
    """Time as a GPU sees it: every reading waits for all that was started before, by an event in its stream."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last: torch.cuda.Event | None = None
        self._milliseconds = 0.0

    def seconds(self) -> float:
        """Return the seconds since the first reading."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        event.synchronize()
        if self._last is not None:
            # Summed here, in double precision: events tell the time between them in single precision.
            self._milliseconds += self._last.elapsed_time(event)
        self._last = event
        return self._milliseconds / 1e3


def clock(device: torch.device) -> Callable[[], float]:
    """Return a function that tells the time in seconds; only differences of its readings mean something."""
    return DeviceClock(device).seconds if device.type == "cuda" else time.perf_counter


def peak_memory(call: Callable[[], Any], device: torch.device, held: int) -> int:
    """Return the largest number of bytes that tensors held at one time during a call.

    On a GPU this is ``torch.cuda.max_memory_allocated``. On the processor torch keeps no such account; there it is
    `held` plus the largest sum of what torch's allocator gave out and got back during the call, as `torch.profiler`
    records them: tensors, and temporary memory inside operations. Code, Python objects, and memory that the allocator
    keeps in reserve are in neither.

    Parameters
    ----------
    call : callable
        Must free nothing that was made before, since the profiler does not see the end of such memory.
    device : torch.device
        Where its tensors are.
    held : int
        Bytes of the tensors that are there before and after the call, see `storage_bytes`; for the processor.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    records = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [(record.start_ns(), record.nbytes()) for record in records if record.device_type() == DeviceType.CPU]
    now = peak = 0
    for _, change in sorted(changes, key=lambda timed: timed[0]):
        now += change
        peak = max(peak, now)
    return held + peak


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of memory behind tensors; what several of them share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def free_memory(device: torch.device) -> int:
    """Return the bytes of memory that are free on a device."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def flop(call: Callable[[], Any]) -> int:
    """Return the floating-point operations of a call's convolutions and matrix products, backward ones included.

    A multiplication with its addition is two. The number does not depend on the machine nor on what else runs on it, so
    that its ratio to the plain network's is the operation count of a method.
    """
    counter = FlopCounterMode(display=False)
    # It hooks modules to count for each of them, and these hooks refuse gradients with respect to the images.
    counter.mod_tracker = _NoModules()
    with counter:
        call()
    return counter.get_total_flops()


class _NoModules(nullcontext):
    parents = frozenset({"Global"})
