"""multiscale_pseudo_label in Triton: what its kernels, in _pseudo_label_tile.py, are launched with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from maskmatch.ops._multiscale_pseudo_label import attach
from maskmatch.ops.triton._pseudo_label_tile import pseudo_label_kernel
from maskmatch.ops.triton._sampling import index_type, on_device_of
from maskmatch.ops.triton._shifted_logits import shift_logits

_COLUMNS, _WARPS = 64, 2  # of a tile: many small programs
_ROWS = 8  # of a tile, or fewer where they would reach more input rows than this
_MAX_LEVELS = 4


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
    rows, levels = tile_rows(heights, height, align_corners)
    with on_device_of(label):
        pseudo_label_kernel[(count * triton.cdiv(height, rows) * triton.cdiv(width, _COLUMNS),)](
            shift_logits(logits, mirrored, index), label, confidence, tuple(weights), heights, widths, classes,
            height, width, average == "logit", align_corners, index, levels, rows, _COLUMNS, num_warps=_WARPS,
        )  # fmt: skip
    return label, confidence


def tile_rows(heights: Sequence[int], height: int, align_corners: bool) -> tuple[int, tuple[int, ...]]:
    """Rows of a tile, and how many input rows of each scale they may reach."""
    rows = _ROWS
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
