"""How a process of one run keeps what it has freed for the next tensor of that size."""

import ctypes
import sys

# Of glibc's malloc.h; mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT = 1 << 30
"""Bytes: blocks below this stay with the process, and so does so much free room at its end."""


def keep_freed_memory() -> bool:
    """Have the C library keep large blocks that were freed; return whether it does so from now on.

    glibc takes blocks above 32 MB from the system and gives them back at once, so that each step of
    a training on a CPU is given fresh pages, which the system clears first: of a step of ALBEF as published,
    on 16 pairs, that was a tenth (`docs/benchmarks.md`). The price is that a process does not shrink
    before it ends. It is for processes that do one run. Elsewhere than on Linux with glibc nothing happens.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library
        return False
    return all([mallopt(_M_MMAP_THRESHOLD, KEPT), mallopt(_M_TRIM_THRESHOLD, KEPT)])
