"""Logits shifted where they are small, so that the operators' kernels need no maxima of pixels.

softmax does not change when all classes of a pixel are shifted alike. Where each input node is shifted by its own
maximum over the classes, every resized logit is <= 0, and its power needs no maximum but where a class is likely at one
node and LEAST_SUM below the others at the next. The shifted logits are rows of fp32 in units of log2, one column longer
than the input: the last is there twice, so that every column has a right neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskmatch.ops.triton._sampling import blend

LEAST_SUM = tl.constexpr(2.0**-100)
"""A sum of powers that still has all its digits."""
_NO_POWER = tl.constexpr(-1e30)
_LOG2_E = tl.constexpr(1.4426950408889634)
_BLOCK_CLASSES, _BLOCK_NODES, _WARPS = 8, 32, 1  # one warp needs no barriers


def shift_logits(
    logits: Sequence[Tensor], flipped: Sequence[bool], index: tl.dtype, pitch: int = 0
) -> tuple[Tensor, ...]:
    """Of each scale [N, C, h_s, w_s], in one launch; turned back where it is flipped.

    pitch: 0 for [N, C, h_s, w_s + 1], or at least C for [N, h_s, w_s + 1, pitch] with classes added that have no power.
    """
    count, classes = logits[0].shape[:2]
    heights, widths = tuple(scale.shape[2] for scale in logits), tuple(scale.shape[3] for scale in logits)
    shifted = tuple(
        scale.new_empty((count, h, w + 1, pitch) if pitch else (count, classes, h, w + 1), dtype=torch.float32)
        for scale, h, w in zip(logits, heights, widths, strict=True)
    )
    blocks = sum(triton.cdiv(h * (w + 1), _BLOCK_NODES) for h, w in zip(heights, widths, strict=True))
    shift_kernel[(count * blocks,)](
        tuple(logits), shifted, tuple(scale.stride() for scale in logits), heights, widths, count, classes,
        tuple(flipped), index, pitch, _BLOCK_CLASSES, _BLOCK_NODES, num_warps=_WARPS,
    )  # fmt: skip
    return shifted


@triton.jit(do_not_specialize=["strides", "heights", "widths", "count", "classes"])
def shift_kernel(
    logits, shifted, strides, heights, widths, count: tl.int32, classes: tl.int32,
    FLIPPED: tl.constexpr, INDEX: tl.constexpr, PITCH: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr, BLOCK_NODES: tl.constexpr,
):  # fmt: skip
    """Shift the logits of BLOCK_NODES nodes of one image and scale, BLOCK_CLASSES classes at a time.

    logits: S pointers, [N, C, h_s, w_s] fp32, fp16 or bf16 each.
    shifted: S pointers, [N, C, h_s, w_s + 1] or [N, h_s, w_s + 1, PITCH] fp32, contiguous, written; turned back where
        FLIPPED.
    strides: for each scale the four strides of its logits: image, class, row, column, in elements.
    heights, widths, count, classes: h_s and w_s, N, C.
    FLIPPED: for each scale whether it is mirrored left to right.
    """
    program = tl.program_id(0)
    for s in tl.static_range(len(logits)):
        line = tl.cast(widths[s], INDEX) + 1
        nodes = heights[s] * line
        blocks = tl.cdiv(nodes, BLOCK_NODES).to(tl.int32)
        if (program >= 0) & (program < count * blocks):
            n = (program // blocks).to(tl.int64)
            node = (program % blocks).to(INDEX) * BLOCK_NODES + tl.arange(0, BLOCK_NODES)
            column = tl.minimum(node % line, line - 2)
            if FLIPPED[s]:
                column = line - 2 - column
            at = node // line * tl.cast(strides[s][2], INDEX) + column * tl.cast(strides[s][3], INDEX)
            source = logits[s] + n * strides[s][0] + at
            if PITCH:
                target = shifted[s] + (n * nodes + node) * PITCH
                _shift_nodes(source, tl.cast(strides[s][1], INDEX), target, 1, node < nodes, classes, PITCH,
                             INDEX, BLOCK_CLASSES)  # fmt: skip
            else:
                target = shifted[s] + n * classes * nodes + node
                _shift_nodes(source, tl.cast(strides[s][1], INDEX), target, nodes, node < nodes, classes, classes,
                             INDEX, BLOCK_CLASSES)  # fmt: skip
        program -= count * blocks  # the next programs are the next scale's


@triton.jit
def _shift_nodes(
    source, stride_class, target, target_stride_class, inside, classes, written, INDEX: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr,
):  # fmt: skip
    """source, target: pointers to the nodes' first class; inside: which of them exist; written: classes of target."""
    largest = tl.full([source.shape[0]], -float("inf"), tl.float32)
    for first in range(0, classes, BLOCK_CLASSES):
        c = tl.cast(first + tl.arange(0, BLOCK_CLASSES)[:, None], INDEX)
        present = inside[None, :] & (c < classes)
        value = tl.load(source[None, :] + c * stride_class, mask=present, other=-float("inf"))
        largest = tl.maximum(largest, tl.max(value.to(tl.float32), axis=0))
    for first in range(0, written, BLOCK_CLASSES):
        c = tl.cast(first + tl.arange(0, BLOCK_CLASSES)[:, None], INDEX)
        value = tl.load(source[None, :] + c * stride_class, mask=inside[None, :] & (c < classes), other=0.0)
        value = tl.where(c < classes, (value.to(tl.float32) - largest[None, :]) * _LOG2_E, _NO_POWER)
        tl.store(target[None, :] + c * target_stride_class, value, mask=inside[None, :] & (c < written))


@triton.jit
def between_columns(at, across, pitch):
    """Between the elements that `at` points to and those of the next nodes, `pitch` elements further."""
    return blend(tl.load(at), tl.load(at + pitch), across)
