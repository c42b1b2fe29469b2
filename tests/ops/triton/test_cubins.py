"""Every Triton kernel, compiled ahead of time as it would be launched, for devices that need not be here.

`pytest tests/ops/triton/test_cubins.py -s` lists registers, shared memory and stack. The operators' own Python runs on
CPU tensors, with a driver that only names a target: what is compiled is what a device would get, specialised as there.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402
from triton.runtime.jit import JITFunction  # noqa: E402

from maskmatch.ops.triton import INTERPRETED  # noqa: E402

if INTERPRETED:
    pytest.skip("the kernels of this process are interpreted", allow_module_level=True)

from maskmatch.ops.triton import multiscale_pseudo_label, patch_mask, upsample_cross_entropy  # noqa: E402

pytestmark = pytest.mark.slow
CAPABILITIES = [75, 80, 90, 100, 120]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


class Target:
    """What Triton asks its driver for when it compiles; the device's index keeps the capabilities' kernels apart."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


@pytest.fixture(params=CAPABILITIES, ids=lambda capability: f"sm_{capability}")
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """The kernels that are compiled, not launched, from here on."""
    kernels: list[Any] = []
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, warmup: bool, **kwargs: Any) -> Any:
        kernels.append(run(self, *args, warmup=True, **kwargs))

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", Target(request.param))
    return kernels


def check(kernels: list[Any], names: set[str], folder: Path) -> None:
    """Every kernel has a cubin without a stack frame, and so without a spill."""
    assert {kernel.metadata.name for kernel in kernels} == names
    for kernel in kernels:
        cubin = folder / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        listed = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        usage = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", listed)
        assert usage, listed
        registers, stack, local = map(int, usage.groups())
        print(
            f"\n  sm_{kernel.metadata.target.arch} {kernel.metadata.name:20} {registers:3} registers, "
            f"{kernel.metadata.shared:5} bytes shared, {stack + local} stack and spills, "
            f"{kernel.metadata.num_warps} warps",
            end="",
        )
        assert stack == local == 0, f"{kernel.metadata.name}: {listed}"


def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offsets of 64 bits, as for tensors that need them."""
    for module in (multiscale_pseudo_label, upsample_cross_entropy):
        monkeypatch.setattr(module, "index_type", lambda *_: triton.language.int64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_upsample_cross_entropy(
    compiled: list[Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pixels = torch.zeros(1, 321, 321)

    def step(classes: int, stride: int, target: torch.dtype, plain: bool) -> None:
        logits = torch.zeros(1, classes, 320 // stride + 1, 320 // stride + 1, dtype=dtype)
        labels = pixels.to(target)
        weights: tuple[Any, ...] = (None, None) if plain else (pixels, torch.ones(classes))
        options = (None if plain else pixels, 0.95, *weights, 255, 0.0 if plain else 0.1, not plain)
        for normalize in ("all", "none"):
            upsample_cross_entropy.upsample_cross_entropy(logits, labels, *options, normalize, None, True)
        upsample_cross_entropy.upsample_cross_entropy_backward(pixels, logits, labels, pixels, *options)

    step(21, 8, torch.uint8, plain=False)
    step(255, 1, torch.int64, plain=True)
    step(3, 64, torch.int64, plain=True)
    wide(monkeypatch)
    step(21, 8, torch.uint8, plain=False)
    check(compiled, {"shift_kernel", "cell_kernel", "gather_kernel", "divide_kernel"}, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_multiscale_pseudo_label(
    compiled: list[Any], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def label(classes: int, scales: int, average: str, align_corners: bool, side: int) -> None:
        logits = [torch.zeros(1, classes, 41 + s, 41 + s, dtype=dtype) for s in range(scales)]
        flips, weights = [s % 2 for s in range(scales)], [1 / scales] * scales
        multiscale_pseudo_label.multiscale_pseudo_label(logits, side, side, flips, weights, average, align_corners)

    label(21, 3, "probability", False, 80)
    label(21, 3, "logit", False, 321)
    label(255, 1, "logit", True, 321)
    names = {"shift_kernel", "pseudo_label_kernel"}
    in_series = dtype == torch.float32  # its kernel reads a copy of the logits, which always is
    if in_series:
        names.add("pseudo_label_series_kernel")
        label(10, 2, "probability", False, 321)
        if driver._active.capability in (75, 90):  # some 20 seconds each
            label(21, 3, "probability", False, 321)
    wide(monkeypatch)
    label(150, 2, "probability", True, 80)
    if in_series:
        label(9, 2, "probability", True, 321)
    check(compiled, names, tmp_path)


@pytest.mark.parametrize("dtype", [torch.uint8, *DTYPES], ids=str)
def test_patch_mask(compiled: list[Any], dtype: torch.dtype, tmp_path: Path) -> None:
    numbers = [0.5, 0.25, 0.125]
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.zeros(2, 3, 321, 320, dtype=dtype).contiguous(memory_format=layout)
        for strategy in ("random", "block", "grid") if dtype == torch.uint8 else ("random",):
            patch_mask.patch_mask(images, 16, 0.7, torch.arange(2), strategy, numbers, numbers, numbers)
        patch_mask.patch_mask(images, 16, 0.0, torch.arange(2), "random", numbers, numbers, numbers)
    check(compiled, {"key_kernel", "select_kernel", "normalize_kernel"}, tmp_path)
