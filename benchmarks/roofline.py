"""What the CUDA kernels move and compute, counted, and the time that GPUs need at least for as much: a prediction.

The emulator (csrc/emulator) runs the kernels and counts their own loads and stores. `bytes` are distinct 32-byte
sectors a thread block, as shared memory and the first-level cache serve what a block repeats. `least_bytes` reads every
input and writes every output of the operator once. `eager_bytes` is what the torch code that the operator replaces
reads and writes, counted as the tensors that go in and out of every ATen call but views. `exps` are exponentials and
logarithms. The predictions take the public bandwidth and rate of special functions, whichever takes longer, and a GPU
that is full: one whose multiprocessors outnumber `thread_blocks` takes longer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import baselines
import torch
from measure import machine
from ops_cases import DEFAULT_SHAPES, SHAPES
from selection import Selection
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "csrc" / "emulator"))
import emulated

SCALES = (0.5, 0.75, 1.0)
THRESHOLD = 0.5
PATCH = 16
MASK_RATIO = 0.7

# Gigabytes a second, and multiprocessors times the 16 special functions that each computes a clock at the boost clock,
# from NVIDIA's data sheets: A100 SXM 80 GB, H100 SXM, GeForce RTX 4090, B200 SXM.
DEVICES = {
    "a100": (2039.0, 108 * 16 * 1.41),
    "h100": (3350.0, 132 * 16 * 1.98),
    "rtx4090": (1008.0, 128 * 16 * 2.52),
    "b200": (8000.0, 148 * 16 * 1.97),
}
PROVIDERS = ("cuda",)
COLUMNS = (
    "operator", "shape", "case", "dtype", "bytes", "least_bytes", "ratio", "eager_bytes", "over_eager", "loads",
    "stores", "exps", "thread_blocks", *(f"predicted_us_{device}" for device in DEVICES),
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A workload: the operator, the torch code that it replaces, and the least that it can do with."""

    operator: str
    shape: str
    case: str
    dtype: torch.dtype
    fused: Callable[[], Any]
    eager: Callable[[], Any]
    least_bytes: int


def run(selection: Selection) -> Iterator[dict[str, Any]]:
    """One record for each workload; it is counted on the CPU, whatever the device."""
    if emulated.compiler() is None:
        return selection.skip("roofline: no C++ compiler for the emulator")
    if not selection.chosen_providers(PROVIDERS):
        return None
    with emulated.backend() as emulator:
        for work in all_work(selection.chosen_shapes(SHAPES if selection.shapes else DEFAULT_SHAPES)):
            emulator.module.take_counts()
            work.fused()
            yield machine("cpu") | record(work, emulator.module.take_counts(), eager_bytes(work.eager))


def all_work(shapes: list[str]) -> Iterator[Work]:
    for shape, strides in (SHAPES[name] for name in shapes):
        for dtype in (torch.float32, torch.float16):
            for stride in strides:
                yield pseudo_label(shape, stride, dtype)
                yield loss(shape, stride, dtype)
                yield pixel_loss(shape, stride, dtype)
        for layout in ("contiguous", "channels_last"):
            yield masking((2 * shape[0], 3, shape[2], shape[2]), layout)


def record(work: Work, counts: dict[str, int], eager: int) -> dict[str, Any]:
    moved, exps = counts["bytes"], counts["specials"]
    result = {
        "area": "roofline",
        "provider": "cuda",
        "predicted": True,
        "operator": work.operator,
        "shape": work.shape,
        "case": work.case,
        "dtype": str(work.dtype).removeprefix("torch."),
        "bytes": moved,
        "least_bytes": work.least_bytes,
        "ratio": moved / work.least_bytes,
        "eager_bytes": eager,
        "over_eager": eager / moved,
        "loads": counts["loads"],
        "stores": counts["stores"],
        "exps": exps,
        "thread_blocks": counts["blocks"],
    }
    for name, (gigabytes, gigaexps) in DEVICES.items():
        result[f"predicted_us_{name}_bytes"] = moved / gigabytes / 1e3
        result[f"predicted_us_{name}_exps"] = exps / gigaexps / 1e3
        result[f"predicted_us_{name}"] = max(moved / gigabytes, exps / gigaexps) / 1e3
        result[f"predicted_us_{name}_eager"] = eager / gigabytes / 1e3
    return result


class _Traffic(TorchDispatchMode):
    """Sums the bytes of the tensors that go in and out of ATen calls."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func is not torch.ops.aten.detach.default:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.untyped_storage().nbytes() for tensor in tensors)
        return result


def eager_bytes(eager: Callable[[], Any]) -> int:
    """An expanded tensor counts as the memory that it has."""
    with _Traffic() as traffic:
        eager()
    return traffic.bytes


def _logits(shape: tuple[int, int, int], stride: int, scale: float, dtype: torch.dtype) -> Tensor:
    count, classes, size = shape
    side = (int(size * scale) - 1) // stride + 1
    return torch.randn(count, classes, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


def _name(shape: tuple[int, int, int], stride: int) -> str:
    count, classes, size = shape
    return f"{count}x{classes}x{size}x{size}/{stride}"


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def pseudo_label(shape: tuple[int, int, int], stride: int, dtype: torch.dtype) -> Work:
    count, _, size = shape
    scales = [_logits(shape, stride, scale, dtype) for scale in SCALES]

    return Work(
        "multiscale_pseudo_label", _name(shape, stride), "three scales", dtype,
        lambda: multiscale_pseudo_label(scales, (size, size)), lambda: baselines.pseudo_label(scales, (size, size)),
        _bytes(*scales) + count * size * size * 5,
    )  # fmt: skip


def _pixels(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    count, classes, size = shape
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (count, size, size), generator=generator)
    return target, torch.rand(count, size, size, generator=generator)


def loss(shape: tuple[int, int, int], stride: int, dtype: torch.dtype) -> Work:
    """The summed loss of the confident pixels and its gradient, which the operator keeps in fp32."""
    logits = _logits(shape, stride, 1.0, dtype).requires_grad_()
    target, confidence = _pixels(shape)
    small = target.to(torch.uint8)

    def eager() -> Any:
        return torch.autograd.grad(baselines.mean_loss(logits, target, confidence, THRESHOLD), logits)

    def fused() -> Any:
        value = upsample_cross_entropy(logits, small, confidence=confidence, threshold=THRESHOLD)
        return torch.autograd.grad(value, logits)

    return Work(
        "upsample_cross_entropy", _name(shape, stride), "summed, forward and backward", dtype, fused, eager,
        _bytes(logits, small, confidence) + logits.numel() * 4,
    )  # fmt: skip


def pixel_loss(shape: tuple[int, int, int], stride: int, dtype: torch.dtype) -> Work:
    """Every pixel's loss and its gradient; the forward keeps the log sum exp of every pixel for the backward."""
    logits = _logits(shape, stride, 1.0, dtype).requires_grad_()
    target, confidence = _pixels(shape)
    small = target.to(torch.uint8)
    upstream = torch.ones(target.shape)

    def eager() -> Any:
        pixels = baselines.pixel_loss(logits, target) * (confidence >= THRESHOLD)
        return torch.autograd.grad(pixels, logits, upstream)

    def fused() -> Any:
        value = upsample_cross_entropy(
            logits, small, confidence=confidence, threshold=THRESHOLD, normalize="none"
        )  # fmt: skip
        return torch.autograd.grad(value, logits, upstream)

    forward = _bytes(logits, small, confidence) + target.numel() * 8
    backward = _bytes(logits, small, confidence, upstream) + target.numel() * 4 + logits.nbytes
    return Work(
        "upsample_cross_entropy", _name(shape, stride), "every pixel, forward and backward", dtype, fused, eager,
        forward + backward,
    )  # fmt: skip


def masking(shape: tuple[int, int, int, int], layout: str) -> Work:
    """Hidden pixels need not be read."""
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    seeds = torch.arange(shape[0])
    mean, scale = torch.rand(1, 3, 1, 1), torch.rand(1, 3, 1, 1)
    grid = patch_mask(images, PATCH, mask_ratio=MASK_RATIO, seeds=seeds)[1]
    hidden = baselines.spread(grid, PATCH, shape[2], shape[3])
    visible = int((~hidden).sum()) * shape[1]
    return Work(
        "patch_mask", "x".join(map(str, shape)), layout, torch.uint8,
        lambda: patch_mask(images, PATCH, mask_ratio=MASK_RATIO, seeds=seeds),
        lambda: baselines.masked(images, grid, PATCH, mean, scale),
        visible + images.numel() * 4 + _bytes(grid, seeds),
    )  # fmt: skip
