"""The fast kernel of multiscale_pseudo_label: a program walks down a strip of pixels, with all their classes at hand.

Between two input rows a resized logit is linear down a column, so that its power is a geometric series: two exponentials
where a column of pixels passes an input row, and a multiplication a pixel. Powers are of shifted logits, see
_shifted_logits.py, and stay in registers: a tensor [classes, columns] has its classes in a thread's registers and the
lanes that columns leave over.
"""

# mypy: disable-error-code="assignment"
# (Triton's tuples grow in unrolled loops.)

from __future__ import annotations

import triton
import triton.language as tl

from maskmatch.ops.triton._pseudo_label_tile import write_with_maxima
from maskmatch.ops.triton._sampling import first_output, sample
from maskmatch.ops.triton._shifted_logits import between_columns

_LARGEST_POWER = tl.constexpr(2.0**100)
"""Of logit 0, so that a series may begin at a power far below and still have all its digits."""
_STEEPEST = tl.constexpr(100.0)
"""How far, in log2 units, a logit may move from an input row to the next: a power that cannot be told from zero at one
of them stays 2^-126 below the largest."""
_LEAST_SUM = tl.constexpr(2.0**4)
"""To which such powers add nothing: 2^-96 of the largest."""


@triton.jit(do_not_specialize=["weights", "heights", "widths", "height", "width"])
def pseudo_label_series_kernel(
    shifted, label, confidence, weights, heights, widths, height: tl.int32, width: tl.int32,
    CLASSES: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ROWS_WITH_MAXIMA: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """Label and confidence of ROWS x COLUMNS pixels.

    shifted, label, confidence, weights, heights, widths, height, width: as of pseudo_label_kernel.
    PARTS: powers of two, how many classes each tensor has; together at least CLASSES.
    ROWS_WITH_MAXIMA, LEVELS: where classes are hidden in places, so many rows at a time, and the input rows they reach.
    """
    program = tl.program_id(0)
    column_blocks = tl.cdiv(width, COLUMNS)
    row_blocks = tl.cdiv(height, ROWS)
    x = program % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    first = program // column_blocks % row_blocks * ROWS
    n = (program // column_blocks // row_blocks).to(tl.int64)
    label += n * height * width
    confidence += n * height * width
    images, lefts, shares_right, cells, ends = (), (), (), (), ()
    powers, ratios = (), ()
    for s in tl.static_range(len(shifted)):
        left, _right, across = sample(tl.minimum(x, width - 1), widths[s], width, ALIGN_CORNERS, INDEX)
        row, _next, _down = sample(first, heights[s], height, ALIGN_CORNERS, INDEX)
        before = first < first_output(0, heights[s], height, ALIGN_CORNERS, INDEX)
        images += (shifted[s] + n * CLASSES * heights[s] * (widths[s] + 1),)
        lefts += (left[None, :],)
        shares_right += (across[None, :],)
        cells += (row - 1 - before.to(INDEX),)  # the one before that of the first row
        ends += (first.to(INDEX),)
        for p in tl.static_range(len(PARTS)):
            powers += (tl.zeros([PARTS[p], COLUMNS], tl.float32),)
            ratios += (tl.zeros([PARTS[p], COLUMNS], tl.float32),)
    steepest = tl.zeros([COLUMNS], tl.float32)
    enough = x >= 0
    for y in range(first, tl.minimum(first + ROWS, height)):
        next_cells, next_ends, next_powers, next_ratios = (), (), (), ()
        for s in tl.static_range(len(shifted)):
            cell, end = cells[s], ends[s]
            own_powers = powers[s * len(PARTS) : (s + 1) * len(PARTS)]
            own_ratios = ratios[s * len(PARTS) : (s + 1) * len(PARTS)]
            if y == end:
                cell += 1
                end = first_output(cell + 1, heights[s], height, ALIGN_CORNERS, INDEX)
                own_powers, own_ratios, steepest = _begin(
                    images[s], lefts[s], shares_right[s], cell, y, heights[s], widths[s], height, steepest,
                    CLASSES, ALIGN_CORNERS, INDEX, PARTS,
                )  # fmt: skip
            else:
                own_powers = _go_on(own_powers, own_ratios)
            next_cells += (cell,)
            next_ends += (end,)
            next_powers += own_powers
            next_ratios += own_ratios
        cells, ends, powers, ratios = next_cells, next_ends, next_powers, next_ratios
        best, index, large = _best(powers, weights, PARTS, CLASSES)
        enough &= large
        pixel = tl.cast(y, tl.int64) * width + x
        tl.store(label + pixel, index.to(tl.uint8), mask=x < width)
        tl.store(confidence + pixel, best, mask=x < width)
    if tl.min((enough & (steepest <= _STEEPEST)).to(tl.int32), axis=0) == 0:
        tl.debug_barrier()  # what is written above is written again
        for y in range(first, tl.minimum(first + ROWS, height), ROWS_WITH_MAXIMA):
            write_with_maxima(
                images, label, confidence, y, x, weights, heights, widths, CLASSES, height, width,
                False, ALIGN_CORNERS, INDEX, LEVELS, ROWS_WITH_MAXIMA,
            )  # fmt: skip


@triton.jit
def _begin(
    image, left, across, cell, y, input_height, input_width, height, steepest,
    CLASSES: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Powers at row y and their ratios from row to row in a cell, and how steep the steepest logit was."""
    line = tl.cast(input_width, INDEX) + 1
    above = tl.maximum(cell, 0) * line + left
    below = tl.minimum(cell + 1, input_height - 1) * line + left
    _row, _next, down = sample(y, input_height, height, ALIGN_CORNERS, INDEX)
    if ALIGN_CORNERS:
        step = (input_height - 1).to(tl.float32) / tl.maximum(height - 1, 1).to(tl.float32)
    else:
        step = input_height.to(tl.float32) / height.to(tl.float32)
    powers, ratios = (), ()
    for p in tl.static_range(len(PARTS)):
        c = _first_of(p, PARTS) + tl.arange(0, PARTS[p])
        there = c < CLASSES
        plane = image + tl.minimum(c, CLASSES - 1).to(INDEX)[:, None] * (input_height * line)
        top = between_columns(plane + above, across)
        slope = between_columns(plane + below, across) - top
        power = tl.exp2(tl.fma(slope, down, top)) * _LARGEST_POWER
        powers += (tl.where(there[:, None], power, 0.0),)
        ratios += (tl.exp2(slope * step),)
        steepest = tl.maximum(steepest, tl.max(tl.abs(slope), axis=0))
    return powers, ratios, steepest


@triton.jit
def _first_of(p: tl.constexpr, PARTS: tl.constexpr):
    """The first class of a part."""
    first = 0
    for before in tl.static_range(p):
        first += PARTS[before]
    return first


@triton.jit
def _go_on(powers, ratios):
    """One row further."""
    further = ()
    for p in tl.static_range(len(powers)):
        further += (powers[p] * ratios[p],)
    return further


@triton.jit
def _best(powers, weights, PARTS: tl.constexpr, CLASSES: tl.constexpr):
    """The highest mean probability, the lowest class that has it, and whether all sums of powers are large enough."""
    shares = ()
    large = True
    for s in tl.static_range(len(weights)):
        total = 0.0
        for p in tl.static_range(len(PARTS)):
            total += tl.sum(powers[s * len(PARTS) + p], axis=0)
        large &= total >= _LEAST_SUM
        shares += ((weights[s] / total)[None, :],)
    means = ()
    best = -1.0
    for p in tl.static_range(len(PARTS)):
        mean = powers[p] * shares[0]
        for s in tl.static_range(1, len(weights)):
            mean = tl.fma(powers[s * len(PARTS) + p], shares[s], mean)
        means += (mean,)
        best = tl.maximum(best, tl.max(mean, axis=0))
    index = CLASSES - 1
    for p in tl.static_range(len(PARTS)):
        c = _first_of(p, PARTS) + tl.arange(0, PARTS[p])
        index = tl.minimum(index, tl.min(tl.where(means[p] == best[None, :], c[:, None], CLASSES - 1), axis=0))
    return best, index, large
