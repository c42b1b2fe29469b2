"""Boundary IoU (Cheng et al., 2021): IoU of what lies near the edges, where fine detail shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.counting import count_each

DISTANCE = 0.02
"""How far the boundary of a region reaches into it, relative to the image's diagonal, as in the paper."""


class BoundaryIoU:
    """Counts of boundary pixels over any number of batches.

    `counts` is int64 [3, C] on the device: pixels in the boundary of the target's regions, of the prediction's, and
    of both with the same class. Those of several processes add up.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(3, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch: integer [N, H, W] on the device, IGNORE_INDEX in target to skip a pixel.

        An edge to ignored pixels is none, in the target and in the prediction.
        """
        prediction = torch.where(target == IGNORE_INDEX, IGNORE_INDEX, prediction.long())
        target = target.long()
        in_target, in_prediction = boundary(target), boundary(prediction)
        both = in_target & in_prediction & (prediction == target)
        for row, classes, inside in zip(
            self.counts, (target, prediction, target), (in_target, in_prediction, both), strict=True
        ):
            row += count_each(torch.where(inside, classes, self.num_classes), self.num_classes + 1)[:-1]

    def compute(self) -> list[float]:
        """The boundary IoU of each class; nan for a class without boundary in either."""
        in_target, in_prediction, both = self.counts.double().cpu()
        result: list[float] = (both / (in_target + in_prediction - both)).tolist()  # 0 / 0 is nan
        return result


def boundary(labels: Tensor) -> Tensor:
    """Whether another class, or the end of the image, is within the distance: int64 [N, H, W] -> bool [N, H, W].

    The distance is the larger of the two coordinates' differences. That is what the paper's erosions with a 3 x 3
    kernel come to.
    """
    height, width = labels.shape[1:]
    distance = max(1, round(DISTANCE * (height**2 + width**2) ** 0.5))
    ignored = labels == IGNORE_INDEX
    outside, nothing = IGNORE_INDEX + 1.0, -IGNORE_INDEX - 1.0
    highest = _highest(labels.float().masked_fill(ignored, nothing), distance, outside)
    lowest = -_highest((-labels.float()).masked_fill(ignored, nothing), distance, 1.0)
    return ((highest != labels) | (lowest != labels)) & ~ignored


def _highest(values: Tensor, distance: int, outside: float) -> Tensor:
    """The highest value within the distance, rows and columns one after the other."""
    padded = F.pad(values, (distance,) * 4, value=outside)
    window = 2 * distance + 1
    return F.max_pool2d(F.max_pool2d(padded, (1, window), stride=1), (window, 1), stride=1)
