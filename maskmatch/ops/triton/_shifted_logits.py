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

from maskmatch.ops.triton._sampling import blend, index_type

LEAST_SUM = tl.constexpr(2.0**-100)
"""A sum of powers that still has all its digits."""
_LOG2_E = tl.constexpr(1.4426950408889634)
_BLOCK_CLASSES, _BLOCK_NODES = 32, 64


def shift_logits(logits: Sequence[Tensor], flipped: Sequence[bool], index: tl.dtype) -> tuple[Tensor, ...]:
    """Of each scale [N, C, h_s, w_s], in one launch; turned back where it is flipped."""
    count, classes = logits[0].shape[:2]
    heights, widths = tuple(scale.shape[2] for scale in logits), tuple(scale.shape[3] for scale in logits)
    shifted = tuple(
        scale.new_empty((count, classes, h, w + 1), dtype=torch.float32)
        for scale, h, w in zip(logits, heights, widths, strict=True)
    )
    most_nodes = max(h * (w + 1) for h, w in zip(heights, widths, strict=True))
    shift_kernel[(count * triton.cdiv(most_nodes, _BLOCK_NODES),)](
        tuple(logits), shifted, tuple(scale.stride() for scale in logits), heights, widths, classes, most_nodes,
        tuple(flipped), index, min(_BLOCK_CLASSES, triton.next_power_of_2(classes)), _BLOCK_NODES,
    )  # fmt: skip
    return shifted


def index_type_of(logits: Sequence[Tensor], height: int, width: int) -> tl.dtype:
    """int32, or int64 where an offset within an image or a numerator of `sample` along either axis needs it."""
    types = [index_type(scale, width) for scale in logits] + [index_type(scale.mT, height) for scale in logits]
    shifted = max(scale.shape[1] * scale.shape[2] * (scale.shape[3] + 1) for scale in logits)
    return tl.int64 if tl.int64 in types or shifted >= 2**31 else tl.int32


@triton.jit(do_not_specialize=["strides", "heights", "widths", "classes", "most_nodes"])
def shift_kernel(
    logits, shifted, strides, heights, widths, classes: tl.int32, most_nodes: tl.int32,
    FLIPPED: tl.constexpr, INDEX: tl.constexpr, BLOCK_CLASSES: tl.constexpr, BLOCK_NODES: tl.constexpr,
):  # fmt: skip
    """Shift the logits of BLOCK_NODES nodes of one image, of every scale.

    logits: S pointers, [N, C, h_s, w_s] fp32, fp16 or bf16 each.
    shifted: S pointers, [N, C, h_s, w_s + 1] fp32, contiguous, written; turned back where FLIPPED.
    strides: for each scale the four strides of its logits: image, class, row, column, in elements.
    heights, widths, most_nodes: h_s and w_s, and the largest h_s * (w_s + 1).
    FLIPPED: for each scale whether it is mirrored left to right.
    """
    blocks = tl.cdiv(most_nodes, BLOCK_NODES)
    n = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    for s in tl.static_range(len(logits)):
        line = tl.cast(widths[s], INDEX) + 1
        nodes = heights[s] * line
        node = tl.cast(block, INDEX) * BLOCK_NODES + tl.arange(0, BLOCK_NODES)
        column = tl.minimum(node % line, line - 2)
        if FLIPPED[s]:
            column = line - 2 - column
        source = logits[s] + n * strides[s][0]
        at = node // line * tl.cast(strides[s][2], INDEX) + column * tl.cast(strides[s][3], INDEX)
        _shift_nodes(
            source + at, strides[s][1], shifted[s] + n * classes * nodes + node, nodes, node < nodes, classes,
            INDEX, BLOCK_CLASSES,
        )  # fmt: skip


@triton.jit
def _shift_nodes(
    source, stride_class, target, nodes, inside, classes, INDEX: tl.constexpr, BLOCK_CLASSES: tl.constexpr
):  # fmt: skip
    """source, target: pointers to the nodes' first class; inside: which of them exist."""
    largest = tl.full([source.shape[0]], -float("inf"), tl.float32)
    for first in range(0, classes, BLOCK_CLASSES):
        c = first + tl.arange(0, BLOCK_CLASSES).to(INDEX)[:, None]
        value = tl.load(source[None, :] + c * tl.cast(stride_class, INDEX), mask=(c < classes) & inside[None, :],
                        other=-float("inf"))  # fmt: skip
        largest = tl.maximum(largest, tl.max(value.to(tl.float32), axis=0))
    for first in range(0, classes, BLOCK_CLASSES):
        c = first + tl.arange(0, BLOCK_CLASSES).to(INDEX)[:, None]
        present = (c < classes) & inside[None, :]
        value = tl.load(source[None, :] + c * tl.cast(stride_class, INDEX), mask=present, other=0.0).to(tl.float32)
        tl.store(target[None, :] + c * nodes, (value - largest[None, :]) * _LOG2_E, mask=present)


@triton.jit
def between_columns(at, across):
    """Between the elements that `at` points to and the next ones."""
    return blend(tl.load(at), tl.load(at + 1), across)
