"""Tools of the CUDA tests. Where one is missing a test skips, but with MASKMATCH_REQUIRE_CUDA_BUILD=1 it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

import maskmatch
from maskmatch.ops import info


def miss(reason: str) -> NoReturn:
    if os.environ.get("MASKMATCH_REQUIRE_CUDA_BUILD") == "1":
        pytest.fail(f"{reason}, and MASKMATCH_REQUIRE_CUDA_BUILD=1 is set")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def nvcc() -> str:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{home}/bin") or miss("nvcc is not found")


@pytest.fixture(scope="session")
def cuda_library() -> Path:
    """The built library, which is loaded."""
    if problem := info()["problems"].get("cuda"):
        miss(f"the CUDA library cannot be used: {problem}")
    return Path(maskmatch.__file__).parent / "_C_cuda.so"
