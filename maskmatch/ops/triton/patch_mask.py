"""Triton kernels of patch_mask: keys, the patch grid by selection of the lowest ones, then one pass over the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskmatch.ops._patch_mask import attach, memory_format
from maskmatch.ops.philox import PATCH_MASK_DOMAIN
from maskmatch.ops.reference import KEY_STREAM, OFFSET_STREAM, hidden_patches
from maskmatch.ops.triton._sampling import on_device_of

_BLOCK = 1024
_KEY_STREAM = tl.constexpr(KEY_STREAM)
_OFFSET_STREAM = tl.constexpr(OFFSET_STREAM)
_DOMAIN = tl.constexpr(PATCH_MASK_DOMAIN)


@triton.jit
def _philox(seed, counter, STREAM: tl.constexpr):
    """The first two words at a counter below 2**32, as int64; maskmatch/ops/philox.py defines the generator."""
    zero = counter * 0
    word0, word1, _, _ = tl.philox(seed, counter, zero, zero + STREAM, zero + _DOMAIN)
    return word0.to(tl.int64), word1.to(tl.int64)


@triton.jit(do_not_specialize=["rows", "columns"])
def key_kernel(
    seeds, keys, rows: tl.int32, columns: tl.int32, STRATEGY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The key of BLOCK patches of one image, made distinct by their index in the low bits.

    seeds: [N] int64, contiguous.
    keys: [N, rows * columns] int64, written.
    """
    program = tl.program_id(0)
    patches = rows * columns
    blocks = tl.cdiv(patches, BLOCK)
    n = (program // blocks).to(tl.int64)
    patch = program % blocks * BLOCK + tl.arange(0, BLOCK)
    seed = tl.load(seeds + n)
    row, column = patch // columns, patch % columns
    if STRATEGY == "random":
        key, _ = _philox(seed, patch, _KEY_STREAM)
    else:
        row_word, column_word = _philox(seed, tl.full([BLOCK], 0, tl.int32), _OFFSET_STREAM)
        if STRATEGY == "block":
            side = tl.maximum(2, (tl.minimum(rows, columns) + 3) // 4).to(tl.int64)
            blocks_across = (columns + side - 1) // side + 1
            block = (row + row_word % side) // side * blocks_across + (column + column_word % side) // side
            key, _ = _philox(seed, block.to(tl.int32), _KEY_STREAM)
        else:
            row, column = row + (row_word & 7), column + (column_word & 7)
            key = tl.zeros([BLOCK], tl.int64)
            for bit in tl.static_range(3):
                low_row, low_column = (row >> bit) & 1, (column >> bit) & 1
                key = key * 4 + (low_row ^ low_column) * 2 + low_row
    tl.store(keys + n * patches + patch, (key << 31) + patch, mask=patch < patches)


@triton.jit(do_not_specialize=["patches", "hidden"])
def select_kernel(keys, grid, patches: tl.int32, hidden: tl.int32, BLOCK: tl.constexpr):
    """Which patches of one image are hidden: those with the `hidden` lowest keys.

    The last hidden key is found bit by bit from the highest on: a bit is set where fewer than `hidden` keys lie below.

    keys: [N, patches] int64, distinct and not negative.
    grid: [N, patches] bool, written.
    """
    image = tl.program_id(0).to(tl.int64) * patches
    last = tl.full([], 0, tl.int64)
    bit = tl.full([], 1 << 62, tl.int64)
    for _ in range(63):
        candidate = last | bit
        bit = bit >> 1
        below = tl.zeros([BLOCK], tl.int32)
        for first in range(0, patches, BLOCK):
            patch = first + tl.arange(0, BLOCK)
            key = tl.load(keys + image + patch, mask=patch < patches, other=candidate)
            below += (key < candidate).to(tl.int32)
        last = tl.where(tl.sum(below, axis=0) < hidden, candidate, last)
    for first in range(0, patches, BLOCK):
        patch = first + tl.arange(0, BLOCK)
        key = tl.load(keys + image + patch, mask=patch < patches, other=0)
        tl.store(grid + image + patch, key <= last, mask=patch < patches)


@triton.jit
def _of_channel(values, channel, CHANNELS: tl.constexpr):
    """values[channel], where the values are scalar arguments."""
    chosen = channel * 0.0
    for c in tl.static_range(CHANNELS):
        chosen = tl.where(channel == c, values[c], chosen)
    return chosen


@triton.jit(do_not_specialize=["scale", "bias", "fill", "height", "width", "patch_size", "rows", "columns"])
def normalize_kernel(
    images, grid, output, scale, bias, fill,
    height: tl.int32, width: tl.int32, patch_size: tl.int32, rows: tl.int32, columns: tl.int32,
    CHANNELS_LAST: tl.constexpr, CHANNELS: tl.constexpr, INDEX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """image * scale + bias, or `fill` where a patch is hidden, for BLOCK elements of one row of pixels.

    images: [N, C, H, W], or channels-last [N, H, W, C]; uint8, fp32, fp16 or bf16, dense.
    grid: [N, rows, columns] bool, or None where nothing is hidden.
    output: like images; fp32 for uint8.
    scale, bias, fill: C fp32 numbers each.
    height, width, patch_size, rows, columns: H, W, the patches' side and their numbers.
    """
    program = tl.program_id(0)
    length = width.to(INDEX)  # elements a row
    if CHANNELS_LAST:
        length = length * CHANNELS
    blocks = tl.cdiv(length, BLOCK).to(tl.int32)
    line = (program // blocks).to(tl.int64)  # of all images
    n, y = line // height, line % height
    element = (program % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = element < length
    x = element
    if CHANNELS_LAST:
        x = element // CHANNELS
    hidden = element < 0
    if grid is not None:
        patch = (n * rows + y // patch_size) * columns + x // patch_size
        hidden = tl.load(grid + patch, mask=inside, other=0).to(tl.int1)
    if CHANNELS_LAST:
        channel = (element - x * CHANNELS).to(tl.int32)
        at = line * length + element
        value = tl.load(images + at, mask=inside, other=0).to(tl.float32)
        value = value * _of_channel(scale, channel, CHANNELS) + _of_channel(bias, channel, CHANNELS)
        value = tl.where(hidden, _of_channel(fill, channel, CHANNELS), value)
        tl.store(output + at, value.to(output.dtype.element_ty), mask=inside)
    else:
        for c in tl.static_range(CHANNELS):
            at = ((n * CHANNELS + c) * height + y) * width + element
            value = tl.load(images + at, mask=inside, other=0).to(tl.float32) * scale[c] + bias[c]
            value = tl.where(hidden, fill[c], value)
            tl.store(output + at, value.to(output.dtype.element_ty), mask=inside)


@torch.library.custom_op("maskmatch_triton::patch_mask", mutates_args=())
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
    """Normalised images and the patch grid, as csrc/library.cpp describes them."""
    count, channels, height, width = images.shape
    rows, columns = triton.cdiv(height, patch_size), triton.cdiv(width, patch_size)
    with on_device_of(images):
        grid = _patch_grid(rows, columns, mask_ratio, seeds.contiguous(), strategy)
        layout = memory_format(images)
        images = images.contiguous(memory_format=layout)
        dtype = torch.float32 if images.dtype == torch.uint8 else images.dtype
        output = torch.empty_like(images, dtype=dtype, memory_format=layout)
        channels_last = layout == torch.channels_last
        length = width * channels if channels_last else width
        block = min(_BLOCK, triton.next_power_of_2(length))
        programs = count * height * triton.cdiv(length, block)
        unit = 255 if images.dtype == torch.uint8 else 1
        if programs:
            normalize_kernel[(programs,)](
                images, grid if hidden_patches(rows * columns, mask_ratio) else None, output,
                tuple(1 / (unit * s) for s in std), tuple(-m / s for m, s in zip(mean, std, strict=True)),
                tuple((f - m) / s for f, m, s in zip(fill, mean, std, strict=True)),
                height, width, patch_size, rows, columns, channels_last, channels,
                tl.int64 if length + block >= 2**31 else tl.int32, block,
            )  # fmt: skip
    return output, grid


def _patch_grid(rows: int, columns: int, mask_ratio: float, seeds: Tensor, strategy: str) -> Tensor:
    """Which patches are hidden, bool [N, rows, columns]."""
    count, patches = len(seeds), rows * columns
    hidden = hidden_patches(patches, mask_ratio)
    grid = torch.zeros((count, rows, columns), dtype=torch.bool, device=seeds.device)
    if count and hidden:
        keys = torch.empty((count, patches), dtype=torch.int64, device=seeds.device)
        block = min(_BLOCK, triton.next_power_of_2(patches))
        key_kernel[(count * triton.cdiv(patches, block),)](seeds, keys, rows, columns, strategy, block)
        select_kernel[(count,)](keys, grid, patches, hidden, block)
    return grid


run = attach("maskmatch_triton")
