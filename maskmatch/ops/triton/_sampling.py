"""Where bilinear sampling reads, in exact integers, and what the operators' launches have in common.

Output position o of an axis reads the input at (o + 0.5) * input / output - 0.5, or with align_corners at
o * (input - 1) / (output - 1), clamped to [0, input - 1]: a fraction whose numerator and denominator are integers, so
that the low index and the rest are exact at every size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_INT32_LIMIT = 2**31
TILE = 2048
"""Classes x pixels that a program holds in registers, 16 a thread."""
MAX_BLOCK_PIXELS = 256


@triton.jit
def sample(output, input_size, output_size, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr):
    """Low index, high index and fp32 fraction: the sample is input[low] * (1 - fraction) + input[high] * fraction.

    output: positions along the axis, a scalar or a block of integers.
    input_size, output_size: the axis's sizes.
    INDEX: integer type that holds 2 * (output + 1) * input_size.
    """
    output = tl.cast(output, INDEX)
    input_size = tl.cast(input_size, INDEX)
    output_size = tl.cast(output_size, INDEX)
    if ALIGN_CORNERS:
        numerator = output * (input_size - 1)
        divisor = tl.maximum(output_size - 1, 1)
    else:
        numerator = (2 * output + 1) * input_size - output_size
        divisor = 2 * output_size
    numerator = tl.minimum(tl.maximum(numerator, 0), (input_size - 1) * divisor)
    low = numerator // divisor
    fraction = tl.cast(numerator - low * divisor, tl.float32) / tl.cast(divisor, tl.float32)
    return low, tl.minimum(low + 1, input_size - 1), fraction


@triton.jit
def first_output(position, input_size, output_size, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr):
    """The first output that samples at or beyond an integer position of the input, before the clamp to its ends.

    0 for negative positions and output_size from input_size on, so that the outputs from first_output(i) to
    first_output(i + 1) are those between i and i + 1: for i = -1 and i = input_size - 1 the clamped ones at the ends.

    INDEX: integer type that holds 2 * (input_size + 1) * output_size.
    """
    position = tl.cast(position, INDEX)
    input_size = tl.cast(input_size, INDEX)
    output_size = tl.cast(output_size, INDEX)
    if ALIGN_CORNERS:
        needed = position * tl.maximum(output_size - 1, 1)
        step = tl.maximum(input_size - 1, 1)
    else:
        needed = 2 * position * output_size + output_size - input_size
        step = 2 * input_size
    first = tl.minimum((tl.maximum(needed, 0) + step - 1) // step, output_size)
    return tl.where(position < 0, 0, tl.where(position >= input_size, output_size, first))


@triton.jit
def blend(low, high, fraction):
    """low * (1 - fraction) + high * fraction, in two roundings that no compiler orders differently elsewhere."""
    return tl.fma(high - low, fraction, low)


@triton.jit
def blended_columns(row, left, right, present, fraction):
    """fp32 [classes, pixels] between two columns of one input row.

    row: pointer to the row in the first class's plane; left, right: offsets [classes, pixels] from there.
    present: [classes, pixels], which of them exist; fraction: [pixels].
    """
    low = tl.load(row + left, mask=present, other=0.0).to(tl.float32)
    high = tl.load(row + right, mask=present, other=0.0).to(tl.float32)
    return blend(low, high, fraction[None, :])


@triton.jit
def resized_tile(
    image, stride_class, stride_row, stride_column, classes, y, x,
    input_height, input_width, height, width, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):  # fmt: skip
    """fp32 [BLOCK_CLASSES, pixels]: resized logits of pixels x [pixels] of row y; -inf for classes that do not exist.

    image: pointer to one image's logits [C, h, w], of which stride_class, stride_row, stride_column are the strides.
    """
    c = tl.arange(0, BLOCK_CLASSES)
    row_low, row_high, row_fraction = sample(y, input_height, height, ALIGN_CORNERS, tl.int64)
    low, high, fraction = sample(x, input_width, width, ALIGN_CORNERS, INDEX)
    plane = c.to(INDEX)[:, None] * tl.cast(stride_class, INDEX)
    left = plane + low[None, :] * tl.cast(stride_column, INDEX)
    right = plane + high[None, :] * tl.cast(stride_column, INDEX)
    present = (c < classes)[:, None] & (x < width)[None, :]
    top = blended_columns(image + row_low * stride_row, left, right, present, fraction)
    bottom = blended_columns(image + row_high * stride_row, left, right, present, fraction)
    return tl.where((c < classes)[:, None], blend(top, bottom, row_fraction), -float("inf"))


def index_type(logits: Tensor, width: int) -> tl.dtype:
    """int32, or int64 where an offset within an image or a numerator of `sample` along its rows needs it."""
    sizes, strides = logits.shape[1:], logits.stride()[1:]
    extent = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    numerator = 2 * (width + MAX_BLOCK_PIXELS) * (sizes[2] + 1)
    return tl.int64 if max(extent, numerator) >= _INT32_LIMIT else tl.int32


def tile_shape(classes: int) -> tuple[int, int]:
    """Classes, all of them, and pixels of a program's tile; both are powers of two."""
    block_classes = triton.next_power_of_2(classes)
    return block_classes, min(MAX_BLOCK_PIXELS, TILE // block_classes)


def on_device_of(tensor: Tensor) -> torch.cuda.device_of:
    """Context that launches on the tensor's device; its current stream is what Triton then takes. No-op on the CPU."""
    return torch.cuda.device_of(tensor)
