"""Loads the compiled operators, where the package was installed with them and they can run."""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parent.parent
_FILES = {"cpp": "_C.so", "cuda": "_C_cuda.so"}


def _load(backend: str) -> str | None:
    """None where the library is loaded and can run, else why not."""
    path = _PACKAGE / _FILES[backend]
    if backend == "cuda" and torch.version.cuda is None:
        return "torch is not a CUDA build"
    if not path.exists():
        return "the package was installed without it"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{path.name} does not load: {error}"
    return _mismatch() if backend == "cuda" else None


def _mismatch() -> str | None:
    """Why the CUDA library, which is loaded, cannot run beside this torch and driver.

    CUDA's runtime, which is part of it, works with drivers of its own major version and newer; and a library shall have
    torch's. Without a driver there is no device either, and nothing to say.
    """
    try:
        compiled = torch.ops.maskmatch.cuda_version()
    except AttributeError:
        return f"{_FILES['cuda']} is older than the package; install the package again"
    major, of_torch = (int(version.split(".")[0]) for version in (compiled, torch.version.cuda or "0"))
    if of_torch != major:
        return (
            f"it was compiled with CUDA {compiled} and torch with CUDA {torch.version.cuda}; install maskmatch again "
            f"with nvcc {of_torch} and MASKMATCH_CUDA=1, or a torch for CUDA {major}"
        )
    driver = driver_version()
    if driver and driver[0] < major:
        return (
            f"it was compiled with CUDA {compiled} and the driver is for CUDA {driver[0]}.{driver[1]}; update the "
            f"driver, or install torch for CUDA {driver[0]} and maskmatch again with nvcc {driver[0]}"
        )
    return None


def driver_version() -> tuple[int, int] | None:
    """The newest version of CUDA that the installed driver is for, None without one; starts nothing on a device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:  # as that of the toolkit's stand-in is
        return None
    return version.value // 1000, version.value % 1000 // 10


# The schemas are in the CPU library, so the other one needs it.
problems: dict[str, str | None] = {"cpp": _load("cpp")}
"""For each compiled backend why it cannot be used, None where it can."""
problems["cuda"] = problems["cpp"] or _load("cuda")
refused = {
    device: f"{_FILES[backend]} cannot be used: {problems[backend]}"
    for device, backend in (("cpu", "cpp"), ("cuda", "cuda"))
    if problems[backend] and (_PACKAGE / _FILES[backend]).exists()
}
"""By device, why a library that is there is not used for it."""


def has_kernel(operator: str, backend: str) -> bool:
    """Whether the compiled library of a backend implements an operator and can run."""
    key = {"cpp": "CPU", "cuda": "CUDA"}[backend]
    return problems[backend] is None and torch._C._dispatch_has_kernel_for_dispatch_key(f"maskmatch::{operator}", key)
