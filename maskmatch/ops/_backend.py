"""Which implementation of an operator runs: chosen by hand, else the best one for the tensor's device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from types import TracebackType

import torch
from torch import Tensor

from maskmatch.ops import reference

BACKENDS = ("auto", "reference", "cpp", "cuda", "triton")
"""What `use_backend` and MASKMATCH_BACKEND take; `auto` is compiled code, then Triton, then the reference."""

_DEVICES = {"cpp": ("cpu",), "cuda": ("cuda",), "triton": ("cuda",)}


def _check(name: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_chosen = _check(os.environ.get("MASKMATCH_BACKEND", "auto"))
_available: dict[str, str | None] = {"reference": None}  # name -> None, or why it cannot be used
_warned = False


class use_backend:  # noqa: N801 - reads as a statement and as `with use_backend(...)`
    """Choose the backend of every operator, for good or, as a context manager, for a block.

    `auto`, `reference`, `cpp`, `cuda` or `triton`; raises ValueError for another name and RuntimeError for one
    that is not available here. The choice is the process's, not the thread's.
    """

    def __init__(self, name: str) -> None:
        global _chosen
        _check(name)
        if name != "auto" and name not in available():
            raise RuntimeError(f"backend {name} is not available: the package was installed without it")
        self._previous = _chosen
        _chosen = name

    def __enter__(self) -> use_backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _chosen
        _chosen = self._previous


def available() -> tuple[str, ...]:
    """The backends that can be used here."""
    return ("reference",)


def select(device: torch.device) -> str:
    """The backend for tensors on a device."""
    global _warned
    if _chosen != "auto":
        return _chosen
    if not _warned:
        _warned = True
        warnings.warn(
            f"maskmatch.ops: no compiled operators for {device.type}, using the slow reference", stacklevel=4
        )
    return "reference"


def implementation(operator: str, tensor: Tensor) -> Callable:
    """The function of the chosen backend that computes an operator on the tensor's device."""
    select(tensor.device)
    return getattr(reference, operator)


def info() -> dict[str, object]:
    """What was compiled and what is in use, for bug reports."""
    return {"backend": _chosen, "available": list(available())}
