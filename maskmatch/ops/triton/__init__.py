"""Triton kernels of every operator, for GPUs that the compiled library does not serve.

The kernels run on a CUDA device, or on the CPU where TRITON_INTERPRET=1 was set before the import. This file only finds
out whether they can run here; triton is imported where they can and nowhere else.
"""

from __future__ import annotations

import importlib
import os

import torch

from maskmatch.ops import _backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether kernels are interpreted, on any device's tensors, instead of compiled."""


def _problem() -> str | None:
    """Why the kernels cannot run here, None where they can."""
    if not INTERPRETED and torch.cuda.device_count() == 0:
        return "there is no CUDA device"
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"triton cannot be imported: {error}"
    return None


if problem := _problem():
    _backend.cannot_run("triton", problem)
else:
    for operator in _backend.OPERATORS:
        kernels = importlib.import_module(f"{__name__}.{operator}")
        _backend.register("triton", operator, kernels.run)
