"""The backends that the operators' tests run on."""

from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import pytest
import torch

from maskmatch.ops import info, use_backend
from maskmatch.ops.triton import INTERPRETED
from tools.emulator import emulated

BACKENDS = ["reference", "cpp-default", "cpp-avx2", "cpp-avx512", "cuda", "triton"]
# The CUDA kernels run on the CPU, threads and blocks in ascending order, and shuffled by a seed of each test's own.
SHUFFLED = f"{emulated.NAME}-shuffled"
EMULATED = [emulated.NAME, SHUFFLED]


def _patch_language_once() -> None:
    """Triton's interpreter patches triton.language anew at every call of one kernel function from another."""
    from triton.runtime import interpreter

    patch, patched = interpreter._patch_lang, set()

    def once(function: Callable[..., None]) -> interpreter._LangPatchScope:
        if function not in patched:
            patched.add(function)
            patch(function)
        return interpreter._LangPatchScope()  # with nothing to restore

    interpreter._patch_lang = once


if INTERPRETED:
    _patch_language_once()


def _skip_unless_usable(name: str, instruction_set: str) -> None:
    found = info()
    if name not in found["available"]:
        pytest.skip(f"backend {name} is not installed: {found['problems'].get(name, 'no such library')}")
    if _device(name) == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if instruction_set and instruction_set not in found["instruction_sets"]:
        pytest.skip(f"{instruction_set} is not compiled in")
    has = {"avx2": "avx2", "avx512": "avx512"}
    flags = _cpu_flags()
    if instruction_set in has and flags and not any(f.startswith(has[instruction_set]) for f in flags):
        pytest.skip(f"this CPU has no {instruction_set}")


def _device(name: str) -> str:
    return "cuda" if name == "cuda" or (name == "triton" and not INTERPRETED) else "cpu"


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(line.split(":")[-1].split())


def _marks(name: str) -> list[pytest.MarkDecorator]:
    if name in ("cuda", "triton"):
        return [pytest.mark.gpu]
    return [pytest.mark.slow] if name == SHUFFLED else []


@pytest.fixture(params=[pytest.param(name, marks=_marks(name)) for name in [*BACKENDS, *EMULATED]])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Runs the test on a backend (on the CPU with each instruction set); gives the device to use.

    Triton's kernels run on the CPU in a process with TRITON_INTERPRET=1: see tests/ops/triton/test_interpreter.py.
    """
    if request.param in EMULATED:
        if emulated.compiler() is None:
            pytest.skip("no C++ compiler")
        with emulated.backend(1 + crc32(request.node.name.encode()) if request.param == SHUFFLED else 0):
            yield torch.device("cpu")
        return
    name, _, instruction_set = request.param.partition("-")
    _skip_unless_usable(name, instruction_set)
    if instruction_set:
        monkeypatch.setenv("MASKMATCH_CPU_CAPABILITY", instruction_set)
    with use_backend(name):
        yield torch.device(_device(name))


@pytest.fixture
def fast_backend(backend: torch.device) -> torch.device:
    """As `backend`, without the reference."""
    from maskmatch.ops import info

    if info()["backend"] == "reference":
        pytest.skip("this is about the compiled forms")
    return backend
