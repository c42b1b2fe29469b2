"""upsample_cross_entropy in Triton: what its kernels, in _cross_entropy_cells.py, are launched with."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from maskmatch.ops._checks import check_labels
from maskmatch.ops._upsample_cross_entropy import LossInputs, attach
from maskmatch.ops.triton._cross_entropy_cells import cell_kernel, divide_kernel, gather_kernel
from maskmatch.ops.triton._sampling import index_type, on_device_of
from maskmatch.ops.triton._shifted_logits import shift_logits

_COLUMNS, _WARPS = 32, 1  # pixels of a row that a program has at a time: small ones, without barriers
_MAX_ROWS = 8  # rows of pixels of a cell that it has at a time
_REGISTERS = 168  # a thread may take; left alone, ptxas stops at 128 and may spill
_BLOCK = 1024


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
    check_labels(target, logits.shape[1], ignore_index)
    inputs = _dense(LossInputs(
        logits, target, confidence, threshold, pixel_weight, class_weight,
        ignore_index, label_smoothing, align_corners, normalize, divisor,
    ))  # fmt: skip
    nothing = logits.new_empty(0, dtype=torch.float32)
    cells = _Cells(inputs)
    with on_device_of(logits):
        if normalize == "none":
            pixel_loss = logits.new_empty(target.shape, dtype=torch.float32)
            log_sum = torch.empty_like(pixel_loss) if with_gradient else None
            cells.launch(log_sum=log_sum, pixel_loss=pixel_loss, with_loss=True)
            return pixel_loss, nothing, nothing.clone() if log_sum is None else log_sum
        loss, divided_by = (logits.new_empty((), dtype=torch.float32) for _ in range(2))
        corners = cells.new_corners() if with_gradient else None
        cells.launch(with_loss=True, corners=corners)
        gradient = nothing if corners is None else cells.gather(corners)
        divide_kernel[(1,)](
            cells.partial_loss, cells.partial_counts, divisor, loss, divided_by, cells.programs,
            int(normalize == "confident"), _BLOCK,
        )  # fmt: skip
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
    cells = _Cells(inputs)
    with on_device_of(logits):
        corners = cells.new_corners()
        cells.launch(grad_output=grad_output.contiguous(), log_sum=log_sum.contiguous(), corners=corners)
        return cells.gather(corners).to(logits.dtype)


class _Cells:
    """A launch of cell_kernel: how the pixels of the cells are parted, and what its programs sum up."""

    def __init__(self, inputs: LossInputs) -> None:
        self.inputs = inputs
        count, _, input_height, input_width = inputs.logits.shape
        height, width = inputs.target.shape[-2:]
        rows = pixels_of_a_cell(input_height, height, inputs.align_corners)
        steps = pixels_of_a_cell(input_width, width, inputs.align_corners)
        self.rows = min(_MAX_ROWS, triton.next_power_of_2(rows))
        self.steps = min(_COLUMNS, triton.next_power_of_2(steps))
        self.blocks = triton.cdiv(rows, self.rows), triton.cdiv(steps, self.steps)
        self.cells = _COLUMNS // self.steps
        self.programs = count * (input_height + 1) * triton.cdiv(input_width + 1, self.cells)
        self.partial_loss = inputs.logits.new_empty(self.programs, dtype=torch.float32)
        self.partial_counts = inputs.logits.new_empty((2, self.programs), dtype=torch.int32)

    def new_corners(self) -> Tensor:
        count, classes, input_height, input_width = self.inputs.logits.shape
        size = (4, count, classes, input_height + 1, input_width + 1)
        return self.inputs.logits.new_empty(size, dtype=torch.float32)

    def launch(self, *, with_loss: bool = False, **maps: Tensor | None) -> None:
        """maps: what cell_kernel reads or writes beside the inputs, by its names; with `corners` the gradient."""
        given = self.inputs
        count, classes, input_height, input_width = given.logits.shape
        height, width = given.target.shape[-2:]
        if not self.programs:
            return
        index = index_type([given.logits], height, width)
        (shifted,) = shift_logits([given.logits], [False], index)
        cell_kernel[(self.programs,)](
            shifted, given.target, given.confidence, given.pixel_weight, given.class_weight, maps.get("grad_output"),
            maps.get("log_sum"), maps.get("pixel_loss"), self.partial_loss, self.partial_counts, maps.get("corners"),
            count, classes, input_height, input_width, height, width,
            given.threshold, given.ignore_index, given.label_smoothing, given.label_smoothing > 0, given.align_corners,
            index, with_loss, self.rows, self.steps, self.cells, *self.blocks,
            num_warps=_WARPS, maxnreg=_REGISTERS, debug=with_loss, sanitize_overflow=False,
        )  # fmt: skip

    def gather(self, corners: Tensor) -> Tensor:
        """The gradient, fp32 [N, C, h, w], from what `launch` wrote."""
        logits = self.inputs.logits
        count, classes, input_height, input_width = logits.shape
        gradient = torch.empty(logits.shape, dtype=torch.float32, device=logits.device)
        planes = count * classes
        if planes:
            index = index_type([logits], *self.inputs.target.shape[-2:])
            gather_kernel[(planes * triton.cdiv(input_height * input_width, _BLOCK),)](
                corners, gradient, input_height, input_width, planes, index, _BLOCK
            )
        return gradient


def pixels_of_a_cell(inputs: int, outputs: int, align_corners: bool) -> int:
    """The most outputs along an axis that lie between two neighbouring inputs, or before or beyond all, at least 1."""
    if inputs == 1:
        return outputs
    steps, length = (inputs - 1, outputs - 1) if align_corners else (inputs, outputs)
    return max(triton.cdiv(length, steps), 1)


run = attach("maskmatch_triton")
