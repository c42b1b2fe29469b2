"""multiscale_pseudo_label in Triton: which of its two kernels runs, and what it is launched with.

`series` in _pseudo_label_series.py is the fast one; `general` in _pseudo_label_tile.py takes every shape and option.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from maskmatch.ops import _backend
from maskmatch.ops._multiscale_pseudo_label import attach
from maskmatch.ops.triton._pseudo_label_series import pseudo_label_series_kernel
from maskmatch.ops.triton._pseudo_label_tile import pseudo_label_kernel
from maskmatch.ops.triton._sampling import index_type, on_device_of
from maskmatch.ops.triton._shifted_logits import shift_logits

_COLUMNS, _WARPS = 64, 2  # of a tile of the general form: many small programs
_ROWS = 8  # of a tile, or fewer where they would reach more input rows than this
_MAX_LEVELS = 4

_LANES = 32
_SERIES_ROWS = 20  # of a strip: what a series loses to rounding grows with its length
_SERIES_ROWS_WITH_MAXIMA = 4  # of a strip that is done again, at a time, at most; its rows are a multiple
_SERIES_OF_A_LANE = 64  # each is a power and a ratio, in a register each
_SERIES_REGISTERS = 168  # a thread may take; left alone, ptxas stops at 128 and may spill


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
    if not count:
        return label, confidence
    heights, widths = tuple(scale.shape[2] for scale in logits), tuple(scale.shape[3] for scale in logits)
    # A mirrored input gives a mirrored result, but where align_corners has its one column read the first one.
    mirrored = [bool(flip) and not (align_corners and width == 1) for flip in flipped]
    index = index_type(logits, height, width)
    form = form_of(classes, heights, height, average)
    _backend.ran("triton", "multiscale_pseudo_label", form)
    with on_device_of(label):
        if form == "series":
            rows, lanes = _SERIES_ROWS, series_lanes(classes, len(logits))
            own, columns = triton.cdiv(classes, lanes), _LANES // lanes
            most = min(lanes, _SERIES_ROWS_WITH_MAXIMA)
            rows_with_maxima, levels = tile_rows(heights, height, align_corners, most)
            pseudo_label_series_kernel[(count * triton.cdiv(height, rows) * triton.cdiv(width, columns),)](
                shift_logits(logits, mirrored, index, own * lanes), label, confidence, tuple(weights), heights, widths,
                height, width, classes, align_corners, index, own, lanes, rows, columns, rows_with_maxima, levels,
                num_warps=1, maxnreg=_SERIES_REGISTERS,
            )  # fmt: skip
        else:
            rows, levels = tile_rows(heights, height, align_corners)
            pseudo_label_kernel[(count * triton.cdiv(height, rows) * triton.cdiv(width, _COLUMNS),)](
                shift_logits(logits, mirrored, index), label, confidence, tuple(weights), heights, widths, classes,
                height, width, average == "logit", align_corners, index, levels, rows, _COLUMNS, num_warps=_WARPS,
            )  # fmt: skip
    return label, confidence


def form_of(classes: int, heights: Sequence[int], height: int, average: str) -> str:
    """`series` where probabilities are averaged, input rows lie two rows of pixels or more apart, and lanes suffice."""
    fits = series_lanes(classes, len(heights)) <= _LANES
    return "series" if fits and average == "probability" and 2 * max(heights) <= height else "general"


def series_lanes(classes: int, scales: int) -> int:
    """How many threads, a power of two, share a pixel's classes."""
    return triton.next_power_of_2(triton.cdiv(classes * scales, _SERIES_OF_A_LANE))


def tile_rows(
    heights: Sequence[int], height: int, align_corners: bool, most: int = _ROWS
) -> tuple[int, tuple[int, ...]]:
    """Rows of a tile, at most so many, and how many input rows of each scale they may reach."""
    rows = min(most, _ROWS)
    while True:
        levels = tuple(reach(rows, h, height, align_corners) for h in heights)
        if rows == 1 or max(levels) <= _MAX_LEVELS:
            return rows, levels
        rows //= 2


def reach(rows: int, input_height: int, height: int, align_corners: bool) -> int:
    """How many input rows so many neighbouring pixels may reach: from the first one's upper row on, and at least 2."""
    steps, length = (input_height - 1, height - 1) if align_corners else (input_height, height)
    return triton.cdiv((rows - 1) * steps, max(length, 1)) + 2


run = attach("maskmatch_triton")
