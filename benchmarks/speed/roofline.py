"""What the CUDA kernels move and compute, counted, and the time that an H200 takes for it: a prediction.

The emulator (tools/emulator) runs the kernels on one image and counts what they load, store and execute. `bytes` are
distinct 32-byte sectors a thread block, as shared memory and the first-level cache serve what a block repeats.
`least_bytes` reads every input and writes every output of the operator once. `eager_bytes` is what the torch code that
the operator replaces reads and writes, counted as the tensors that go in and out of every ATen call but views. `exps`
are exponentials and logarithms. `predicted_us` is gpu_model.py's, of the kernels in a CUDA graph.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.provenance import machine
from benchmarks.speed import ops_baseline
from benchmarks.speed.gpu_model import predicted_us
from benchmarks.speed.launches import Kernels
from benchmarks.speed.ops_cases import GPU_SCALES, GPU_SHAPES
from benchmarks.speed.selection import Selection
from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy
from tools.emulator import emulated

Shape = tuple[int, int, int, int]
# Images, classes, side and the stride of the logits.
SHAPES: dict[str, Shape] = {name: (*shape, stride) for name, (shape, stride) in GPU_SHAPES.items()}
THRESHOLD = 0.5
PATCH = 16
MASK_RATIO = 0.7

PROVIDERS = ("cuda",)
COLUMNS = (
    "operator", "shape", "case", "dtype", "bytes", "least_bytes", "ratio", "eager_bytes", "over_eager", "loads",
    "stores", "exps", "thread_blocks", "launches", "predicted_us",
)  # fmt: skip


@dataclass(frozen=True)
class Work:
    """One image of a workload: the operator, the torch code that it replaces, and the least that it can do with."""

    operator: str
    images: int
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
    kernels = None
    if nvcc := shutil.which("nvcc"):
        kernels = Kernels(emulated.KERNELS, nvcc)
    else:
        selection.skip("roofline, predicted_us: nvcc is not found")
    with emulated.backend(variant="profiled") as emulator:
        for work in all_work(selection.chosen_shapes(SHAPES)):
            emulator.module.take_counts()
            if kernels:
                launches = kernels.launches(emulator, work.fused, work.images)
                least_bytes = work.images * work.least_bytes
                predicted = {
                    "launches": len(launches),
                    "predicted_us": predicted_us(launches, least_bytes=least_bytes),
                }
            else:
                work.fused()
                predicted = {}
            yield machine("cpu") | record(work, emulator.module.take_counts(), eager_bytes(work.eager)) | predicted


def all_work(shapes: list[str]) -> Iterator[Work]:
    for shape in (SHAPES[name] for name in shapes):
        for dtype in (torch.float32, torch.bfloat16):
            yield pseudo_label(shape, dtype)
            yield loss(shape, dtype)
            yield pixel_loss(shape, dtype)
        for layout in ("contiguous", "channels_last"):
            yield masking((2 * shape[0], 3, shape[2], shape[2]), layout)


def record(work: Work, counts: dict[str, int], eager: int) -> dict[str, Any]:
    moved = counts["bytes"]
    return {
        "area": "roofline",
        "provider": "cuda",
        "predicted": True,
        "operator": work.operator,
        "shape": work.shape,
        "case": work.case,
        "dtype": str(work.dtype).removeprefix("torch."),
        "bytes": work.images * moved,
        "least_bytes": work.images * work.least_bytes,
        "ratio": moved / work.least_bytes,
        "eager_bytes": work.images * eager,
        "over_eager": eager / moved,
        "loads": work.images * counts["loads"],
        "stores": work.images * counts["stores"],
        "exps": work.images * counts["specials"],
        "thread_blocks": work.images * counts["blocks"],
    }


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


def _logits(shape: Shape, scale: float, dtype: torch.dtype) -> Tensor:
    _, classes, size, stride = shape
    side = round(size // stride * scale)
    return torch.randn(1, classes, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


def _name(shape: Shape) -> str:
    count, classes, size, stride = shape
    return f"{count}x{classes}x{size}x{size}/{stride}"


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def pseudo_label(shape: Shape, dtype: torch.dtype) -> Work:
    count, _, size, _ = shape
    scales = [_logits(shape, scale, dtype) for scale in GPU_SCALES]

    return Work(
        "multiscale_pseudo_label", count, _name(shape), "three scales", dtype,
        lambda: multiscale_pseudo_label(scales, (size, size)), lambda: ops_baseline.pseudo_label(scales, (size, size)),
        _bytes(*scales) + size * size * 5,
    )  # fmt: skip


def _pixels(shape: Shape) -> tuple[Tensor, Tensor]:
    _, classes, size, _ = shape
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (1, size, size), generator=generator)
    return target, torch.rand(1, size, size, generator=generator)


def loss(shape: Shape, dtype: torch.dtype) -> Work:
    """The summed loss of the confident pixels and its gradient, which the operator keeps in fp32."""
    logits = _logits(shape, 1.0, dtype).requires_grad_()
    target, confidence = _pixels(shape)
    small = target.to(torch.uint8)

    def eager() -> Any:
        return torch.autograd.grad(ops_baseline.mean_loss(logits, target, confidence, THRESHOLD), logits)

    def fused() -> Any:
        value = upsample_cross_entropy(logits, small, confidence=confidence, threshold=THRESHOLD)
        return torch.autograd.grad(value, logits)

    return Work(
        "upsample_cross_entropy", shape[0], _name(shape), "summed, forward and backward", dtype, fused, eager,
        _bytes(logits, small, confidence) + logits.numel() * 4,
    )  # fmt: skip


def pixel_loss(shape: Shape, dtype: torch.dtype) -> Work:
    """Every pixel's loss and its gradient; the forward keeps the log sum exp of every pixel for the backward."""
    logits = _logits(shape, 1.0, dtype).requires_grad_()
    target, confidence = _pixels(shape)
    small = target.to(torch.uint8)
    upstream = torch.ones(target.shape)

    def eager() -> Any:
        pixels = ops_baseline.pixel_loss(logits, target) * (confidence >= THRESHOLD)
        return torch.autograd.grad(pixels, logits, upstream)

    def fused() -> Any:
        value = upsample_cross_entropy(
            logits, small, confidence=confidence, threshold=THRESHOLD, normalize="none"
        )  # fmt: skip
        return torch.autograd.grad(value, logits, upstream)

    forward = _bytes(logits, small, confidence) + target.numel() * 8
    backward = _bytes(logits, small, confidence, upstream) + target.numel() * 4 + logits.nbytes
    return Work(
        "upsample_cross_entropy", shape[0], _name(shape), "every pixel, forward and backward", dtype, fused, eager,
        forward + backward,
    )  # fmt: skip


def masking(shape: tuple[int, int, int, int], layout: str, patch: int = PATCH) -> Work:
    """Hidden pixels need not be read."""
    images = torch.randint(0, 256, (1, *shape[1:]), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    seeds = torch.arange(1)
    mean, scale = torch.rand(1, 3, 1, 1), torch.rand(1, 3, 1, 1)
    grid = patch_mask(images, patch, mask_ratio=MASK_RATIO, seeds=seeds)[1]
    hidden = ops_baseline.spread(grid, patch, shape[2], shape[3])
    visible = int((~hidden).sum()) * shape[1]
    return Work(
        "patch_mask", shape[0], "x".join(map(str, shape)), layout, torch.uint8,
        lambda: patch_mask(images, patch, mask_ratio=MASK_RATIO, seeds=seeds),
        lambda: ops_baseline.masked(images, grid, patch, mean, scale),
        visible + images.numel() * 4 + _bytes(grid, seeds),
    )  # fmt: skip
