"""The fast kernel of multiscale_pseudo_label: a program walks down a strip of pixels, with all their classes at hand.

Between two input rows a resized logit is linear down a column, so that its power is a geometric series: two
exponentials where a column passes an input row, and a multiplication a pixel. Powers are of shifted logits, see
_shifted_logits.py, with the classes of a node side by side. LANES threads share a pixel, with OWN classes each, whose
powers and ratios are tensors [LANES, COLUMNS], a register each.
"""

# mypy: disable-error-code="assignment, misc, var-annotated"
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
of them stays below 2^-126 of the largest at the other."""
_LEAST_SUM = tl.constexpr(2.0**4)
"""To which such powers add nothing: 2^-96 of the largest."""


@triton.jit(do_not_specialize=["weights", "heights", "widths", "height", "width"])
def pseudo_label_series_kernel(
    shifted, label, confidence, weights, heights, widths, height: tl.int32, width: tl.int32,
    CLASSES: tl.constexpr, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr,
    OWN: tl.constexpr, LANES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    ROWS_WITH_MAXIMA: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """Label and confidence of ROWS x COLUMNS pixels.

    shifted: S pointers, [N, h_s, w_s + 1, LANES * OWN] fp32, as _shifted_logits.py describes them.
    label, confidence, weights, heights, widths, height, width: as of pseudo_label_kernel.
    ROWS_WITH_MAXIMA, LEVELS: where a series would not do, so many rows at a time, and the input rows that they reach.
    """
    program = tl.program_id(0)
    column_blocks, row_blocks = tl.cdiv(width, COLUMNS), tl.cdiv(height, ROWS)
    x = program % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    first = program // column_blocks % row_blocks * ROWS
    n = (program // column_blocks // row_blocks).to(tl.int64)
    label, confidence = label + n * height * width, confidence + n * height * width
    images, columns, cells, ends, powers, ratios = (), (), (), (), (), ()
    for s in tl.static_range(len(shifted)):
        left, _right, across = sample(tl.minimum(x, width - 1), widths[s], width, ALIGN_CORNERS, INDEX)
        images += (shifted[s] + n * heights[s] * (widths[s] + 1) * (LANES * OWN),)
        columns += ((left[None, :], across[None, :]),)
        cells += (_cell_before(first, heights[s], height, ALIGN_CORNERS, INDEX),)
        ends += (tl.cast(first, INDEX),)
        for _ in tl.static_range(OWN):
            powers += (tl.zeros([LANES, COLUMNS], tl.float32),)
            ratios += (tl.zeros([LANES, COLUMNS], tl.float32),)
    steepest, enough = tl.zeros([LANES, COLUMNS], tl.float32), x >= 0
    for y in range(first, tl.minimum(first + ROWS, height)):
        next_cells, next_ends, next_powers, next_ratios = (), (), (), ()
        for s in tl.static_range(len(shifted)):
            cell, end = cells[s], ends[s]
            own_powers, own_ratios = powers[s * OWN : (s + 1) * OWN], ratios[s * OWN : (s + 1) * OWN]
            if y == end:
                cell, end = cell + 1, first_output(cell + 2, heights[s], height, ALIGN_CORNERS, INDEX)
                own_powers, own_ratios, steepest = _begin(
                    images[s], columns[s], cell, y, heights[s], widths[s], height, steepest, ALIGN_CORNERS, INDEX, OWN,
                    LANES,
                )  # fmt: skip
            else:
                own_powers = _go_on(own_powers, own_ratios)
            next_cells += (cell,)
            next_ends += (end,)
            next_powers += own_powers
            next_ratios += own_ratios
        cells, ends, powers, ratios = next_cells, next_ends, next_powers, next_ratios
        best, index, large = _best(powers, weights, OWN, LANES)
        enough &= large
        pixel = tl.cast(y, tl.int64) * width + x
        tl.store(label + pixel, index.to(tl.uint8), mask=x < width)
        tl.store(confidence + pixel, best, mask=x < width)
    if tl.min((enough & (tl.max(steepest, axis=0) <= _STEEPEST)).to(tl.int32), axis=0) == 0:
        tl.debug_barrier()  # what is written above is written again
        for y in range(first, tl.minimum(first + ROWS, height), ROWS_WITH_MAXIMA):
            write_with_maxima(
                images, label, confidence, y, x, weights, heights, widths, CLASSES, height, width,
                False, ALIGN_CORNERS, INDEX, LEVELS, ROWS_WITH_MAXIMA, LANES * OWN,
            )  # fmt: skip


@triton.jit
def _cell_before(y, input_height, height, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr):
    """The cell above that of row y, by the input row above it: -1 for pixels before the first, and -2 above those."""
    row, _next, _down = sample(y, input_height, height, ALIGN_CORNERS, INDEX)
    return row - 1 - (y < first_output(0, input_height, height, ALIGN_CORNERS, INDEX)).to(INDEX)


@triton.jit
def _begin(
    image, column, cell, y, input_height, input_width, height, steepest,
    ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr, OWN: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Powers at row y and their ratios from row to row in a cell, and how steep the steepest logit was."""
    left, across = column
    line = tl.cast(input_width, INDEX) + 1
    lane = tl.arange(0, LANES)[:, None] * OWN
    above = image + (tl.maximum(cell, 0) * line + left) * (LANES * OWN) + lane
    below = image + (tl.minimum(cell + 1, input_height - 1) * line + left) * (LANES * OWN) + lane
    _row, _next, down = sample(y, input_height, height, ALIGN_CORNERS, INDEX)
    if ALIGN_CORNERS:
        step = tl.cast(input_height - 1, tl.float32) / tl.cast(tl.maximum(height - 1, 1), tl.float32)
    else:
        step = tl.cast(input_height, tl.float32) / tl.cast(height, tl.float32)
    powers, ratios = (), ()
    for i in tl.static_range(OWN):
        top = between_columns(above + i, across, LANES * OWN)
        slope = between_columns(below + i, across, LANES * OWN) - top
        powers += (tl.exp2(tl.fma(slope, down, top)) * _LARGEST_POWER,)
        ratios += (tl.exp2(slope * step),)
        steepest = tl.maximum(steepest, tl.abs(slope))
    return powers, ratios, steepest


@triton.jit
def _go_on(powers, ratios):
    """One row further."""
    further = ()
    for i in tl.static_range(len(powers)):
        further += (powers[i] * ratios[i],)
    return further


@triton.jit
def _best(powers, weights, OWN: tl.constexpr, LANES: tl.constexpr):
    """The highest mean probability, the lowest class that has it, and whether all sums of powers are large enough."""
    shares = ()
    large = True
    for s in tl.static_range(len(weights)):
        total, other = powers[s * OWN], tl.zeros_like(powers[0])  # two chains of additions
        for i in tl.static_range(1, OWN):
            total, other = other + powers[s * OWN + i], total
        total = tl.sum(total + other, axis=0)
        large &= total >= _LEAST_SUM
        shares += ((weights[s] / total)[None, :],)
    best, own = tl.full(powers[0].shape, -1.0, tl.float32), tl.zeros(powers[0].shape, tl.int32)
    for i in tl.static_range(OWN):
        mean = powers[i] * shares[0]
        for s in tl.static_range(1, len(weights)):
            mean = tl.fma(powers[s * OWN + i], shares[s], mean)
        own = tl.where(mean > best, i, own)
        best = tl.maximum(mean, best)
    highest = tl.max(best, axis=0)
    label = tl.arange(0, LANES)[:, None] * OWN + own
    return highest, tl.min(tl.where(best == highest[None, :], label, LANES * OWN), axis=0), large
