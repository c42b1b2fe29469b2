"""What a loader hands to the method: one step's images as plain tensors."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

IGNORE_INDEX = 255
"""The target value of pixels that count in no loss and in no metric."""


class Batch(NamedTuple):
    """One step of one process. Images are in channels-last memory, on the training device.

    They are uint8, or float32 where `make_loader` was told to normalise them.

    The unlabelled fields are None in a supervised-only run.
    """

    images: Tensor  # uint8 [N, 3, H, W], the labelled images' weak views
    target: Tensor  # uint8 [N, H, W], class indices, IGNORE_INDEX where unlabelled or padded
    weak: Tensor | None  # uint8 [M, 3, H, W], the unlabelled images' weak views
    strong: Tensor | None  # uint8 [M, 3, H, W], the same geometry with colours disturbed
    valid: Tensor | None  # bool [M, H, W], False on pixels added by padding
    seeds: Tensor | None  # int64 [M], from (seed, epoch, sample id): key of the patch masks and CutMix boxes
    boxes: Tensor | None = None  # bool [M, H, W], where CutMix takes the neighbour's pixels; `MaskMatch.draw` adds them
    truth: Tensor | None = None  # uint8 [M, H, W], true classes of `weak` where they are known; to measure with, alone
