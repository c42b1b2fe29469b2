"""Freed memory is kept, in huge pages, measured in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import ctypes, resource, sys
from maskmatch.common.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
libc.malloc.argtypes, libc.memset.argtypes = [ctypes.c_size_t], [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def use(megabytes=200):
    block = libc.malloc(megabytes << 20)
    libc.memset(block, 1, megabytes << 20)
    libc.free(block)

use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
rollup = open("/proc/self/smaps_rollup").read().split()
print(faults, int(rollup[rollup.index("AnonHugePages:") + 1]))
"""
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def measured(how, **environment):
    """Page faults of a block's second use, and KiB in huge pages after it."""
    command = [sys.executable, "-c", PROGRAM, how]
    environment = os.environ | environment
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    return [int(number) for number in printed.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_a_large_block_is_there_again_without_page_faults():
    assert measured("kept")[0] < 100 < 10000 < measured("as usual")[0]
    assert measured("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] > 10000  # the user's own choice stays


@pytest.mark.skipif(not SETTING.exists() or "[madvise]" not in SETTING.read_text(), reason="needs huge pages on advice")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_kept_memory_is_in_huge_pages():
    assert measured("kept")[1] > 100 * 1024 > measured("as usual")[1]
