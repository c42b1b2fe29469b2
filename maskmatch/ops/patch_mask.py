"""Normalise images and hide patches of them, in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskmatch.ops import _backend
from maskmatch.ops._checks import check_choice, check_number, check_tensor
from maskmatch.ops.reference import hidden_patches

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
        mean, std: one number a channel, in units of [0, 1] images; ImageNet's by default.
        fill: colour of hidden pixels in the same units, one number or one a channel; the mean by default, which
            is 0 after normalisation.

    Returns:
        The images, float32 [N, C, H, W] for uint8 and else of the images' dtype, and the patch grid, bool
        [N, ceil(H / p), ceil(W / p)], True where hidden. Gradients flow to float images.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or range.
    """
    check_tensor("images", images, "[N, C, H, W]", _IMAGE_DTYPES)
    count, channels, height, width = images.shape
    if channels < 1 or height < 1 or width < 1:
        raise ValueError(f"images must hold at least one channel and pixel, got {list(images.shape)}")
    if isinstance(patch_size, bool) or not isinstance(patch_size, int):
        raise TypeError(f"patch_size must be an integer, got {type(patch_size).__name__}")
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")
    ratio = check_number("mask_ratio", mask_ratio, 0, 1)
    check_choice("strategy", strategy, STRATEGIES)
    colours = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
    if min(colours[1]) <= 0:
        raise ValueError(f"std must be positive, got {list(std)}")
    if fill is None:
        fill = colours[0]
    elif isinstance(fill, (int, float)):
        fill = [float(fill)] * channels
    colours = *colours, _per_channel("fill", fill, channels)

    patches = -(-height // patch_size) * -(-width // patch_size)
    if seeds is None:
        if hidden_patches(patches, ratio) > 0:
            raise ValueError(f"seeds must be int64 [N] = [{count}] where mask_ratio is {mask_ratio}, got None")
        seeds = torch.zeros(count, dtype=torch.int64, device=images.device)
    check_tensor("seeds", seeds, "[N]", (torch.int64,), device=images.device)
    if seeds.shape[0] != count:
        raise ValueError(f"seeds must be [N] = [{count}], got {list(seeds.shape)}")
    implementation = _backend.implementation("patch_mask", images)
    return implementation(images, patch_size, ratio, seeds, strategy, *colours)


def _per_channel(name: str, values: Sequence[float], channels: int) -> list[float]:
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name} must be a list of one number a channel, got {type(values).__name__}")
    if len(values) != channels:
        raise ValueError(f"{name} must have one number for each of {channels} channels, got {list(values)}")
    return [check_number(f"{name}[{i}]", value, -1e6, 1e6) for i, value in enumerate(values)]
