"""Triton kernels of upsample_cross_entropy: a pass over the pixels for the loss, one over the inputs for the gradient.

The loss kernel holds all classes of a few pixels of one row in registers. The gradient kernel owns elements of the
low-resolution gradient and gathers what their pixels send, with softmax from the stored log sum exp, so that nothing is
added by two programs: no atomics, and the same bits every time.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskmatch.ops._checks import check_labels
from maskmatch.ops._upsample_cross_entropy import LossInputs, attach
from maskmatch.ops.triton._sampling import (
    blend,
    blended_columns,
    first_output,
    index_type,
    on_device_of,
    resized_tile,
    sample,
    tile_shape,
)

_BAND = 4  # input rows a program of the gradient kernel; rows between two bands are computed twice
# A program of the gradient kernel has 4 classes x 128 pixels of a row, of which up to 32 lie between two input columns.
_CLASSES, _PIXELS, _MAX_STEPS = 4, 128, 32

_SIZES = ("classes", "input_height", "input_width", "height", "width")
_STRIDES = ("stride_image", "stride_class", "stride_row", "stride_column")


@triton.jit
def _read_pixels(
    line, x, inside, target, confidence, pixel_weight, class_weight, classes, threshold, ignore_index
):  # fmt: skip
    """Label (-1 where there is none), whether it counts, whether it is confident, its weight and its class's weight.

    line: offset of a row of pixels in the maps; x: pixels of it; inside: which of them exist.
    """
    label = tl.load(target + line + x, mask=inside, other=0).to(tl.int64)
    valid = inside & (label != ignore_index)
    known = (label >= 0) & (label < classes)
    tl.device_assert(known | (valid == 0), "target must hold classes or ignore_index")
    label = tl.where(valid & known, label, -1).to(tl.int32)
    kept = valid
    if confidence is not None:
        kept = kept & (tl.load(confidence + line + x, mask=inside, other=0.0) >= threshold)
    weight = tl.where(kept, 1.0, 0.0)
    if pixel_weight is not None:
        weight = tl.where(kept, tl.load(pixel_weight + line + x, mask=inside, other=0.0), 0.0)
    label_weight = tl.where(label >= 0, 1.0, 0.0)
    if class_weight is not None:
        label_weight = tl.load(class_weight + label, mask=label >= 0, other=0.0)
    return label, valid, kept, weight, label_weight


@triton.jit(do_not_specialize=[*_SIZES, *_STRIDES, "threshold", "ignore_index", "label_smoothing"])
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

    label, valid, kept, weight, label_weight = _read_pixels(
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


@triton.jit(do_not_specialize=[*_SIZES, *_STRIDES, "threshold", "ignore_index", "label_smoothing"])
def gradient_kernel(
    gradient, logits, target, log_sum, grad_output, confidence, pixel_weight, class_weight,
    stride_image: tl.int64, stride_class: tl.int64, stride_row: tl.int64, stride_column: tl.int64,
    classes: tl.int32, input_height: tl.int32, input_width: tl.int32, height: tl.int32, width: tl.int32,
    threshold: tl.float32, ignore_index: tl.int64, label_smoothing: tl.float32,
    SMOOTHED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    BAND: tl.constexpr, BLOCK_CLASSES: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_STEPS: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK_CLASSES classes at BAND rows x (BLOCK_COLUMNS - 1) columns of one image.

    Resizing is separable, and so is its adjoint. What the pixels between two input rows send to either is first summed
    at full width; then what those between two input columns, BLOCK_STEPS at a time, send to either of these.
    The pixels before a program's first row and column are another program's too, and both compute them.

    gradient: [N, C, h, w] fp32, contiguous, written.
    logits: [N, C, h, w] fp32, fp16 or bf16 with the strides given.
    target: [N, H, W] uint8 or int64, contiguous like every map below.
    log_sum: [N, H, W] fp32, from the loss kernel.
    grad_output: [N, H, W] fp32, the gradient of every pixel's loss; None for ones.
    confidence, pixel_weight: [N, H, W] fp32 or None.
    class_weight: [C] fp32 or None.
    stride_image, stride_class, stride_row, stride_column: strides of logits, in elements.
    classes, input_height, input_width, height, width: C, h, w, H, W.
    """
    program = tl.program_id(0)
    class_blocks = tl.cdiv(classes, BLOCK_CLASSES)
    column_blocks = tl.cdiv(input_width, BLOCK_COLUMNS - 1)
    bands = tl.cdiv(input_height, BAND)
    c = program % class_blocks * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
    first_column = program // class_blocks % column_blocks * (BLOCK_COLUMNS - 1)
    first_row = program // class_blocks // column_blocks % bands * BAND
    n = (program // class_blocks // column_blocks // bands).to(tl.int64)

    smoothed = 0.0
    class_weights = tl.where(c < classes, 1.0, 0.0)
    class_weight_sum = classes.to(tl.float32)
    if class_weight is not None:
        class_weights = tl.load(class_weight + c, mask=c < classes, other=0.0)
        everyone = tl.arange(0, 256)
        class_weight_sum = tl.sum(tl.load(class_weight + everyone, mask=everyone < classes, other=0.0), axis=0)
    if SMOOTHED:
        smoothed = label_smoothing / classes

    # Lane l is step l % BLOCK_STEPS between the columns before and after.
    lane = tl.arange(0, BLOCK_COLUMNS * BLOCK_STEPS)
    before = first_column - 1 + lane // BLOCK_STEPS
    begin_x = first_output(before, input_width, width, ALIGN_CORNERS, INDEX) + lane % BLOCK_STEPS
    end_x = first_output(before + 1, input_width, width, ALIGN_CORNERS, INDEX)
    column_before = tl.minimum(tl.maximum(before, 0), input_width - 1).to(INDEX)
    column_after = tl.minimum(before + 1, input_width - 1).to(INDEX)
    plane = c.to(INDEX)[:, None] * stride_class.to(INDEX)
    left = plane + column_before[None, :] * stride_column.to(INDEX)
    right = plane + column_after[None, :] * stride_column.to(INDEX)
    image = logits + n * stride_image

    column = first_column - 1 + tl.arange(0, BLOCK_COLUMNS)
    owned = (c < classes)[:, None] & ((column >= first_column) & (column < input_width))[None, :]
    previous = tl.maximum(tl.arange(0, BLOCK_COLUMNS) - 1, 0)
    previous = tl.broadcast_to(previous[None, :], [BLOCK_CLASSES, BLOCK_COLUMNS])
    steps = tl.maximum(tl.max(end_x - begin_x, axis=0), 1)  # where no pixel lies, zeros are still written
    for first_step in range(0, steps, BLOCK_STEPS):
        x = begin_x + first_step
        inside = x < end_x
        _low, _high, fraction = sample(x, input_width, width, ALIGN_CORNERS, INDEX)
        present = (c < classes)[:, None] & inside[None, :]
        share_after = tl.where(before < 0, 1.0, fraction)  # pixels before the first column are clamped to it
        above = tl.zeros([BLOCK_CLASSES, BLOCK_COLUMNS * BLOCK_STEPS], tl.float32)
        to_next_row = tl.zeros([BLOCK_CLASSES, BLOCK_COLUMNS * BLOCK_STEPS], tl.float32)
        for row in range(first_row - 1, tl.minimum(first_row + BAND, input_height)):
            # What the pixels between this input row and the next one send to either.
            to_this_row = to_next_row
            to_next_row = tl.zeros([BLOCK_CLASSES, BLOCK_COLUMNS * BLOCK_STEPS], tl.float32)
            below = blended_columns(
                image + tl.minimum(row + 1, input_height - 1) * stride_row, left, right, present, fraction
            )
            if row < first_row:
                above = blended_columns(image + tl.maximum(row, 0) * stride_row, left, right, present, fraction)
            begin_y = first_output(row, input_height, height, ALIGN_CORNERS, tl.int64)
            end_y = first_output(row + 1, input_height, height, ALIGN_CORNERS, tl.int64)
            for y in range(begin_y, end_y):
                _row, _next, row_fraction = sample(y, input_height, height, ALIGN_CORNERS, tl.int64)
                line = (n * height + y) * width
                label, _valid, kept, weight, label_weight = _read_pixels(
                    line, x, inside, target, confidence, pixel_weight, class_weight, classes, threshold, ignore_index
                )
                if grad_output is not None:
                    weight *= tl.load(grad_output + line + x, mask=kept, other=0.0)
                # Where nothing is kept all weights are zero, and exp(-inf) keeps their powers finite.
                log_total = tl.load(log_sum + line + x, mask=kept, other=float("inf"))
                probability = tl.exp(blend(above, below, row_fraction) - log_total[None, :])
                one_hot = weight * label_weight
                if SMOOTHED:
                    one_hot *= 1 - label_smoothing
                share = (one_hot + weight * smoothed * class_weight_sum)[None, :] * probability
                share -= tl.where(c[:, None] == label[None, :], one_hot[None, :], 0.0)
                if SMOOTHED:
                    share -= class_weights[:, None] * (weight * smoothed)[None, :]
                share_below = tl.where(row < 0, 1.0, row_fraction)  # rows before the first one are clamped to it
                to_this_row += share * (1 - share_below)
                to_next_row += share * share_below
            above = below
            if row >= first_row:
                total = _sum_steps(to_this_row * (1 - share_after)[None, :], BLOCK_STEPS)
                total += tl.gather(_sum_steps(to_this_row * share_after[None, :], BLOCK_STEPS), previous, axis=1)
                element = ((n * classes + c[:, None]) * input_height + row) * input_width + column[None, :]
                if first_step > 0:
                    tl.debug_barrier()  # the earlier steps' sums may be other threads' stores
                    total += tl.load(gradient + element, mask=owned, other=0.0)
                tl.store(gradient + element, total, mask=owned)


@triton.jit
def _sum_steps(values, STEPS: tl.constexpr):
    """[classes, columns * STEPS] -> [classes, columns]"""
    return tl.sum(tl.reshape(values, [values.shape[0], values.shape[1] // STEPS, STEPS]), axis=2)


def _dense(inputs: LossInputs) -> LossInputs:
    """With contiguous maps; the logits' strides are the kernels' own arguments."""
    return replace(
        inputs,
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
    per_pixel: bool,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, counts and what the backward needs, as csrc/library.cpp describes them."""
    count, classes, input_height, input_width = logits.shape
    height, width = target.shape[-2:]
    check_labels(target, classes, ignore_index)
    inputs = _dense(LossInputs(
        logits, target, confidence, threshold, pixel_weight, class_weight,
        ignore_index, label_smoothing, align_corners, per_pixel,
    ))  # fmt: skip
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
    counts = partial_counts.sum(dim=1)
    loss = partial_loss.sum(dtype=torch.float64).float() if pixel_loss is None else pixel_loss
    if log_sum is None:
        return loss, counts, logits.new_empty(0, dtype=torch.float32)
    return loss, counts, log_sum if per_pixel else _gradient(inputs, log_sum, None)


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
        ignore_index, label_smoothing, align_corners, per_pixel=True,
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
