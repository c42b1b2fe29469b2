"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**30  # bytes; blocks above it still go back


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees, instead of handing large blocks back to the system.

    A training step asks for the same blocks again and again, and on the CPU the page faults of getting them back were a
    tenth of its time or more. What the environment says of malloc stays; other C libraries are left as they are.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, TypeError, AttributeError):  # no glibc
        return
    mallopt(M_MMAP_THRESHOLD, KEPT)
    mallopt(M_TRIM_THRESHOLD, KEPT)
