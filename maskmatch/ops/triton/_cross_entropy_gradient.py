"""The second pass of upsample_cross_entropy: one program owns elements of the low-resolution gradient.

It gathers what their pixels send, with softmax from the stored log sum exp, so that nothing is added by two programs:
no atomics, and the same bits every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from maskmatch.ops.triton._cross_entropy_pixels import UNSPECIALIZED, read_pixels
from maskmatch.ops.triton._sampling import blend, blended_columns, first_output, sample


@triton.jit
def _class_weights(class_weight, c, classes):
    """The weights of classes `c`, 0 beyond the last, and the sum of all."""
    weights = tl.where(c < classes, 1.0, 0.0)
    total = classes.to(tl.float32)
    if class_weight is not None:
        weights = tl.load(class_weight + c, mask=c < classes, other=0.0)
        everyone = tl.arange(0, 256)
        total = tl.sum(tl.load(class_weight + everyone, mask=everyone < classes, other=0.0), axis=0)
    return weights, total


@triton.jit
def _between_columns(c, first_column, classes, input_width, width, stride_class, stride_column,
                     ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
                     BLOCK_COLUMNS: tl.constexpr, BLOCK_STEPS: tl.constexpr):  # fmt: skip
    """Where a lane's pixels lie: lane l is step l % BLOCK_STEPS between the columns before and after.

    Returns the column before (-1 at the left edge), the first pixel, the end of the pixels, and the offsets of both
    columns' logits.
    """
    lane = tl.arange(0, BLOCK_COLUMNS * BLOCK_STEPS)
    before = first_column - 1 + lane // BLOCK_STEPS
    begin = first_output(before, input_width, width, ALIGN_CORNERS, INDEX) + lane % BLOCK_STEPS
    end = first_output(before + 1, input_width, width, ALIGN_CORNERS, INDEX)
    column_before = tl.minimum(tl.maximum(before, 0), input_width - 1).to(INDEX)
    column_after = tl.minimum(before + 1, input_width - 1).to(INDEX)
    plane = c.to(INDEX)[:, None] * stride_class.to(INDEX)
    left = plane + column_before[None, :] * stride_column.to(INDEX)
    right = plane + column_after[None, :] * stride_column.to(INDEX)
    return before, begin, end, left, right


@triton.jit
def _between_rows(
    to_this_row, above, below, row, n, x, inside, c, target, log_sum, grad_output, confidence, pixel_weight,
    class_weight, class_weights, class_weight_sum, classes, input_height, height, width,
    threshold, ignore_index, label_smoothing, SMOOTHED: tl.constexpr, ALIGN_CORNERS: tl.constexpr,
):  # fmt: skip
    """What the pixels between an input row and the next one send to either, that to this row added to what it has.

    above, below: the two rows' logits, at the columns' pixels x.
    """
    to_next_row = tl.zeros_like(to_this_row)
    begin = first_output(row, input_height, height, ALIGN_CORNERS, tl.int64)
    end = first_output(row + 1, input_height, height, ALIGN_CORNERS, tl.int64)
    for y in range(begin, end):
        _row, _next, row_fraction = sample(y, input_height, height, ALIGN_CORNERS, tl.int64)
        line = (n * height + y) * width
        label, _valid, kept, weight, label_weight = read_pixels(
            line, x, inside, target, confidence, pixel_weight, class_weight, classes, threshold, ignore_index
        )
        if grad_output is not None:
            weight *= tl.load(grad_output + line + x, mask=kept, other=0.0)
        # Where nothing is kept all weights are zero, and exp(-inf) keeps their powers finite.
        log_total = tl.load(log_sum + line + x, mask=kept, other=float("inf"))
        probability = tl.exp(blend(above, below, row_fraction) - log_total[None, :])
        one_hot = weight * label_weight
        smoothed = 0.0
        if SMOOTHED:
            one_hot *= 1 - label_smoothing
            smoothed = label_smoothing / classes
        share = (one_hot + weight * smoothed * class_weight_sum)[None, :] * probability
        share -= tl.where(c[:, None] == label[None, :], one_hot[None, :], 0.0)
        if SMOOTHED:
            share -= class_weights[:, None] * (weight * smoothed)[None, :]
        share_below = tl.where(row < 0, 1.0, row_fraction)  # rows before the first one are clamped to it
        to_this_row += share * (1 - share_below)
        to_next_row += share * share_below
    return to_this_row, to_next_row


@triton.jit(do_not_specialize=UNSPECIALIZED)
def gradient_kernel(
    gradient, logits, target, log_sum, grad_output, confidence, pixel_weight, class_weight,
    stride_image: tl.int64, stride_class: tl.int64, stride_row: tl.int64, stride_column: tl.int64,
    classes: tl.int32, input_height: tl.int32, input_width: tl.int32, height: tl.int32, width: tl.int32,
    threshold: tl.float32, ignore_index: tl.int64, label_smoothing: tl.float32,
    SMOOTHED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    BAND: tl.constexpr, BLOCK_CLASSES: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_STEPS: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK_CLASSES classes at BAND rows x (BLOCK_COLUMNS - 1) columns of one image.

    Resizing is separable, and so is its adjoint: what the pixels between two input rows send to either is summed at
    full width; then what those between two columns, BLOCK_STEPS at a time, send to either of these. The pixels before a
    program's first row and column are another program's too, and both compute them.

    gradient: [N, C, h, w] fp32, contiguous, written; log_sum: [N, H, W] fp32, the loss kernel's.
    grad_output: [N, H, W] fp32, the gradient of every pixel's loss; None for ones. All else as in loss_kernel.
    """
    program = tl.program_id(0)
    class_blocks = tl.cdiv(classes, BLOCK_CLASSES)
    column_blocks = tl.cdiv(input_width, BLOCK_COLUMNS - 1)
    bands = tl.cdiv(input_height, BAND)
    c = program % class_blocks * BLOCK_CLASSES + tl.arange(0, BLOCK_CLASSES)
    first_column = program // class_blocks % column_blocks * (BLOCK_COLUMNS - 1)
    first_row = program // class_blocks // column_blocks % bands * BAND
    n = (program // class_blocks // column_blocks // bands).to(tl.int64)
    class_weights, class_weight_sum = _class_weights(class_weight, c, classes)
    before, begin, end, left, right = _between_columns(
        c, first_column, classes, input_width, width, stride_class, stride_column, ALIGN_CORNERS, INDEX,
        BLOCK_COLUMNS, BLOCK_STEPS,
    )  # fmt: skip
    image = logits + n * stride_image
    steps = tl.maximum(tl.max(end - begin, axis=0), 1)  # where no pixel lies, zeros are still written
    for first_step in range(0, steps, BLOCK_STEPS):
        x = begin + first_step
        inside = x < end
        _low, _high, fraction = sample(x, input_width, width, ALIGN_CORNERS, INDEX)
        present = (c < classes)[:, None] & inside[None, :]
        share_after = tl.where(before < 0, 1.0, fraction)  # pixels before the first column are clamped to it
        above = tl.zeros([BLOCK_CLASSES, BLOCK_COLUMNS * BLOCK_STEPS], tl.float32)
        to_next_row = tl.zeros([BLOCK_CLASSES, BLOCK_COLUMNS * BLOCK_STEPS], tl.float32)
        for row in range(first_row - 1, tl.minimum(first_row + BAND, input_height)):
            next_row = image + tl.minimum(row + 1, input_height - 1) * stride_row
            below = blended_columns(next_row, left, right, present, fraction)
            if row < first_row:
                above = blended_columns(image + tl.maximum(row, 0) * stride_row, left, right, present, fraction)
            to_this_row, to_next_row = _between_rows(
                to_next_row, above, below, row, n, x, inside, c, target, log_sum, grad_output, confidence,
                pixel_weight, class_weight, class_weights, class_weight_sum, classes, input_height, height, width,
                threshold, ignore_index, label_smoothing, SMOOTHED, ALIGN_CORNERS,
            )  # fmt: skip
            above = below
            if row >= first_row:
                elements = gradient + ((n * classes + c[:, None]) * input_height + row) * input_width
                _add_columns(
                    elements, to_this_row, share_after, first_column, c < classes, input_width, first_step > 0,
                    BLOCK_CLASSES, BLOCK_COLUMNS, BLOCK_STEPS,
                )  # fmt: skip


@triton.jit
def _add_columns(
    elements, to_row, share_after, first_column, present, input_width, further,
    BLOCK_CLASSES: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_STEPS: tl.constexpr,
):  # fmt: skip
    """Sum what the pixels send to either column of a row's gradient; `further` adds it to what is there already.

    elements: pointers to the classes' rows; present: which of them exist.
    """
    column = first_column - 1 + tl.arange(0, BLOCK_COLUMNS)
    owned = present[:, None] & ((column >= first_column) & (column < input_width))[None, :]
    previous = tl.maximum(tl.arange(0, BLOCK_COLUMNS) - 1, 0)
    previous = tl.broadcast_to(previous[None, :], [BLOCK_CLASSES, BLOCK_COLUMNS])
    total = _sum_steps(to_row * (1 - share_after)[None, :], BLOCK_STEPS)
    total += tl.gather(_sum_steps(to_row * share_after[None, :], BLOCK_STEPS), previous, axis=1)
    if further:
        tl.debug_barrier()  # the earlier steps' sums may be other threads' stores
        total += tl.load(elements + column[None, :], mask=owned, other=0.0)
    tl.store(elements + column[None, :], total, mask=owned)


@triton.jit
def _sum_steps(values, STEPS: tl.constexpr):
    """[classes, columns * STEPS] -> [classes, columns]"""
    return tl.sum(tl.reshape(values, [values.shape[0], values.shape[1] // STEPS, STEPS]), axis=2)
