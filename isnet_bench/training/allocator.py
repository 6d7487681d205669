"""Memory between the steps of a training on a processor."""

from __future__ import annotations

import ctypes

# mallopt's parameters, see man mallopt; and the largest value that its int can hold.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST = 2**31 - 1


def keep_memory() -> bool:
    """Let the C library keep freed memory for this process's next allocations.

    By default glibc hands large blocks back to the kernel, which must clear every page of them again a moment later:
    each step of a training allocates and frees the same tensors. Holds for the rest of the process.

    Returns
    -------
    bool
        Whether it could be set; it cannot without glibc, where nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(option, _LARGEST) == 1 for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD)])
