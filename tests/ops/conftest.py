"""The backends that the operators' tests run on."""

from __future__ import annotations

import pytest
import torch

from maskmatch.ops import info, use_backend

BACKENDS = ["reference", "cpp-default", "cpp-avx2", "cpp-avx512", "cuda", "triton"]


def _skip_unless_usable(name: str, instruction_set: str) -> None:
    found = info()
    if name not in found["available"]:
        pytest.skip(f"backend {name} is not installed: {found['problems'].get(name, 'no such library')}")
    if name in ("cuda", "triton") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if instruction_set and instruction_set not in found["instruction_sets"]:
        pytest.skip(f"{instruction_set} is not compiled in")
    has = {"avx2": "avx2", "avx512": "avx512"}
    flags = _cpu_flags()
    if instruction_set in has and flags and not any(f.startswith(has[instruction_set]) for f in flags):
        pytest.skip(f"this CPU has no {instruction_set}")


def _cpu_flags() -> set[str]:
    try:
        with open("/proc/cpuinfo") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return set()
    return set(line.split(":")[-1].split())


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.gpu] if name in ("cuda", "triton") else []) for name in BACKENDS]
)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Runs the test on a backend (on the CPU with each instruction set); gives the device to use."""
    name, _, instruction_set = request.param.partition("-")
    _skip_unless_usable(name, instruction_set)
    if instruction_set:
        monkeypatch.setenv("MASKMATCH_CPU_CAPABILITY", instruction_set)
    with use_backend(name):
        yield torch.device("cuda" if name in ("cuda", "triton") else "cpu")


@pytest.fixture
def fast_backend(backend: torch.device) -> torch.device:
    """As `backend`, without the reference."""
    from maskmatch.ops import info

    if info()["backend"] == "reference":
        pytest.skip("this is about the compiled forms")
    return backend
