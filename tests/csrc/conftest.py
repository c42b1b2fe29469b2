"""Tools of the CUDA tests. Where one is missing a test skips, but with MASKMATCH_REQUIRE_CUDA_BUILD=1 it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NoReturn

import pytest

import maskmatch
from maskmatch.ops import info

HEADERS = Path(__file__).resolve().parents[2] / "build" / "torch-headers"


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


@pytest.fixture(scope="session", params=["oldest", "newest"])
def torch_headers(request: pytest.FixtureRequest) -> Path:
    """The include folder of the oldest torch that pyproject.toml allows, or of the newest that the registry has.

    Fetched once into build/ and kept there; a clean clone, as continuous integration has, looks for the newest again.
    """
    folder = HEADERS / request.param
    if not folder.is_dir() and (problem := _fetch_headers(request.param, folder)):
        miss(f"the headers of the {request.param} torch cannot be fetched: {problem}")
    return folder / "torch" / "include"


def _fetch_headers(which: str, folder: Path) -> str | None:
    """Unpack a wheel's headers into a folder; returns what went wrong.

    Of the wheels of a release the one for macOS is the smallest, and has the same headers, those for CUDA among them.
    """
    release = ["torch==2.10.0", "--python-version=3.12"] if which == "oldest" else ["torch"]
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--platform=macosx_99_0_arm64"]
    HEADERS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HEADERS) as temporary:
        download = [sys.executable, "-m", "pip", "download", *options, *release, f"--dest={temporary}"]
        # A machine's constraints are for what is installed there; this is only read.
        environment = os.environ | {"PIP_CONSTRAINT": os.devnull}
        done = subprocess.run(download, env=environment, capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"pip left with {done.returncode}"
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            wanted = [name for name in packed.namelist() if name.startswith(("torch/include/", "torch/version.py"))]
            packed.extractall(Path(temporary) / "unpacked", wanted)
        (Path(temporary) / "unpacked").rename(folder)
    return None
