"""patch_mask: normalise images and hide patches of them, in one pass. The function, its checks, fake and autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskmatch.ops import _backend, _library, reference
from maskmatch.ops._checks import MAX_SIDE, check_choice, check_integer, check_number, check_sides, check_tensor
from maskmatch.ops.reference import hidden_patches, spread_grid

STRATEGIES = ("random", "block", "grid")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_IMAGE_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def patch_mask(
    images: Tensor,
    patch_size: int,
    *,
    mask_ratio: float,
    seeds: Tensor | None = None,
    strategy: str = "random",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    fill: float | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalised images with hidden patches filled, and which patches are hidden.

    output[n, c, y, x] = (images[n, c, y, x] - mean[c]) / std[c], with fill[c] in the place of a hidden pixel;
    uint8 images are divided by 255 first. Of the P = ceil(H / p) * ceil(W / p) patches, floor(mask_ratio * P + 0.5)
    are hidden in every image: those with the lowest keys, of equal keys the lower index. Keys come from Philox
    4x32-10 keyed by (seed, patch), so that a sample's mask depends on its seed alone.

    Args:
        images: uint8, or float in [0, 1], [N, C, H, W]; contiguous or channels-last memory is kept.
        patch_size: side of a patch in pixels, p.
        mask_ratio: share of hidden patches, in [0, 1]; 0 only normalises.
        seeds: int64 [N] on the images' device; may be left out where no patch is hidden.
        strategy: `random` patches, `block` (square blocks of patches) or `grid` (a regular pattern).
        mean: one number a channel, in units of [0, 1] images; ImageNet's by default.
        std: the same.
        fill: colour of hidden pixels in the same units, one number or one a channel; the mean by default, which
            is 0 after normalisation.

    Returns:
        The images, float32 [N, C, H, W] for uint8 and else of the images' dtype, and the patch grid, bool
        [N, ceil(H / p), ceil(W / p)], True where hidden. Gradients flow to float images.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or range.
    """
    channels = _check_images(images)
    check_integer("patch_size", patch_size, 1, MAX_SIDE)
    ratio = check_number("mask_ratio", mask_ratio, 0, 1)
    check_choice("strategy", strategy, STRATEGIES)
    means, stds = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
    if min(stds) <= 0:
        raise ValueError(f"std must be positive, got {list(std)}")
    if isinstance(fill, (int, float)):
        fill = [fill] * channels
    fills = means if fill is None else _per_channel("fill", fill, channels)
    seeds = _check_seeds(seeds, images, patch_size, mask_ratio)
    implementation = _backend.implementation("patch_mask", images)
    return implementation(images, patch_size, ratio, seeds, strategy, means, stds, fills)


def _check_images(images: Tensor) -> int:
    """The number of channels."""
    check_tensor("images", images, "[N, C, H, W]", _IMAGE_DTYPES)
    check_sides("images", images)
    channels = images.shape[1]
    if channels < 1:
        raise ValueError(f"images must have at least one channel, got {list(images.shape)}")
    return channels


def _check_seeds(seeds: Tensor | None, images: Tensor, patch_size: int, mask_ratio: float) -> Tensor:
    """One a sample; zeros where none are needed."""
    count = images.shape[0]
    if seeds is None:
        rows, columns = _grid_size(images, patch_size)
        if hidden_patches(rows * columns, mask_ratio) > 0:
            raise ValueError(f"seeds must be int64 [N] = [{count}] where mask_ratio is {mask_ratio}, got None")
        seeds = torch.zeros(count, dtype=torch.int64, device=images.device)
    check_tensor("seeds", seeds, "[N]", (torch.int64,), device=images.device)
    if seeds.shape[0] != count:
        raise ValueError(f"seeds must be [N] = [{count}], got {list(seeds.shape)}")
    return seeds


def _per_channel(name: str, values: Sequence[float], channels: int) -> list[float]:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name} must be a list of one number a channel, got {type(values).__name__}")
    if len(values) != channels:
        raise ValueError(f"{name} must have one number for each of {channels} channels, got {list(values)}")
    return [check_number(f"{name}[{i}]", value, -1e6, 1e6) for i, value in enumerate(values)]


def _grid_size(images: Tensor, patch_size: int) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return (height + patch_size - 1) // patch_size, (width + patch_size - 1) // patch_size


def memory_format(images: Tensor) -> torch.memory_format:
    """The layout of the output: channels-last for channels-last images, else contiguous."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def fake(images: Tensor, patch_size: int, *rest: Any) -> tuple[Tensor, Tensor]:
    """Shapes, dtypes and layouts of the results."""
    check_tensor("images", images, "[N, C, H, W]", _IMAGE_DTYPES)
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")
    dtype = torch.float32 if images.dtype == torch.uint8 else images.dtype
    output = torch.empty_like(images, dtype=dtype, memory_format=memory_format(images))
    return output, images.new_empty((images.shape[0], *_grid_size(images, patch_size)), dtype=torch.bool)


def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.patch_size, ctx.std = inputs[1], inputs[6]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def backward(ctx: Any, grad_output: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    """The visible pixels' gradients, divided by std: a number a channel, so that nothing waits for the device."""
    (grid,) = ctx.saved_tensors
    visible = torch.stack([channel / std for channel, std in zip(grad_output.unbind(1), ctx.std, strict=True)], dim=1)
    return torch.where(spread_grid(grid, ctx.patch_size, *grad_output.shape[-2:]), 0, visible), *[None] * 7


def attach(namespace: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Give torch.ops.NAMESPACE's operator its fake and autograd; returns the function that a backend offers."""
    torch.library.register_fake(f"{namespace}::patch_mask", fake)
    torch.library.register_autograd(f"{namespace}::patch_mask", backward, setup_context=setup_context)
    operator: Callable[..., tuple[Tensor, Tensor]] = getattr(torch.ops, namespace).patch_mask.default
    return operator


def _reference(images: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    """The definition, in the layout of the images."""
    output, grid = reference.patch_mask(images, *rest)
    return output.contiguous(memory_format=memory_format(images)), grid


_backend.register("reference", "patch_mask", _reference)
if _library.problems["cpp"] is None:
    _backend.register_compiled("patch_mask", attach("maskmatch"))
