"""Metrics of semantic segmentation, from a confusion matrix that stays on the device until it is asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.counting import count_each


@dataclass(frozen=True)
class Metrics:
    """Fractions in [0, 1]; nan where there was nothing to measure."""

    miou: float
    """Mean of `iou` over the classes that occur in the targets or in the predictions."""
    iou: list[float]
    """Intersection over union of each class; nan for a class that occurs in neither."""
    pixel_accuracy: float
    """Share of the pixels that are right."""
    mean_accuracy: float
    """Mean, over the classes that occur in the targets, of the share of a class's pixels that are right."""


class ConfusionMatrix:
    """Counts of (target, prediction) pairs over any number of batches.

    `matrix` is int64 [C, C] on the device: rows are targets, columns predictions. Those of several processes
    add up.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch: integer tensors of one shape on the device, IGNORE_INDEX in target to skip a pixel.

        Nothing waits for the device.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction must have target's shape {list(target.shape)}, got {list(prediction.shape)}")
        classes = self.num_classes
        pair = target.long() * classes + prediction.long()
        pair = torch.where(target == IGNORE_INDEX, classes * classes, pair)
        self.matrix += count_each(pair, classes * classes + 1)[:-1].view(classes, classes)

    def compute(self) -> Metrics:
        """The metrics of everything counted so far."""
        matrix = self.matrix.double().cpu()
        right, in_target, in_prediction = matrix.diag(), matrix.sum(1), matrix.sum(0)
        iou = right / (in_target + in_prediction - right)  # 0 / 0 is nan
        return Metrics(
            miou=iou.nanmean().item(),
            iou=iou.tolist(),
            pixel_accuracy=(right.sum() / matrix.sum()).item(),
            mean_accuracy=(right / in_target).nanmean().item(),
        )
