"""Where bilinear sampling reads, in exact integers, and what the operators' launches have in common.

Output position o of an axis reads the input at (o + 0.5) * input / output - 0.5, or with align_corners at
o * (input - 1) / (output - 1), clamped to [0, input - 1]: a fraction whose numerator and denominator are integers, so
that the low index and the rest are exact at every size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

_INT32_LIMIT = 2**31
MAX_BLOCK = 64
"""How far beyond an axis a program may look for where positions lie."""
MAX_LANES = 32
"""How many classes, less one, may be added so that all threads of a pixel have as many."""


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


def index_type(logits: Sequence[Tensor], height: int, width: int) -> tl.dtype:
    """int32, or int64 where an offset within an image or a position of `sample` along an axis needs it.

    logits: the scales [N, C, h_s, w_s], of any layout, that are resized to height x width.
    """
    largest = 0
    for scale in logits:
        sizes, strides = scale.shape[1:], scale.stride()[1:]
        extent = sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        shifted = (sizes[0] + MAX_LANES) * sizes[1] * (sizes[2] + 1)  # as _shifted_logits.py lays them out
        axes = zip(sizes[1:], (height, width), strict=True)
        positions = (2 * (inputs + MAX_BLOCK) * (outputs + MAX_BLOCK) for inputs, outputs in axes)
        largest = max(largest, extent, shifted, *positions)
    return tl.int64 if largest >= _INT32_LIMIT else tl.int32


def on_device_of(tensor: Tensor) -> torch.cuda.device_of:
    """Context that launches on the tensor's device; its current stream is what Triton then takes. No-op on the CPU."""
    return torch.cuda.device_of(tensor)
