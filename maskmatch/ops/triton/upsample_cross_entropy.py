"""Triton kernels of upsample_cross_entropy: a pass over the pixels for the loss, one over the inputs for the gradient.

The loss kernel, here, holds all classes of a few pixels of one row in registers; the gradient's is in
_cross_entropy_gradient.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskmatch.ops._checks import check_labels
from maskmatch.ops._upsample_cross_entropy import LossInputs, attach
from maskmatch.ops.triton._cross_entropy_gradient import gradient_kernel
from maskmatch.ops.triton._cross_entropy_pixels import UNSPECIALIZED, read_pixels
from maskmatch.ops.triton._sampling import index_type, on_device_of, resized_tile, tile_shape

_BAND = 4  # input rows a program of the gradient kernel; rows between two bands are computed twice
# A program of the gradient kernel has 4 classes x 128 pixels of a row, of which up to 32 lie between two input columns.
_CLASSES, _PIXELS, _MAX_STEPS = 4, 128, 32


@triton.jit(do_not_specialize=UNSPECIALIZED)
def loss_kernel(
    logits, target, confidence, pixel_weight, class_weight, pixel_loss, log_sum, partial_loss, partial_counts,
    stride_image: tl.int64, stride_class: tl.int64, stride_row: tl.int64, stride_column: tl.int64,
    classes: tl.int32, input_height: tl.int32, input_width: tl.int32, height: tl.int32, width: tl.int32,
    threshold: tl.float32, ignore_index: tl.int64, label_smoothing: tl.float32,
    SMOOTHED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    BLOCK_CLASSES: tl.constexpr, BLOCK_PIXELS: tl.constexpr,
):  # fmt: skip
    """Loss and log sum exp of BLOCK_PIXELS pixels of one row.

    logits: [N, C, h, w] fp32, fp16 or bf16 with the strides given.
    target: [N, H, W] uint8 or int64, contiguous like every map below.
    confidence, pixel_weight: [N, H, W] fp32 or None.
    class_weight: [C] fp32 or None.
    pixel_loss: [N, H, W] fp32 or None, written.
    log_sum: [N, H, W] fp32 or None, written.
    partial_loss: [programs] fp32, written; the sum of a program's losses.
    partial_counts: [2, programs] int32, written; a program's non-ignored pixels, and the confident ones among them.
    stride_image, stride_class, stride_row, stride_column: strides of logits, in elements.
    classes, input_height, input_width, height, width: C, h, w, H, W.
    BLOCK_CLASSES: a power of two that holds all classes.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(width, BLOCK_PIXELS)
    line = (program // blocks).to(tl.int64)  # of all images
    x = program % blocks * BLOCK_PIXELS + tl.arange(0, BLOCK_PIXELS)
    inside = x < width
    c = tl.arange(0, BLOCK_CLASSES)
    value = resized_tile(
        logits + line // height * stride_image, stride_class, stride_row, stride_column, classes, line % height, x,
        input_height, input_width, height, width, ALIGN_CORNERS, INDEX, BLOCK_CLASSES,
    )  # fmt: skip
    largest = tl.max(value, axis=0)
    log_total = largest + tl.log(tl.sum(tl.exp(value - largest[None, :]), axis=0))

    label, valid, kept, weight, label_weight = read_pixels(
        line * width, x, inside, target, confidence, pixel_weight, class_weight, classes, threshold, ignore_index
    )
    at_label = tl.sum(tl.where(c[:, None] == label[None, :], value, 0.0), axis=0)
    loss = label_weight * (log_total - at_label)
    if SMOOTHED:
        surprise = tl.where((c < classes)[:, None], log_total[None, :] - value, 0.0)
        if class_weight is not None:
            surprise *= tl.load(class_weight + c, mask=c < classes, other=0.0)[:, None]
        loss = (1 - label_smoothing) * loss + label_smoothing / classes * tl.sum(surprise, axis=0)
    loss = tl.where(kept, weight * loss, 0.0)

    if log_sum is not None:
        tl.store(log_sum + line * width + x, log_total, mask=inside)
    if pixel_loss is not None:
        tl.store(pixel_loss + line * width + x, loss, mask=inside)
    tl.store(partial_loss + program, tl.sum(loss, axis=0))
    tl.store(partial_counts + program, tl.sum(valid.to(tl.int32), axis=0))
    tl.store(partial_counts + tl.num_programs(0) + program, tl.sum(kept.to(tl.int32), axis=0))


def _dense(inputs: LossInputs) -> LossInputs:
    """With contiguous maps; the logits' strides are the kernels' own arguments."""
    return inputs._replace(
        target=inputs.target.contiguous(),
        confidence=_contiguous(inputs.confidence),
        pixel_weight=_contiguous(inputs.pixel_weight),
        class_weight=_contiguous(inputs.class_weight),
    )


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


@torch.library.custom_op("maskmatch_triton::upsample_cross_entropy", mutates_args=())
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
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, divisor and what the backward needs, as csrc/library.cpp describes them."""
    count, classes, input_height, input_width = logits.shape
    height, width = target.shape[-2:]
    check_labels(target, classes, ignore_index)
    inputs = _dense(LossInputs(
        logits, target, confidence, threshold, pixel_weight, class_weight,
        ignore_index, label_smoothing, align_corners, normalize, divisor,
    ))  # fmt: skip
    per_pixel = normalize == "none"
    block_classes, block_pixels = tile_shape(classes)
    programs = count * height * triton.cdiv(width, block_pixels)
    pixel_loss = logits.new_empty(target.shape, dtype=torch.float32) if per_pixel else None
    log_sum = logits.new_empty(target.shape, dtype=torch.float32) if with_gradient else None
    partial_loss = logits.new_empty(programs, dtype=torch.float32)
    partial_counts = logits.new_empty((2, programs), dtype=torch.int32)
    if programs:
        with on_device_of(logits):
            loss_kernel[(programs,)](
                logits, inputs.target, inputs.confidence, inputs.pixel_weight, inputs.class_weight, pixel_loss, log_sum,
                partial_loss, partial_counts, *logits.stride(), classes, input_height, input_width, height, width,
                threshold, ignore_index, label_smoothing, label_smoothing > 0, align_corners,
                index_type(logits, width), block_classes, block_pixels,
                debug=True, sanitize_overflow=False,
            )  # fmt: skip
    if pixel_loss is not None:
        nothing = logits.new_empty(0, dtype=torch.float32)
        return pixel_loss, nothing, nothing.clone() if log_sum is None else log_sum
    if divisor is None:
        divided_by = partial_counts[0 if normalize == "all" else 1].sum().clamp_min(1).float()
    else:
        divided_by = torch.where(divisor > 0, divisor, torch.inf)
    loss = partial_loss.sum(dtype=torch.float64).float() / divided_by
    gradient = logits.new_empty(0, dtype=torch.float32) if log_sum is None else _gradient(inputs, log_sum, None)
    return loss, divided_by, gradient


@torch.library.custom_op("maskmatch_triton::upsample_cross_entropy_backward", mutates_args=())
def upsample_cross_entropy_backward(
    grad_output: Tensor,
    logits: Tensor,
    target: Tensor,
    log_sum: Tensor,
    confidence: Tensor | None,
    threshold: float,
    pixel_weight: Tensor | None,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    align_corners: bool,
) -> Tensor:
    """The gradient of the logits, in their dtype, from that of every pixel's loss."""
    inputs = _dense(LossInputs(
        logits, target, confidence, threshold, pixel_weight, class_weight,
        ignore_index, label_smoothing, align_corners, "none", None,
    ))  # fmt: skip
    return _gradient(inputs, log_sum.contiguous(), grad_output.contiguous()).to(logits.dtype)


def _gradient(inputs: LossInputs, log_sum: Tensor, grad_output: Tensor | None) -> Tensor:
    """fp32 [N, C, h, w]"""
    logits = inputs.logits
    count, classes, input_height, input_width = logits.shape
    height, width = inputs.target.shape[-2:]
    block_steps = min(_MAX_STEPS, triton.next_power_of_2(triton.cdiv(width, input_width)))
    block_columns = _PIXELS // block_steps
    block_classes = min(_CLASSES, triton.next_power_of_2(classes))
    programs = (
        count * triton.cdiv(input_height, _BAND) * triton.cdiv(input_width, block_columns - 1)
        * triton.cdiv(classes, block_classes)
    )  # fmt: skip
    gradient = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
    if programs:
        with on_device_of(logits):
            gradient_kernel[(programs,)](
                gradient, logits, inputs.target, log_sum, grad_output, inputs.confidence, inputs.pixel_weight,
                inputs.class_weight, *logits.stride(), classes, input_height, input_width, height, width,
                inputs.threshold, inputs.ignore_index, inputs.label_smoothing, inputs.label_smoothing > 0,
                inputs.align_corners, index_type(logits, width), _BAND, block_classes, block_columns, block_steps,
                maxnreg=200,  # it takes fewer; left alone, ptxas stops at 128 and spills
            )  # fmt: skip
    return gradient


run = attach("maskmatch_triton")
