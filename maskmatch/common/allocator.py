"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import mmap
import os

# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = 2**30  # bytes; blocks above it still go back
HUGE = 2**29  # bytes of the heap, from where it ends now, that the system is asked to give in huge pages


def keep_freed_memory() -> None:
    """Have glibc keep what this process frees, instead of handing large blocks back to the system; in huge pages.

    A training step asks for the same blocks again and again. On the CPU it otherwise spends a good part of its time on
    page faults, getting them back, and on finding where its pages are. What the environment says of malloc stays; other
    C libraries are left as they are.
    """
    if any(name in os.environ for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")):
        return
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)
        _advise_huge_pages(libc)
    except (OSError, TypeError, AttributeError):  # no glibc, or no Linux
        return


def _advise_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap by HUGE bytes, which take memory only when they are used, and say how they are to come."""
    libc.malloc.restype = ctypes.c_void_p
    block = libc.malloc(ctypes.c_size_t(HUGE))
    if block:
        start = -(-block // mmap.PAGESIZE) * mmap.PAGESIZE
        size = HUGE - mmap.PAGESIZE
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
        libc.free(ctypes.c_void_p(block))
