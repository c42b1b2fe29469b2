"""The choice of a backend and of an instruction set."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from maskmatch.ops import _backend, current_backend, info, multiscale_pseudo_label, reference, use_backend


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        check=False,
    )


def test_use_backend_for_good_and_for_a_block() -> None:
    with use_backend("auto"):
        with use_backend("reference"):
            assert info()["backend"] == "reference"
        assert info()["backend"] == "auto"
        use_backend("reference")
        assert info()["backend"] == "reference"


def test_unknown_and_missing_backends() -> None:
    with pytest.raises(ValueError, match="backend must be one of auto, reference, cpp, cuda, triton, got 'gpu'"):
        use_backend("gpu")
    missing = {"cpp", "cuda", "triton"} - set(info()["available"])
    for name in missing:
        with pytest.raises(RuntimeError, match=f"backend {name} cannot be used"):
            use_backend(name)


@pytest.mark.skipif("cpp" not in info()["available"], reason="no compiled operators")
def test_compiled_is_the_default_and_agrees_with_the_others() -> None:
    logits = [torch.randn(1, 5, 7, 7)]
    with use_backend("auto"):
        automatic = multiscale_pseudo_label(logits, (50, 50))[1]
    with use_backend("cpp"):
        assert torch.equal(automatic, multiscale_pseudo_label(logits, (50, 50))[1])
        with pytest.raises(ValueError, match="backend cpp takes tensors on cpu, got meta"):
            multiscale_pseudo_label([logits[0].to("meta")], (50, 50))
    with use_backend("reference"):
        assert not torch.equal(automatic, multiscale_pseudo_label(logits, (50, 50))[1])


@pytest.mark.slow
def test_environment_variable() -> None:
    code = "import maskmatch.ops as o; print(o.info()['backend'])"
    assert python(code, MASKMATCH_BACKEND="reference").stdout.strip() == "reference"
    failed = python(code, MASKMATCH_BACKEND="fast")
    assert failed.returncode != 0
    assert "backend must be one of auto, reference, cpp, cuda, triton, got 'fast'" in failed.stderr


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_without_the_compiled_library_the_reference_warns_once(compiled: bool) -> None:
    code = """
import pathlib, warnings
exists = pathlib.Path.exists
pathlib.Path.exists = lambda self: self.name not in ("_C.so", "_C_cuda.so") and exists(self)
import torch, maskmatch.ops as o
def labels(logits):
    return o.multiscale_pseudo_label([logits], (5, 5))
if {compiled}:
    labels = torch.compile(labels, backend="aot_eager", fullgraph=True)
warnings.simplefilter("always")
with warnings.catch_warnings(record=True) as caught:
    for _ in range(3):
        labels(torch.randn(1, 2, 3, 3))
print([str(w.message) for w in caught], o.info()["available"])
""".replace("{compiled}", str(compiled))
    result = python(code, MASKMATCH_BACKEND="auto")
    expected = "maskmatch.ops: no compiled multiscale_pseudo_label for cpu tensors; using the slow reference"
    assert result.stdout.strip() == f"['{expected}'] ['reference']", result.stderr
    forced = python(code, MASKMATCH_BACKEND="cpp")
    assert "backend cpp has no multiscale_pseudo_label: the package was installed without it" in forced.stderr


def test_an_extra_backend_is_there_for_a_block() -> None:
    before = info()
    with _backend.extra_backend("mine", "cpu", {"patch_mask": str.upper}):
        assert info()["backend"] == "mine" and info()["available"] == [*before["available"], "mine"]
        assert _backend.implementation("patch_mask", torch.zeros(1)) is str.upper
        with pytest.raises(RuntimeError, match="backend mine has no upsample_cross_entropy"):
            _backend.implementation("upsample_cross_entropy", torch.zeros(1))
        with use_backend("auto"):
            assert current_backend(torch.device("cpu")) != "mine"
    assert info() == before
    with pytest.raises(ValueError, match="backend must be one of auto, reference, cpp, cuda, triton, got 'mine'"):
        use_backend("mine")


def test_on_a_gpu_cuda_then_triton_then_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `train --fused` uses and names."""
    gpu = torch.device("cuda")
    offered = {("reference", operator): getattr(reference, operator) for operator in _backend.OPERATORS}
    for names, best in ((["cuda", "triton"], "cuda"), (["triton"], "triton"), ([], "reference")):
        more = {(name, operator): name.upper for name in names for operator in _backend.OPERATORS}
        monkeypatch.setattr(_backend, "_implementations", offered | more)
        with use_backend("auto"):
            assert current_backend(gpu) == best
            with FakeTensorMode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                logits = torch.empty(1, 2, 3, 3, device=gpu)
                for operator in _backend.OPERATORS:
                    chosen = _backend.implementation(operator, logits)
                    assert chosen == (offered | more)[best, operator]


@pytest.mark.slow
def test_triton_where_it_can_run() -> None:
    code = "import maskmatch.ops as o; print('triton' in o.info()['available'], o.info()['problems'].get('triton'))"
    without_device = {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "0"}
    assert python(code, **without_device).stdout.strip() == "False there is no CUDA device"
    forced = python("import maskmatch.ops as o; o.use_backend('triton')", **without_device)
    assert forced.stderr.endswith("RuntimeError: backend triton cannot be used: there is no CUDA device\n")
    missing = "import sys; sys.modules['triton'] = None; " + code
    assert python(missing, TRITON_INTERPRET="1").stdout.startswith("False triton cannot be imported: ")
    pytest.importorskip("triton")
    assert python(code, TRITON_INTERPRET="1").stdout.strip() == "True None"


@pytest.mark.skipif("cpp" not in info()["available"], reason="no compiled operators")
def test_instruction_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKMATCH_CPU_CAPABILITY", "default")
    assert info()["instruction_set"] == "default"
    monkeypatch.delenv("MASKMATCH_CPU_CAPABILITY")
    assert info()["instruction_set"] in info()["instruction_sets"]
    monkeypatch.setenv("MASKMATCH_CPU_CAPABILITY", "sse9")
    with pytest.raises(RuntimeError, match=r"MASKMATCH_CPU_CAPABILITY must be one of .*, got sse9"):
        multiscale_pseudo_label([torch.randn(1, 2, 3, 3)], (5, 5))
