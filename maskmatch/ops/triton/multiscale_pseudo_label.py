"""Triton kernel of multiscale_pseudo_label: all classes of a few pixels stay in registers over all scales."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskmatch.ops._multiscale_pseudo_label import attach
from maskmatch.ops.triton._sampling import index_type, on_device_of, resized_tile, tile_shape

_RUNTIME = ("weights", "strides", "input_heights", "input_widths", "classes", "height", "width")


@triton.jit(do_not_specialize=_RUNTIME)
def pseudo_label_kernel(
    logits, label, confidence, weights, strides, input_heights, input_widths,
    classes: tl.int32, height: tl.int32, width: tl.int32,
    FLIPPED: tl.constexpr, AVERAGE_LOGITS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    """Label and confidence of BLOCK_PIXELS pixels of one row.

    logits: S pointers, [N, C, h_s, w_s] fp32, fp16 or bf16 each.
    label: [N, H, W] uint8, contiguous, written.
    confidence: [N, H, W] fp32, contiguous, written.
    weights: S fp32 numbers that sum to one.
    strides: for each scale the four strides of its logits: image, class, row, column, in elements.
    input_heights, input_widths: h_s and w_s.
    classes, height, width: C, H, W.
    FLIPPED: for each scale whether it is mirrored left to right.
    BLOCK_CLASSES: a power of two that holds all classes.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(width, BLOCK_PIXELS)
    line = (program // blocks).to(tl.int64)  # of all images
    x = program % blocks * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    exists = (tl.arange(0, BLOCK_CLASSES) < classes)[:, None]
    average = tl.zeros([BLOCK_CLASSES, BLOCK_PIXELS], tl.float32)
    for s in tl.static_range(len(logits)):
        source = x
        if FLIPPED[s]:
            source = width - 1 - x
        value = resized_tile(
            logits[s] + line // height * strides[s][0], strides[s][1], strides[s][2], strides[s][3], classes,
            line % height, source, input_heights[s], input_widths[s], height, width, ALIGN_CORNERS, INDEX,
            BLOCK_CLASSES,
        )  # fmt: skip
        if AVERAGE_LOGITS:
            average += weights[s] * tl.where(exists, value, 0.0)
        else:
            power = tl.exp(value - tl.max(value, axis=0)[None, :])
            average += (weights[s] / tl.sum(power, axis=0))[None, :] * power
    # NaN has no order; where there is one, `total` is NaN too.
    number = exists & (average == average)
    best, index = tl.max(tl.where(number, average, -float("inf")), axis=0, return_indices=True)
    if AVERAGE_LOGITS:
        total = tl.sum(tl.where(exists, tl.exp(average - best[None, :]), 0.0), axis=0)
        best = 1 / total
    else:
        total = tl.sum(average, axis=0)
        best = tl.where(total == total, best, total)
    pixel = line * width + x
    tl.store(label + pixel, index.to(tl.uint8), mask=x < width)
    tl.store(confidence + pixel, best, mask=x < width)


@torch.library.custom_op("maskmatch_triton::multiscale_pseudo_label", mutates_args=())
def multiscale_pseudo_label(
    logits: Sequence[Tensor],
    height: int,
    width: int,
    flipped: Sequence[int],
    weights: Sequence[float],
    average: str,
    align_corners: bool,
) -> tuple[Tensor, Tensor]:
    """Label and confidence, as csrc/library.cpp describes them."""
    count, classes = logits[0].shape[:2]
    label = logits[0].new_empty((count, height, width), dtype=torch.uint8)
    confidence = logits[0].new_empty((count, height, width), dtype=torch.float32)
    block_classes, block_pixels = tile_shape(classes)
    programs = count * height * triton.cdiv(width, block_pixels)
    wide = any(index_type(scale, width) == tl.int64 for scale in logits)
    if programs:
        with on_device_of(logits[0]):
            pseudo_label_kernel[(programs,)](
                tuple(logits), label, confidence, tuple(weights), tuple(scale.stride() for scale in logits),
                tuple(scale.shape[2] for scale in logits), tuple(scale.shape[3] for scale in logits),
                classes, height, width, tuple(map(bool, flipped)), average == "logit", align_corners,
                tl.int64 if wide else tl.int32, block_classes, block_pixels,
            )  # fmt: skip
    return label, confidence


run = attach("maskmatch_triton")
