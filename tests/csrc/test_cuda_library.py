"""The built CUDA library on a machine without a driver: symbols, registrations, fakes, and what it asks of torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import maskmatch
from maskmatch.ops import _library
from maskmatch.ops._backend import OPERATORS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_every_symbol_is_resolved_at_load(cuda_library: Path) -> None:
    """LD_BIND_NOW makes the loader resolve functions too, not only when they are first called."""
    code = f"import torch; torch.ops.load_library({str(cuda_library.parent / '_C.so')!r}); "
    code += f"torch.ops.load_library({str(cuda_library)!r}); print(torch.ops.maskmatch.cuda_architectures())"
    environment = os.environ | {"LD_BIND_NOW": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == torch.ops.maskmatch.cuda_architectures().split()


def test_it_says_what_it_was_compiled_with(cuda_library: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+", torch.ops.maskmatch.cuda_version())


def test_dispatcher_has_a_cuda_kernel_for_every_operator(cuda_library: Path) -> None:
    for operator in (*OPERATORS, "upsample_cross_entropy_backward", "uniform"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"maskmatch::{operator}", "CUDA"), operator


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_fake_cuda_tensors(cuda_library: Path, dtype: torch.dtype) -> None:
    """Shapes, dtypes and device, in the forward and, called directly, in the backward."""
    maskmatch = torch.ops.maskmatch
    with FakeTensorMode(), torch.device("cuda"):
        images, logits = torch.empty(2, 3, 33, 35, dtype=torch.uint8), torch.empty(2, 21, 5, 6, dtype=dtype)
        output, grid = maskmatch.patch_mask(
            images, 8, 0.5, torch.empty(2, dtype=torch.int64), "random", *[[0.5] * 3] * 3
        )
        label, confidence = maskmatch.multiscale_pseudo_label(
            [logits, logits], 33, 35, [0, 1], [0.5, 0.5], "probability", False
        )
        pixels = (label, confidence, 0.95, None, None, 255, 0.0, False)
        loss, divisor, gradient = maskmatch.upsample_cross_entropy(logits, *pixels, "all", None, True)
        _, _, log_sum = maskmatch.upsample_cross_entropy(logits, *pixels, "none", None, True)
        backward = maskmatch.upsample_cross_entropy_backward(confidence, logits, label, log_sum, *pixels[1:])
    expected = {
        output: ((2, 3, 33, 35), torch.float32),
        grid: ((2, 5, 5), torch.bool),
        label: ((2, 33, 35), torch.uint8),
        confidence: ((2, 33, 35), torch.float32),
        loss: ((), torch.float32),
        divisor: ((), torch.float32),
        gradient: ((2, 21, 5, 6), torch.float32),
        log_sum: ((2, 33, 35), torch.float32),
        backward: ((2, 21, 5, 6), dtype),
    }
    for tensor, (shape, kind) in expected.items():
        assert (tuple(tensor.shape), tensor.dtype, tensor.device.type) == (shape, kind, "cuda")


@pytest.mark.parametrize("backend", ["cpp", "cuda"])
def test_symbols_need_no_torch_newer_than_2_10(backend: str, request: pytest.FixtureRequest) -> None:
    """torch-abi-audit knows in which release each symbol of torch's stable ABI appeared."""
    if backend == "cuda":
        library = request.getfixturevalue("cuda_library")
    else:
        library = ROOT / "maskmatch" / "_C.so"
        if _library.problems["cpp"]:
            pytest.skip(f"no compiled operators: {_library.problems['cpp']}")
    pytest.importorskip("torch_abi_audit", reason="torch-abi-audit needs Python 3.11")
    tool = Path(sys.executable).with_name("torch-abi-audit")
    done = subprocess.run([tool, "--json", "--check", "torch", str(library)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (audited,) = json.loads(done.stdout)["bundled_libs"]
    assert audited["torch"]["stable"] and not audited["torch"]["unknown_shim_symbols"]
    assert tuple(map(int, audited["torch"]["min_torch_version"].split("."))) <= (2, 10, 0)


def test_wheel_is_of_no_one_python(tmp_path: Path) -> None:
    command = [
        "setup.py",
        "-q",
        "bdist_wheel",
        "--skip-build",
        "--dist-dir",
        str(tmp_path),
        "--bdist-dir",
        str(tmp_path / "b"),
    ]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"maskmatch-{maskmatch.__version__}-py3-none-") and not wheel.name.endswith("-any.whl")
