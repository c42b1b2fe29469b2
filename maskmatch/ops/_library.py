"""Loads the compiled operators, where the package was installed with them."""

from __future__ import annotations

from pathlib import Path

import torch

_PACKAGE = Path(__file__).resolve().parent.parent
_FILES = {"cpp": "_C.so", "cuda": "_C_cuda.so"}


def _load(backend: str) -> str | None:
    """None where the library is loaded, else why not."""
    path = _PACKAGE / _FILES[backend]
    if backend == "cuda" and torch.version.cuda is None:
        return "torch is not a CUDA build"
    if not path.exists():
        return "the package was installed without it"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        return f"{path.name} does not load: {error}"
    return None


# The schemas are in the CPU library, so the other one needs it.
problems: dict[str, str | None] = {"cpp": _load("cpp")}
"""For each compiled backend why it cannot be used, None where it can."""
problems["cuda"] = problems["cpp"] or _load("cuda")


def has_kernel(operator: str, backend: str) -> bool:
    """Whether the compiled library of a backend implements an operator."""
    key = {"cpp": "CPU", "cuda": "CUDA"}[backend]
    return problems[backend] is None and torch._C._dispatch_has_kernel_for_dispatch_key(f"maskmatch::{operator}", key)
