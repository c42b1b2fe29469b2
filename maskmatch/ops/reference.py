"""The definition of every operator in plain PyTorch, differentiable by autograd and exact in fp64.

The functions take what the public functions have already checked and completed, in the order of the schemas in
csrc/library.cpp. fp16 and bf16 are computed in fp32, fp64 in fp64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from maskmatch.ops.philox import PATCH_MASK_DOMAIN, UNIFORM_DOMAIN, philox4x32

KEY_STREAM = 0
OFFSET_STREAM = 1
_BAYER_BITS = 3  # an 8 x 8 threshold matrix


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that an operator computes in: fp64 for fp64, else fp32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def hidden_patches(patches: int, mask_ratio: float) -> int:
    """How many of an image's patches are hidden."""
    return math.floor(mask_ratio * patches + 0.5)


def patch_order(rows: int, columns: int, seeds: Tensor, strategy: str) -> Tensor:
    """The key of every patch, int64 [N, rows, columns]; the patches with the lowest keys are hidden.

    random: a Philox word a patch.
    block:  a Philox word a square block, with sides of a quarter of the grid's shorter side (2 patches at the
            least) and a random offset of the blocks.
    grid:   Bayer's 8 x 8 ordered-dither matrix at a random offset: regular at every ratio, and at 0.75 exactly the
            grid that keeps one patch of every 2 x 2.
    """
    row = torch.arange(rows, device=seeds.device)[None, :, None]
    column = torch.arange(columns, device=seeds.device)[None, None, :]
    seeds = seeds[:, None, None]
    if strategy == "random":
        return philox4x32(seeds, row * columns + column, KEY_STREAM, PATCH_MASK_DOMAIN)[0]
    row_word, column_word, _, _ = philox4x32(seeds, torch.zeros_like(seeds), OFFSET_STREAM, PATCH_MASK_DOMAIN)
    if strategy == "block":
        side = max(2, (min(rows, columns) + 3) // 4)
        blocks_across = (columns + side - 1) // side + 1
        block_row = (row + row_word % side) // side
        block_column = (column + column_word % side) // side
        return philox4x32(seeds, block_row * blocks_across + block_column, KEY_STREAM, PATCH_MASK_DOMAIN)[0]
    row, column = row + (row_word & 7), column + (column_word & 7)
    key = torch.zeros_like(row + column)
    for bit in range(_BAYER_BITS):
        low_row, low_column = (row >> bit) & 1, (column >> bit) & 1
        key = key * 4 + (low_row ^ low_column) * 2 + low_row
    return key


def uniform(seeds: Tensor, count: int, stream: int) -> Tensor:
    """Uniform numbers in [0, 1), float32 [N, count]."""
    counter = torch.arange((count + 3) // 4, device=seeds.device)
    words = torch.stack(philox4x32(seeds[:, None], counter[None, :], stream, UNIFORM_DOMAIN), dim=-1)
    return (words.flatten(1)[:, :count] >> 8).float() * 2.0**-24


@torch.library.custom_op("maskmatch::reference_patch_grid", mutates_args=())
def patch_grid(rows: int, columns: int, mask_ratio: float, seeds: Tensor, strategy: str) -> Tensor:
    """Which patches are hidden, bool [N, rows, columns]: the lowest keys, of equal ones the lower index.

    An operator of its own, because torch.compile takes many minutes over Philox's integer rounds.
    """
    patches = rows * columns
    hidden = hidden_patches(patches, mask_ratio)
    order = patch_order(rows, columns, seeds, strategy).flatten(1)
    # The index in the low bits makes the keys distinct; 32 + 31 bits fit.
    distinct = (order << 31) + torch.arange(patches, device=seeds.device)
    rank = distinct.argsort(dim=1).argsort(dim=1)
    return (rank < hidden).view(-1, rows, columns)


@patch_grid.register_fake
def _(rows: int, columns: int, mask_ratio: float, seeds: Tensor, strategy: str) -> Tensor:
    return seeds.new_empty((seeds.shape[0], rows, columns), dtype=torch.bool)


def patch_mask(
    images: Tensor,
    patch_size: int,
    mask_ratio: float,
    seeds: Tensor,
    strategy: str,
    mean: Sequence[float],
    std: Sequence[float],
    fill: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Normalised images with hidden patches filled, and the patch grid."""
    height, width = images.shape[-2:]
    rows, columns = (height + patch_size - 1) // patch_size, (width + patch_size - 1) // patch_size
    grid = patch_grid(rows, columns, mask_ratio, seeds, strategy)

    dtype = compute_dtype(images)

    def per_channel(values: Sequence[float]) -> Tensor:
        # Filled where they are: a copy from the host would wait for the device.
        filled = [torch.full((), value, dtype=dtype, device=images.device) for value in values]
        return torch.stack(filled).view(1, -1, 1, 1)

    pixels = images.to(dtype)
    if images.dtype == torch.uint8:
        pixels = pixels / 255
    normalised = (pixels - per_channel(mean)) / per_channel(std)
    filled = (per_channel(fill) - per_channel(mean)) / per_channel(std)
    output = torch.where(spread_grid(grid, patch_size, height, width), filled, normalised)
    if images.dtype != torch.uint8:
        output = output.to(images.dtype)
    return output, grid


def spread_grid(grid: Tensor, patch_size: int, height: int, width: int) -> Tensor:
    """The patch grid at pixels, bool [N, 1, H, W]."""
    row = torch.arange(height, device=grid.device) // patch_size
    column = torch.arange(width, device=grid.device) // patch_size
    return grid[:, row][:, :, column][:, None]


def _resize(logits: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    logits = logits.to(compute_dtype(logits))
    return F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=align_corners)


def multiscale_pseudo_label(
    logits: Sequence[Tensor],
    height: int,
    width: int,
    flipped: Sequence[bool],
    weights: Sequence[float],
    average: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Label uint8 [N, H, W] and confidence fp32 [N, H, W]; the weights sum to one."""
    total = None
    for scale, flip, weight in zip(logits, flipped, weights, strict=True):
        resized = _resize(scale, height, width, align_corners)
        if flip:
            resized = resized.flip(-1)
        values = resized.softmax(dim=1) if average == "probability" else resized
        total = values * weight if total is None else total + values * weight
    assert total is not None  # noqa: S101 - the public function refuses an empty list
    probability = total if average == "probability" else total.softmax(dim=1)
    confidence, label = probability.max(dim=1)
    return label.to(torch.uint8), confidence.to(torch.float32)


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    confidence: Tensor | None,
    threshold: float,
    pixel_weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    align_corners: bool,
    normalize: str,
    divisor: Tensor | None,
) -> Tensor:
    """The divided sum of the loss, or with `none` every pixel's; see csrc/library.cpp."""
    height, width = target.shape[-2:]
    classes = logits.shape[1]
    log_probability = _resize(logits, height, width, align_corners).log_softmax(dim=1)
    valid = target != ignore_index
    index = torch.where(valid, target, 0).long()
    loss = -log_probability.gather(1, index[:, None])[:, 0]
    if class_weight is not None:
        loss = loss * class_weight[index]
    if label_smoothing:
        weighted = log_probability if class_weight is None else log_probability * class_weight[:, None, None]
        loss = (1 - label_smoothing) * loss - label_smoothing / classes * weighted.sum(dim=1)
    keep = valid if confidence is None else valid & (confidence >= threshold)
    if pixel_weight is not None:
        loss = loss * pixel_weight
    loss = torch.where(keep, loss, 0)
    if normalize == "none":
        return loss
    if divisor is None:  # where nothing counts, the sum is 0
        return loss.sum() / (valid if normalize == "all" else keep).sum().clamp_min(1)
    return loss.sum() / torch.where(divisor > 0, divisor, torch.inf)
