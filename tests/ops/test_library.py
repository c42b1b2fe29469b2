"""Whether the compiled CUDA library fits the driver and torch, and what runs where it does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from maskmatch.ops import _backend, _library, info, reference, use_backend

DRIVER = """
#include <stdlib.h>
int cuDriverGetVersion(int* version) { *version = %s; return %s; }
int cuInit(unsigned flags) { abort(); }  // at import nothing is started on a device
"""
REPORT = (
    "import maskmatch.ops as o; from maskmatch.ops import _library as l; print(l.driver_version(), l.problems['cuda'])"
)


@pytest.fixture
def driver(tmp_path: Path):
    """A function that starts a process in which libcuda.so.1 is a stand-in; it sees no device."""
    compiler = shutil.which("cc") or pytest.skip("no C compiler")

    def start(code: str, version: int, error: int = 0) -> subprocess.CompletedProcess[str]:
        (tmp_path / "driver.c").write_text(DRIVER % (version, error))
        target = tmp_path / "libcuda.so.1"
        subprocess.run([compiler, "-shared", "-fPIC", tmp_path / "driver.c", "-o", target], check=True)
        environment = {"LD_LIBRARY_PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "", "MASKMATCH_BACKEND": "auto"}
        command = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)

    return start


@pytest.mark.parametrize(
    ("of_torch", "of_driver", "said"),
    [
        ("13.0", None, None),  # no driver
        ("13.2", (13, 0), None),
        ("13.0", (14, 1), None),
        ("13.0", (12, 8), "it was compiled with CUDA 13.0 and the driver is for CUDA 12.8; update the driver"),
        (
            "12.8",
            (13, 0),
            "it was compiled with CUDA 13.0 and torch with CUDA 12.8; install maskmatch again with nvcc 12",
        ),
        (
            "14.0",
            (14, 0),
            "it was compiled with CUDA 13.0 and torch with CUDA 14.0; install maskmatch again with nvcc 14",
        ),
        ("12.8", None, "it was compiled with CUDA 13.0 and torch with CUDA 12.8"),
    ],
)
def test_versions_that_fit(
    monkeypatch: pytest.MonkeyPatch, of_torch: str, of_driver: tuple[int, int] | None, said: str | None
) -> None:
    monkeypatch.setattr(torch.version, "cuda", of_torch)
    monkeypatch.setattr(torch.ops.maskmatch, "cuda_version", lambda: "13.0", raising=False)
    monkeypatch.setattr(_library, "driver_version", lambda: of_driver)
    found = _library._mismatch()
    assert found is None if said is None else str(found).startswith(said)


def test_a_library_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "maskmatch", object())
    assert "older than the package; install the package again" in str(_library._mismatch())


def test_an_old_driver(driver) -> None:
    done = driver(REPORT, 12080)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(12, 8) ") and done.stderr == ""
    if torch.version.cuda and info()["cuda_architectures"]:
        assert "the driver is for CUDA 12.8; update the driver" in done.stdout


@pytest.mark.parametrize(("version", "error"), [(99000, 0), (0, 34)], ids=["new", "stand-in"])
def test_drivers_that_fit(driver, version: int, error: int) -> None:
    """A newer one; and that of CUDA's toolkit, whose every function is an error."""
    done = driver(REPORT, version, error)
    assert done.returncode == 0, done.stderr
    found = f"({version // 1000}, 0)" if not error else "None"
    assert done.stdout.strip() == f"{found} {_library.problems['cuda']}" and done.stderr == ""


@pytest.mark.parametrize("others", [["triton"], []], ids=["triton", "reference"])
def test_what_runs_instead_is_said_once(monkeypatch: pytest.MonkeyPatch, others: list[str]) -> None:
    offered = {("reference", operator): getattr(reference, operator) for operator in _backend.OPERATORS}
    offered |= {(name, operator): name.upper for name in others for operator in _backend.OPERATORS}
    monkeypatch.setattr(_backend, "_implementations", offered)
    monkeypatch.setattr(_backend, "_warned", False)
    monkeypatch.setitem(_library.refused, "cuda", "_C_cuda.so cannot be used: reasons")
    best, words = (others[0], "triton") if others else ("reference", "the slow reference")
    with use_backend("auto"), FakeTensorMode(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logits = torch.empty(1, 2, 3, 3, device="cuda")
        for operator in _backend.OPERATORS:
            assert _backend.implementation(operator, logits) == offered[best, operator]
    assert [str(w.message) for w in caught] == [f"maskmatch.ops: _C_cuda.so cannot be used: reasons; using {words}"]


def test_triton_in_place_of_a_library_that_was_not_built_is_not_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    offered = {("triton", operator): "triton".upper for operator in _backend.OPERATORS}
    monkeypatch.setattr(_backend, "_implementations", offered)
    monkeypatch.setattr(_backend, "_warned", False)
    monkeypatch.setattr(_library, "refused", {})
    with use_backend("auto"), FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        logits = torch.empty(1, device="cuda")
        assert _backend.implementation("patch_mask", logits) == offered["triton", "patch_mask"]
