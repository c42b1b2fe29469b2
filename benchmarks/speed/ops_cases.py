"""What ops.py measures: each operator beside the torch code that it replaces, on the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch.nn import functional as F

from benchmarks.speed import ops_baseline
from benchmarks.speed.ops_baseline import resized
from maskmatch.ops import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    multiscale_pseudo_label,
    patch_mask,
    upsample_cross_entropy,
    use_backend,
)
from maskmatch.ops.reference import spread_grid

SCALES = (0.5, 0.75, 1.0)
THRESHOLD = 0.95
Shape = tuple[int, int, int]  # images, classes, side of the square images

# Batches of the public data sets, and the strides of the logits at which the loss is taken.
CPU_SHAPES: dict[str, tuple[Shape, tuple[int, ...]]] = {
    "voc": ((4, 21, 321), (8, 4)),
    "cityscapes": ((2, 19, 801), (8,)),
    "coco": ((2, 81, 513), (4,)),
    "ade20k": ((2, 150, 512), (4,)),
}
DEFAULT_SHAPES = ("voc", "cityscapes")
# Of a GPU, with one stride of the logits.
GPU_SHAPES: dict[str, tuple[Shape, int]] = {
    "voc": ((8, 21, 320), 8),
    "cityscapes": ((4, 19, 800), 8),
    "voc4": ((16, 21, 320), 4),
    "ade20k": ((8, 150, 512), 4),
}
GPU_SCALES = (0.75, 1.0, 1.25)


@dataclass(frozen=True)
class Case:
    """A workload in fp32. Speed, memory, traces and errors are all taken of `call`.

    `eager` and `fused` are the forward: what one would write with torch, and the operator. Where there is a `leaf`,
    they return a scalar whose gradient with respect to it is wanted. `error` compares what `call` returned with the
    fp64 reference. `exps` and `bytes` are the least that the forward can do with.
    """

    operator: str
    shape: str
    case: str
    eager: Callable[[], Any]
    fused: Callable[[], Any]
    error: Callable[[Any], float]
    exps: float
    bytes: float
    leaf: Tensor | None = None
    modes: tuple[str, ...] = ("forward",)

    def call(self, mode: str, forward: Callable[[], Any]) -> Callable[[], Any]:
        """`forward` without a gradient, `both` with it, or the `backward` of a forward that was taken before."""
        leaf = self.leaf
        if leaf is None or mode == "forward":
            return torch.no_grad()(forward)
        if mode == "both":
            return lambda: torch.autograd.grad(forward(), leaf)[0]
        # A compiled graph would otherwise give its buffers away in its first backward, and refuse a second.
        with functorch_config.patch(donated_buffer=False):
            value = forward()
        return lambda: torch.autograd.grad(value, leaf, retain_graph=True)[0]

    def least(self, mode: str) -> tuple[float, float]:
        """Exponentials and bytes; a backward reads a gradient that the forward has left, and writes it scaled."""
        gradient = self.leaf.numel() * 4 if self.leaf is not None else 0
        if mode == "backward":
            return 0, 2 * gradient
        return self.exps, self.bytes + (gradient if mode == "both" else 0)

    def describe(self, mode: str) -> dict[str, Any]:
        return {
            "operator": self.operator,
            "shape": self.shape,
            "case": self.case,
            "mode": mode,
            "dtype": "float32",
            "bytes": self.least(mode)[1],
        }


def relative_error(got: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((got.double() - exact).abs().max() / exact.abs().max())


def all_cases(device: str, shapes: list[str]) -> Iterator[Case]:
    for shape, strides in (CPU_SHAPES[name] for name in shapes):
        for trained in (False, True):
            yield pseudo_label(shape, trained, device)
        for stride in strides:
            yield loss(shape, stride, 0.5, "half confident", False, device, ("both", "forward", "backward"))
            for share, name in ((0.05, "few confident"), (0.95, "most confident")):
                yield loss(shape, stride, share, name, False, device)
            yield loss(shape, stride, 0.5, "half confident", True, device)
        yield ohem(shape, device)
        for layout in ("contiguous", "channels_last"):
            yield masking((2 * shape[0], 3, shape[2], shape[2]), layout, device)
        yield confusion(shape, device)


def gpu_cases(shapes: list[str]) -> Iterator[Case]:
    """A case of each operator and shape; the roofline has the same."""
    for shape, stride in (GPU_SHAPES[name] for name in shapes):
        yield pseudo_label(shape, False, "cuda", stride, GPU_SCALES)
        yield loss(shape, stride, 0.5, "half confident", False, "cuda")
        yield masking((2 * shape[0], 3, shape[2], shape[2]), "channels_last", "cuda")


def _side(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _logits(shape: Shape, stride: int, scales: tuple[float, ...], device: str) -> list[Tensor]:
    """Random logits of an image's scales."""
    count, classes, size = shape
    sides = [_side(int(size * scale), stride) for scale in scales]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(count, classes, s, s, generator=generator).mul_(2).to(device) for s in sides]


def draw_regions(count: int, classes: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images of flat regions around random points, a colour a class, and their labels."""
    points = torch.rand(count, 24, 2, generator=generator) * size
    kinds = torch.randint(0, classes, (count, 24), generator=generator)
    grid = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"), -1).float()
    nearest = torch.cdist(grid.view(1, -1, 2).expand(count, -1, -1), points).argmin(-1)
    label = kinds.gather(1, nearest).view(count, size, size)
    colours = torch.rand(classes, 3, generator=torch.Generator().manual_seed(7))
    images = colours[label].permute(0, 3, 1, 2).contiguous()
    return images + 0.02 * torch.randn(images.shape, generator=generator), label


@cache
def trained_network(classes: int) -> nn.Module:
    """A small network of stride 8 that has learned the regions, and is sure of most pixels."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    layers = [
        nn.Conv2d(3, 32, 4, 4), nn.ReLU(), nn.Conv2d(32, 128, 2, 2), nn.ReLU(), nn.Conv2d(128, 128, 1), nn.ReLU(),
        nn.Conv2d(128, classes, 1),
    ]  # fmt: skip
    network = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(network.parameters(), 2e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-2, total_steps=1500)
    for _ in range(1500):
        images, label = draw_regions(8, classes, 64, generator)
        optimizer.zero_grad()
        F.cross_entropy(network(images), label[:, 4::8, 4::8]).backward()
        optimizer.step()
        schedule.step()
    return network


def trained_logits(shape: Shape, stride: int, scales: tuple[float, ...], device: str) -> tuple[list[Tensor], Tensor]:
    """What the trained network says about drawn images at each scale, and the truth, [N, H, W]."""
    count, classes, size = shape
    images, label = draw_regions(count, classes, size, torch.Generator().manual_seed(1))
    sides = [_side(int(size * scale), stride) * 8 for scale in scales]
    network = trained_network(classes)
    with torch.no_grad():
        logits = [network(F.interpolate(images, side, mode="bilinear")) for side in sides]
    return [scale.to(device) for scale in logits], label.to(device)


def pseudo_label(shape: Shape, trained: bool, device: str, stride: int = 8, sizes: tuple[float, ...] = SCALES) -> Case:
    count, classes, size = shape
    scales = trained_logits(shape, stride, sizes, device)[0] if trained else _logits(shape, stride, sizes, device)

    @cache
    def exact() -> Tensor:
        with use_backend("reference"):
            return multiscale_pseudo_label([scale.double() for scale in scales], (size, size))[1].double()

    pixels = count * size * size
    return Case(
        "multiscale_pseudo_label", f"{count}x{classes}x{size}x{size}/{stride}",
        "trained network" if trained else "random logits",
        lambda: ops_baseline.pseudo_label(scales, (size, size)), lambda: multiscale_pseudo_label(scales, (size, size)),
        lambda result: relative_error(result[1], exact()),
        exps=pixels * classes * len(scales), bytes=pixels * 5 + sum(s.numel() for s in scales) * 4,
    )  # fmt: skip


def _pixels(shape: Shape, share: float, device: str) -> tuple[Tensor, Tensor]:
    """Labels, and confidences of which a scattered `share` reaches the threshold."""
    count, classes, size = shape
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (count, size, size), generator=generator)
    sure = torch.rand(count, size, size, generator=generator) < share
    return target.to(device), torch.where(sure, 0.99, 0.5).to(device)


def loss(
    shape: Shape, stride: int, share: float, name: str, trained: bool, device: str, modes: tuple[str, ...] = ("both",)
) -> Case:
    count, classes, size = shape
    target, confidence = _pixels(shape, share, device)
    if trained:
        (logits,), target = trained_logits(shape, stride, (1.0,), device)
    else:
        (logits,) = _logits(shape, stride, (1.0,), device)
    logits.requires_grad_()
    small = target.to(torch.uint8)

    @cache
    def exact() -> tuple[Tensor, Tensor]:
        precise = logits.detach().double().requires_grad_()
        with use_backend("reference"):
            value = upsample_cross_entropy(precise, small, confidence=confidence, threshold=THRESHOLD)
        return value.detach(), torch.autograd.grad(value, precise)[0]

    def error(result: Tensor) -> float:
        value, gradient = exact()
        return relative_error(result, gradient if result.ndim else value)

    pixels = count * size * size
    return Case(
        "upsample_cross_entropy", f"{count}x{classes}x{size}x{size}/{stride}",
        name + (", trained network" if trained else ", random logits"),
        lambda: ops_baseline.mean_loss(logits, target, confidence, THRESHOLD),
        lambda: upsample_cross_entropy(logits, small, confidence=confidence, threshold=THRESHOLD),
        error, exps=pixels * classes, bytes=pixels * 5 + logits.numel() * 4, leaf=logits, modes=modes,
    )  # fmt: skip


def ohem(shape: Shape, device: str) -> Case:
    """The mean loss of the hardest quarter of the pixels, forward and backward."""
    count, classes, size = shape
    logits = _logits(shape, 8, (1.0,), device)[0].requires_grad_()
    target, _ = _pixels(shape, 1.0, device)
    small = target.to(torch.uint8)
    hardest = target.numel() // 4

    def eager() -> Tensor:
        return ops_baseline.pixel_loss(logits, target).flatten().topk(hardest, sorted=False).values.mean()

    def fused() -> Tensor:
        pixels = upsample_cross_entropy(logits, small, normalize="none")
        return pixels.flatten().topk(hardest, sorted=False).values.mean()

    @cache
    def exact() -> Tensor:
        precise = logits.detach().double().requires_grad_()
        with use_backend("reference"):
            pixels = upsample_cross_entropy(precise, small, normalize="none").flatten()
        return torch.autograd.grad(pixels.topk(hardest).values.mean(), precise)[0]

    pixels = count * size * size
    return Case(
        "upsample_cross_entropy", f"{count}x{classes}x{size}x{size}/8", "OHEM on the per-pixel loss", eager, fused,
        lambda gradient: relative_error(gradient, exact()),
        exps=pixels * classes, bytes=pixels * 5 + logits.numel() * 4, leaf=logits, modes=("both",),
    )  # fmt: skip


def masking(shape: tuple[int, int, int, int], layout: str, device: str) -> Case:
    count, _, height, width = shape
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    if layout == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    seeds = torch.arange(count, device=device)
    mean = torch.tensor(IMAGENET_MEAN, device=device).view(1, -1, 1, 1) * 255
    scale = 1 / (torch.tensor(IMAGENET_STD, device=device).view(1, -1, 1, 1) * 255)
    patch, ratio = 32, 0.7
    rows, columns = (height + patch - 1) // patch, (width + patch - 1) // patch
    hidden = int(ratio * rows * columns + 0.5)

    def eager() -> tuple[Tensor, Tensor]:
        grid = ops_baseline.random_grid(count, rows, columns, hidden, images.device)
        return ops_baseline.masked(images, grid, patch, mean, scale), grid

    def error(result: tuple[Tensor, Tensor]) -> float:
        output, grid = result
        if int(grid.sum()) != hidden * count:
            return float("inf")
        exact = ((images.double() - mean) * scale).masked_fill_(spread_grid(grid, patch, height, width), 0.0)
        return relative_error(output, exact)

    return Case(
        "patch_mask", "x".join(map(str, shape)), layout, eager,
        lambda: patch_mask(images, patch, mask_ratio=ratio, seeds=seeds), error, exps=0, bytes=images.numel() * 5,
    )  # fmt: skip


def confusion(shape: Shape, device: str) -> Case:
    """A confusion matrix of upsampled logits."""
    count, classes, size = shape
    logits = _logits(shape, 8, (1.0,), device)[0]
    target, _ = _pixels(shape, 1.0, device)

    small = target.to(torch.int32)

    def matrix(label: Tensor) -> Tensor:
        pair = (small * classes).add_(label)
        return torch.bincount(pair.flatten(), minlength=classes * classes)

    def error(result: Tensor) -> float:
        exact = matrix(F.interpolate(logits.double(), (size, size), mode="bilinear").argmax(1))
        return float((result - exact).abs().sum() / exact.sum())

    pixels = count * size * size
    return Case(
        "multiscale_pseudo_label", f"{count}x{classes}x{size}x{size}/8", "one scale and bincount",
        lambda: matrix(resized(logits, (size, size)).argmax(1)),
        lambda: matrix(multiscale_pseudo_label([logits], (size, size))[0]), error,
        exps=pixels * classes, bytes=pixels * 13 + logits.numel() * 4,
    )  # fmt: skip
