"""Kernel of multiscale_pseudo_label: a program labels a tile of pixels, whose rows of logits it loads once."""

# mypy: disable-error-code="assignment"
# (Triton's tuples grow in unrolled loops.)

from __future__ import annotations

import triton
import triton.language as tl

from maskmatch.ops.triton._sampling import sample
from maskmatch.ops.triton._shifted_logits import LEAST_SUM, between_columns


@triton.jit(do_not_specialize=["weights", "heights", "widths", "classes", "height", "width"])
def pseudo_label_kernel(
    shifted, label, confidence, weights, heights, widths, classes: tl.int32, height: tl.int32, width: tl.int32,
    AVERAGE_LOGITS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    LEVELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Label and confidence of ROWS x COLUMNS pixels: a pass over the classes for the sums, one for the best.

    shifted: S pointers, as _shifted_logits.py describes them.
    label: [N, H, W] uint8, contiguous, written.
    confidence: [N, H, W] fp32, contiguous, written.
    weights: S fp32 numbers that sum to one.
    heights, widths: h_s and w_s.
    classes, height, width: C, H, W.
    LEVELS: for each scale, how many input rows ROWS pixels may reach.
    """
    program = tl.program_id(0)
    column_blocks = tl.cdiv(width, COLUMNS)
    row_blocks = tl.cdiv(height, ROWS)
    x = program % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    first = program // column_blocks % row_blocks * ROWS
    n = (program // column_blocks // row_blocks).to(tl.int64)
    images = ()
    for s in tl.static_range(len(shifted)):
        images += (shifted[s] + n * classes * heights[s] * (widths[s] + 1),)
    label += n * height * width
    confidence += n * height * width
    places = _places(first, x, heights, widths, height, width, ALIGN_CORNERS, INDEX, LEVELS, ROWS, 1)
    largest, sums = _sums(
        images, places, weights, heights, widths, classes, AVERAGE_LOGITS, INDEX, LEVELS, False
    )  # fmt: skip
    enough = 1
    for g in tl.static_range(len(sums)):
        enough &= tl.min(tl.min((sums[g] >= LEAST_SUM).to(tl.int32), axis=1), axis=0)
    if enough:
        _write_best(
            images, places, largest, sums, label, confidence, first, x, weights, heights, widths, classes, height,
            width, AVERAGE_LOGITS, INDEX, LEVELS, False,
        )  # fmt: skip
    else:
        # Likely at one node and 100 log2 units below at the next, or NaN: row by row, with maxima of the pixels.
        two: tl.constexpr = (2,) * len(shifted)
        for y in range(first, tl.minimum(first + ROWS, height)):
            write_with_maxima(
                images, label, confidence, y, x, weights, heights, widths, classes, height, width,
                AVERAGE_LOGITS, ALIGN_CORNERS, INDEX, two, 1, 1,
            )  # fmt: skip


@triton.jit
def write_with_maxima(
    images, label, confidence, first, x, weights, heights, widths, classes, height, width,
    AVERAGE_LOGITS: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    LEVELS: tl.constexpr, ROWS: tl.constexpr, PITCH: tl.constexpr,
):  # fmt: skip
    """Label and confidence of pixels x of ROWS rows from `first` on, whatever their logits."""
    places = _places(first, x, heights, widths, height, width, ALIGN_CORNERS, INDEX, LEVELS, ROWS, PITCH)
    largest, sums = _sums(images, places, weights, heights, widths, classes, AVERAGE_LOGITS, INDEX, LEVELS, True)
    _write_best(
        images, places, largest, sums, label, confidence, first, x, weights, heights, widths, classes, height,
        width, AVERAGE_LOGITS, INDEX, LEVELS, True,
    )  # fmt: skip


@triton.jit
def _places(
    first, x, heights, widths, height, width,
    ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr, LEVELS: tl.constexpr, ROWS: tl.constexpr, PITCH: tl.constexpr,
):  # fmt: skip
    """For each scale where pixels x [COLUMNS] of ROWS rows from `first` on lie."""
    places = ()
    for s in tl.static_range(len(heights)):
        places += (
            _place(first, x, heights[s], widths[s], height, width, ALIGN_CORNERS, INDEX, LEVELS[s], ROWS, PITCH),
        )  # fmt: skip
    return places


@triton.jit
def _place(
    first, x, input_height, input_width, height, width,
    ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr, LEVELS: tl.constexpr, ROWS: tl.constexpr, PITCH: tl.constexpr,
):  # fmt: skip
    """Where pixels x of the rows from `first` on lie on one scale.

    The left column and the share of the right one [1, COLUMNS]; the first row; and for each further row, which share of
    the step down to it the pixels' rows have made [ROWS, 1].
    """
    left, _right, across = sample(tl.minimum(x, width - 1), input_width, width, ALIGN_CORNERS, INDEX)
    first_row, _next, _share = sample(first, input_height, height, ALIGN_CORNERS, INDEX)
    y = tl.minimum(first + tl.arange(0, ROWS), height - 1)
    row, _next, down = sample(y, input_height, height, ALIGN_CORNERS, INDEX)
    made = ()
    for level in tl.static_range(1, LEVELS):
        step = first_row + level - 1
        made += (tl.where(row > step, 1.0, tl.where(row == step, down, 0.0))[:, None],)
    return left[None, :], across[None, :], first_row, made, PITCH


@triton.jit
def _resized(
    image, place, c, input_height, input_width, INDEX: tl.constexpr, LEVELS: tl.constexpr
):  # fmt: skip
    """[ROWS, COLUMNS]: the shifted logits of class c, resized."""
    left, across, first_row, made, pitch = place
    line = tl.cast(input_width, INDEX) + 1
    if pitch == 1:
        image += tl.cast(c, INDEX) * input_height * line
    else:
        image += c
    above = between_columns(image + (first_row * line + left) * pitch, across, pitch)
    value = above
    for level in tl.static_range(1, LEVELS):
        row = tl.minimum(first_row + level, input_height - 1)
        below = between_columns(image + (row * line + left) * pitch, across, pitch)
        value += made[level - 1] * (below - above)
        above = below
    return value


@triton.jit
def _logit(
    images, places, weights, heights, widths, c, g,
    AVERAGE_LOGITS: tl.constexpr, INDEX: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """[ROWS, COLUMNS]: the resized logits of class c, of scale g or averaged over all."""
    if AVERAGE_LOGITS:
        value = 0.0
        for s in tl.static_range(len(images)):
            value += weights[s] * _resized(images[s], places[s], c, heights[s], widths[s], INDEX, LEVELS[s])
        return value
    else:
        return _resized(images[g], places[g], c, heights[g], widths[g], INDEX, LEVELS[g])


@triton.jit
def _sums(
    images, places, weights, heights, widths, classes,
    AVERAGE_LOGITS: tl.constexpr, INDEX: tl.constexpr, LEVELS: tl.constexpr, WITH_MAXIMA: tl.constexpr,
):  # fmt: skip
    """For each softmax, one a scale or one for their average: the largest logit, or 0, and the sum of the powers."""
    largest, sums = (), ()
    for g in tl.static_range(1 if AVERAGE_LOGITS else len(images)):
        top = 0.0
        if WITH_MAXIMA:
            top = _logit(images, places, weights, heights, widths, 0, g, AVERAGE_LOGITS, INDEX, LEVELS)
            for c in range(1, classes):
                top = tl.maximum(
                    top, _logit(images, places, weights, heights, widths, c, g, AVERAGE_LOGITS, INDEX, LEVELS)
                )  # fmt: skip
        total = tl.zeros_like(places[g][3][0] + places[g][1])
        for c in range(classes):
            value = _logit(images, places, weights, heights, widths, c, g, AVERAGE_LOGITS, INDEX, LEVELS)
            total += tl.exp2(value - top if WITH_MAXIMA else value)
        largest += (top,)
        sums += (total,)
    return largest, sums


@triton.jit
def _write_best(
    images, places, largest, sums, label, confidence, first, x, weights, heights, widths, classes, height, width,
    AVERAGE_LOGITS: tl.constexpr, INDEX: tl.constexpr, LEVELS: tl.constexpr, WITH_MAXIMA: tl.constexpr,
):  # fmt: skip
    """The class of the highest mean probability, and that, of the rows from `first` on."""
    shares = ()
    for g in tl.static_range(len(sums)):
        shares += ((1.0 if AVERAGE_LOGITS else weights[g]) / sums[g],)
    best = tl.full(sums[0].shape, -1.0, tl.float32)
    index = tl.zeros(sums[0].shape, tl.int32)
    for c in range(classes):
        probability = tl.zeros_like(best)
        for g in tl.static_range(len(sums)):
            value = _logit(images, places, weights, heights, widths, c, g, AVERAGE_LOGITS, INDEX, LEVELS)
            probability += shares[g] * tl.exp2(value - largest[g] if WITH_MAXIMA else value)
        index = tl.where(probability > best, c, index)
        best = tl.where(probability > best, probability, best)
    best = tl.where(best < 0, float("nan"), best)  # NaN is above nothing
    y = (first + tl.arange(0, sums[0].shape[0]))[:, None].to(tl.int64)
    pixel = y * width + x[None, :]
    inside = (y < height) & (x < width)[None, :]
    tl.store(label + pixel, index.to(tl.uint8), mask=inside)
    tl.store(confidence + pixel, best, mask=inside)
