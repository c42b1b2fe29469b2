"""Which implementation of an operator runs: the chosen one, else the best one for the tensor's device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from maskmatch.ops import _library

OPERATORS = ("patch_mask", "multiscale_pseudo_label", "upsample_cross_entropy")
_device_of = {"cpp": "cpu", "cuda": "cuda", "triton": "cuda"}
"""Of each backend but the reference; `auto` is compiled code, then Triton, then the reference."""

_implementations: dict[tuple[str, str], Callable[..., Any]] = {}
_problems: dict[str, str] = {}
_last_forms: dict[str, dict[str, str]] = {"triton": {}}
_warned = False


def register(backend: str, operator: str, function: Callable[..., Any]) -> None:
    """Offer a backend's form of an operator; forms of one operator have the same arguments and results."""
    _implementations[backend, operator] = function


def register_compiled(operator: str, function: Callable[..., Any]) -> None:
    """Offer the form of an operator that calls torch.ops.maskmatch, for the backends whose library has it."""
    for backend in ("cpp", "cuda"):
        if _library.has_kernel(operator, backend):
            register(backend, operator, function)


def cannot_run(backend: str, problem: str) -> None:
    """Say why a backend offers nothing here."""
    _problems[backend] = problem


def ran(backend: str, operator: str, form: str) -> None:
    """Keep for info() which of an operator's forms a backend has just taken."""
    _last_forms[backend][operator] = form


@contextmanager
def extra_backend(name: str, device: str, implementations: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """For a block, offers a backend from outside the package, by operator, and chooses it; `auto` never does."""
    global _device_of, _implementations
    before = _device_of, _implementations
    _device_of = _device_of | {name: device}
    _implementations = _implementations | {(name, operator): form for operator, form in implementations.items()}
    try:
        with use_backend(name):
            yield
    finally:
        _device_of, _implementations = before


def _check(name: str) -> str:
    names = ("auto", "reference", *_device_of)
    if name not in names:
        raise ValueError(f"backend must be one of {', '.join(names)}, got {name!r}")
    return name


_chosen = _check(os.environ.get("MASKMATCH_BACKEND", "auto"))


class use_backend:  # noqa: N801 - reads as a statement and as `with use_backend(...)`
    """Choose the backend of every operator, for good or, as a context manager, for a block.

    `auto`, `reference`, `cpp`, `cuda` or `triton`; raises ValueError for another name and RuntimeError for one
    that cannot be used here. The choice is the process's, not the thread's.
    """

    def __init__(self, name: str) -> None:
        global _chosen
        _check(name)
        if name not in ("auto", *available()):
            raise RuntimeError(f"backend {name} cannot be used: {_why_not(name)}")
        self._previous = _chosen
        _chosen = name

    def __enter__(self) -> use_backend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _chosen
        _chosen = self._previous


def _why() -> dict[str, str]:
    """Of each backend that cannot be used, why not."""
    return {name: problem for name, problem in _library.problems.items() if problem} | _problems


def _why_not(backend: str) -> str:
    return _why().get(backend, "the package was installed without it")


def available() -> tuple[str, ...]:
    """The backends that can be used here, `reference` first."""
    offered = {backend for backend, _ in _implementations}
    return tuple(name for name in ("reference", *_device_of) if name in offered)


def implementation(operator: str, tensor: Tensor) -> Callable[..., Any]:
    """The function that computes an operator on a tensor's device; fp64 is the reference's alone."""
    device = tensor.device.type
    if _chosen == "auto":
        if tensor.dtype != torch.float64:
            for backend in ("cpp", "cuda", "triton"):
                if _device_of[backend] == device and (backend, operator) in _implementations:
                    if backend == "triton" and device in _library.refused:
                        _warn_once(operator, device, backend)
                    return _implementations[backend, operator]
            _warn_once(operator, device, "reference")
        return _implementations["reference", operator]
    if (_chosen, operator) not in _implementations:
        raise RuntimeError(f"backend {_chosen} has no {operator}: {_why_not(_chosen)}")
    if _chosen != "reference":
        interpreted = _chosen == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
        if device != _device_of[_chosen] and not interpreted:
            raise ValueError(f"backend {_chosen} takes tensors on {_device_of[_chosen]}, got {tensor.device}")
        if tensor.dtype == torch.float64:
            raise TypeError(f"backend {_chosen} takes fp16, bf16 and fp32, got {tensor.dtype}; fp64 is the reference's")
    return _implementations[_chosen, operator]


@torch.compiler.assume_constant_result  # in a compiled step it is called while that is traced
def _warn_once(operator: str, device: str, backend: str) -> None:
    """Say what runs instead of the compiled library, and why where one is there."""
    global _warned
    if not _warned:
        _warned = True
        reason = _library.refused.get(device, f"no compiled {operator} for {device} tensors")
        instead = "the slow reference" if backend == "reference" else backend
        warnings.warn(f"maskmatch.ops: {reason}; using {instead}", stacklevel=4)


def info() -> dict[str, Any]:
    """What was compiled and what is in use, for bug reports.

    `backend` is the choice, `available` what can be chosen, `problems` why the rest cannot be; `instruction_sets`
    are those compiled for the CPU, `instruction_set` the one in use, `cuda_architectures` those compiled for;
    `cuda_forms` and `triton_forms` say which form of an operator ran last: `series` is the fast one.
    """
    sets, chosen, architectures, forms = [], None, [], {}
    if _library.problems["cpp"] is None:
        compiled, chosen = torch.ops.maskmatch.cpu_capability().split(":")
        sets = compiled.split()
    if _library.problems["cuda"] is None:
        architectures = torch.ops.maskmatch.cuda_architectures().split()
        forms = dict(form.split(":") for form in torch.ops.maskmatch.cuda_forms().split())
    return {
        "backend": _chosen,
        "available": list(available()),
        "problems": _why(),
        "instruction_sets": sets,
        "instruction_set": chosen,
        "cuda_architectures": architectures,
        "cuda_forms": forms,
        "triton_forms": dict(_last_forms["triton"]),
    }


def current_backend(device: torch.device) -> str:
    """The backend that runs the operators on a device: the one that was chosen, else the best one there is."""
    if _chosen != "auto":
        return _chosen
    offered = available()
    return next(
        (name for name in ("cpp", "cuda", "triton") if _device_of[name] == device.type and name in offered),
        "reference",
    )
