"""Kernels of upsample_cross_entropy: the loss and its gradient cell by cell, and what puts the cells together.

A cell is what lies between two neighbouring rows and columns of input nodes, or before the first and beyond the last:
(h + 1) x (w + 1) of them have all pixels. A cell's pixels send their gradient to its four corners. Each program keeps
what its cells send, and a second kernel adds up what a node got from the four cells around it: no atomics, and the same
bits every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from maskmatch.ops.triton._cross_entropy_pixels import UNSPECIALIZED, read_pixels
from maskmatch.ops.triton._sampling import blend, first_output, sample
from maskmatch.ops.triton._shifted_logits import LEAST_SUM, between_columns

_LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit(do_not_specialize=UNSPECIALIZED)
def cell_kernel(
    shifted, target, confidence, pixel_weight, class_weight, grad_output,
    log_sum, pixel_loss, partial_loss, partial_counts, corners,
    count: tl.int32, classes: tl.int32,
    input_height: tl.int32, input_width: tl.int32, height: tl.int32, width: tl.int32,
    threshold: tl.float32, ignore_index: tl.int64, label_smoothing: tl.float32,
    SMOOTHED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    WITH_LOSS: tl.constexpr,
    ROWS: tl.constexpr, STEPS: tl.constexpr, CELLS: tl.constexpr, ROW_BLOCKS: tl.constexpr, STEP_BLOCKS: tl.constexpr,
):  # fmt: skip
    """Loss and gradient of CELLS neighbouring cells, ROWS x STEPS pixels of each at a time.

    shifted: [N, C, h, w + 1] fp32, as _shifted_logits.py describes them.
    target: [N, H, W] uint8 or int64, contiguous like every map below.
    confidence, pixel_weight: [N, H, W] fp32 or None.
    class_weight: [C] fp32 or None.
    grad_output: [N, H, W] fp32, the gradient of every pixel's loss; None for ones.
    log_sum: [N, H, W] fp32 or None, log2 of the sum of the shifted logits' powers; written WITH_LOSS, else read.
    pixel_loss: [N, H, W] fp32 or None, written.
    partial_loss: [programs] fp32, written; the sum of a program's losses.
    partial_counts: [2, programs] int32, written; a program's non-ignored pixels, and the confident ones among them.
    corners: [4, N, C, h + 1, w + 1] fp32 or None, written; what a cell sends to its node above left, above right,
        below left and below right.
    count, classes, input_height, input_width, height, width: N, C, h, w, H, W.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(input_width + 1, CELLS)
    row = program // blocks % (input_height + 1) - 1
    n = (program // blocks // (input_height + 1)).to(tl.int64)
    cell = program % blocks * CELLS - 1 + tl.arange(0, CELLS * STEPS) // STEPS
    loss, valid, kept = 0.0, 0, 0
    for block in range(ROW_BLOCKS * STEP_BLOCKS):
        y = first_output(row, input_height, height, ALIGN_CORNERS, INDEX) + block // STEP_BLOCKS * ROWS
        y += tl.arange(0, ROWS)
        x = first_output(cell, input_width, width, ALIGN_CORNERS, INDEX) + block % STEP_BLOCKS * STEPS
        x += tl.arange(0, CELLS * STEPS) % STEPS
        inside = (y < first_output(row + 1, input_height, height, ALIGN_CORNERS, INDEX))[:, None]
        inside &= (x < first_output(cell + 1, input_width, width, ALIGN_CORNERS, INDEX))[None, :]
        block_loss, block_valid, block_kept = _block_of_cells(
            shifted + n * classes * input_height * (input_width + 1), target, confidence, pixel_weight, class_weight,
            grad_output, log_sum, pixel_loss, corners, n, row, cell, y, x, inside, block > 0,
            count, classes, input_height, input_width, height, width, threshold, ignore_index, label_smoothing,
            SMOOTHED, ALIGN_CORNERS, INDEX, WITH_LOSS, STEPS,
        )  # fmt: skip
        loss += block_loss
        valid += block_valid
        kept += block_kept
    if WITH_LOSS:
        tl.store(partial_loss + program, loss)
        tl.store(partial_counts + program, valid)
        tl.store(partial_counts + tl.num_programs(0) + program, kept)


@triton.jit
def _block_of_cells(
    image, target, confidence, pixel_weight, class_weight, grad_output, log_sum, pixel_loss, corners,
    n, row, cell, y, x, inside, further,
    count, classes, input_height, input_width, height, width, threshold, ignore_index, label_smoothing,
    SMOOTHED: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    WITH_LOSS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """The sum of the losses, and the numbers of non-ignored and confident pixels, of pixels y x x.

    further: whether the gradient is added to what the cells have sent before.
    """
    line = tl.cast(input_width, INDEX) + 1
    plane = input_height * line
    left = tl.minimum(tl.maximum(cell, 0), input_width - 1)[None, :]
    above = image + tl.maximum(row, 0) * line + left
    below = image + tl.minimum(row + 1, input_height - 1) * line + left
    _row, _next, down = sample(y[:, None], input_height, height, ALIGN_CORNERS, INDEX)
    _cell, _next, right = sample(x, input_width, width, ALIGN_CORNERS, INDEX)
    across = right[None, :]
    pixels = (n * height + y[:, None]) * width
    label, valid, kept, weight, label_weight = read_pixels(
        pixels, x[None, :], inside, target, confidence, pixel_weight, class_weight, classes, threshold, ignore_index
    )
    loss = 0.0
    if WITH_LOSS:
        log_total = _log_sum(above, below, plane, across, down, inside, classes, INDEX)
        at_label = tl.maximum(label, 0).to(INDEX) * plane
        surprise = label_weight * (log_total - _resized(above + at_label, below + at_label, across, down))
        if SMOOTHED:
            surprise *= 1 - label_smoothing
            for c in range(classes):
                at = tl.cast(c, INDEX) * plane
                further_surprise = log_total - _resized(above + at, below + at, across, down)
                surprise += label_smoothing / classes * _class_weight(class_weight, c) * further_surprise
        losses = tl.where(kept, weight * surprise * _LN_2, 0.0)
        if log_sum is not None:
            tl.store(log_sum + pixels + x[None, :], log_total, mask=inside)
        if pixel_loss is not None:
            tl.store(pixel_loss + pixels + x[None, :], losses, mask=inside)
        loss = tl.sum(tl.sum(losses, axis=1), axis=0)
    else:
        log_total = tl.load(log_sum + pixels + x[None, :], mask=inside, other=0.0)
    if corners is not None:
        if grad_output is not None:
            weight *= tl.load(grad_output + pixels + x[None, :], mask=kept, other=0.0)
        # Where nothing is kept all weights are zero, and exp2(-inf) keeps their powers finite.
        log_total = tl.where(kept, log_total, float("inf"))
        send_down = tl.where(row < 0, 1.0, down)  # pixels before the first row or column are clamped to it
        send_right = tl.where(cell < 0, 1.0, right)
        _send(
            above, below, plane, across, down, send_down, send_right, log_total, label, weight, label_weight,
            class_weight, corners, n, row, cell, further, count, classes, input_height, input_width, label_smoothing,
            SMOOTHED, INDEX, STEPS,
        )  # fmt: skip
    counted = tl.sum(tl.sum(valid.to(tl.int32), axis=1), axis=0)
    return loss, counted, tl.sum(tl.sum(kept.to(tl.int32), axis=1), axis=0)


@triton.jit
def _resized(above, below, across, down):
    """Between the elements that above, below and their right neighbours point to."""
    return blend(between_columns(above, across, 1), between_columns(below, across, 1), down)


@triton.jit
def _class_weight(class_weight, c):
    """1 where classes have no weights."""
    weight = 1.0
    if class_weight is not None:
        weight = tl.load(class_weight + c)
    return weight


@triton.jit
def _log_sum(above, below, plane, across, down, inside, classes, INDEX: tl.constexpr):
    """log2 of the sum of the powers of all classes."""
    largest = tl.zeros_like(across + down)
    total = _sum_of_powers(above, below, plane, across, down, largest, classes, INDEX)
    enough = (total >= LEAST_SUM) | (inside == 0)
    if tl.min(tl.min(enough.to(tl.int32), axis=1), axis=0) == 0:
        largest = _resized(above, below, across, down)
        for c in range(1, classes):
            at = tl.cast(c, INDEX) * plane
            largest = tl.maximum(largest, _resized(above + at, below + at, across, down))
        total = _sum_of_powers(above, below, plane, across, down, largest, classes, INDEX)
    return largest + tl.log2(total)


@triton.jit
def _sum_of_powers(above, below, plane, across, down, largest, classes, INDEX: tl.constexpr):
    total = tl.zeros_like(largest)
    for c in range(classes):
        at = tl.cast(c, INDEX) * plane
        total += tl.exp2(_resized(above + at, below + at, across, down) - largest)
    return total


@triton.jit
def _send(
    above, below, plane, across, down, send_down, send_right, log_total, label, weight, label_weight, class_weight,
    corners, n, row, cell, further, count, classes, input_height, input_width, label_smoothing,
    SMOOTHED: tl.constexpr, INDEX: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write what the pixels' loss sends to the four corners of their cells, class by class."""
    one_hot = weight * label_weight
    of_power = one_hot
    even = 0.0
    if SMOOTHED:
        one_hot *= 1 - label_smoothing
        even = weight * (label_smoothing / classes)
        weights = 0.0
        for c in range(classes):
            weights += _class_weight(class_weight, c)
        of_power = one_hot + even * weights
    first_of_cells = tl.min(tl.reshape(cell, [cell.shape[0] // STEPS, STEPS]), axis=1)
    there = first_of_cells < input_width
    line = tl.cast(input_width, INDEX) + 1
    cells = (tl.cast(input_height, INDEX) + 1) * line
    to = corners + n * classes * cells + (row + 1) * line + first_of_cells + 1
    side = count * classes * cells.to(tl.int64)
    for c in range(classes):
        at = tl.cast(c, INDEX) * plane
        share = of_power * tl.exp2(_resized(above + at, below + at, across, down) - log_total)
        share -= tl.where(label == c, one_hot, 0.0)
        if SMOOTHED:
            share -= even * _class_weight(class_weight, c)
        to_above = tl.sum(share * (1 - send_down), axis=0)
        to_below = tl.sum(share * send_down, axis=0)
        _add(to, _sum_steps(to_above * (1 - send_right), STEPS), there, further)
        _add(to + side, _sum_steps(to_above * send_right, STEPS), there, further)
        _add(to + 2 * side, _sum_steps(to_below * (1 - send_right), STEPS), there, further)
        _add(to + 3 * side, _sum_steps(to_below * send_right, STEPS), there, further)
        to += cells


@triton.jit
def _add(at, value, there, further):
    """`further` adds it to what is there already."""
    if further:
        value += tl.load(at, mask=there, other=0.0)
    tl.store(at, value, mask=there)


@triton.jit
def _sum_steps(values, STEPS: tl.constexpr):
    """[cells * STEPS] -> [cells]"""
    return tl.sum(tl.reshape(values, [values.shape[0] // STEPS, STEPS]), axis=1)


@triton.jit(do_not_specialize=["input_height", "input_width", "planes"])
def gather_kernel(
    corners, gradient, input_height: tl.int32, input_width: tl.int32, planes: tl.int64,
    INDEX: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK nodes' gradient from the four cells around each.

    corners: [4, planes, h + 1, w + 1] fp32, cell_kernel's; gradient: [planes, h, w] fp32, written; planes: N * C.
    """
    width, line = tl.cast(input_width, INDEX), tl.cast(input_width, INDEX) + 1
    nodes, cells = input_height * width, (input_height + 1) * line
    blocks = tl.cdiv(nodes, BLOCK)
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    node = (tl.program_id(0) % blocks).to(INDEX) * BLOCK + tl.arange(0, BLOCK)
    inside = node < nodes
    before = corners + plane * cells + node // width * line + node % width  # the cell above and left of the node
    side = planes * cells
    total = tl.load(before + line + 1, mask=inside, other=0.0)
    total += tl.load(before + side + line, mask=inside, other=0.0)
    total += tl.load(before + 2 * side + 1, mask=inside, other=0.0)
    total += tl.load(before + 3 * side, mask=inside, other=0.0)
    tl.store(gradient + plane * nodes + node, total, mask=inside)


@triton.jit(do_not_specialize=["programs"])
def divide_kernel(
    partial_loss, partial_counts, divisor, loss, divided_by, programs: tl.int32,
    CONFIDENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The loss of all of cell_kernel's programs over its divisor, both fp32 scalars.

    divisor: fp32 scalar, or None for the non-ignored pixels, or CONFIDENT ones.
    """
    total, count = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.int64)
    for first in range(0, programs, BLOCK):
        program = first + tl.arange(0, BLOCK)
        there = program < programs
        total += tl.load(partial_loss + program, mask=there, other=0.0)
        count += tl.load(partial_counts + CONFIDENT * programs + program, mask=there, other=0)
    if divisor is None:
        divide_by = tl.maximum(tl.sum(count, axis=0), 1).to(tl.float32)
    else:
        divide_by = tl.load(divisor)
        divide_by = tl.where(divide_by > 0, divide_by, float("inf"))
    tl.store(loss, tl.sum(total, axis=0).to(tl.float32) / divide_by)
    tl.store(divided_by, divide_by)
