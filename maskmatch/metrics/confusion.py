"""Metrics of semantic segmentation, from a confusion matrix that stays on the device until it is asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.counting import count_each, count_in_each
from maskmatch.metrics.bootstrap import standard_error, with_error


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
    error: float = math.nan
    """One standard error of `miou`, by bootstrap over the images; nan where those are not known one by one."""

    def text(self) -> str:
        """The mIoU and how sure it is."""
        return with_error(self.miou, self.error)


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
        _check_shapes(prediction, target)
        classes = self.num_classes
        pair = target.long() * classes + prediction.long()
        pair = torch.where(target == IGNORE_INDEX, classes * classes, pair)
        self.matrix += count_each(pair, classes * classes + 1)[:-1].view(classes, classes)

    def compute(self) -> Metrics:
        """The metrics of everything counted so far."""
        return metrics_of(torch.stack([self.matrix.diag(), self.matrix.sum(1), self.matrix.sum(0)]))


class ImageCounts:
    """What IoU follows from, image by image.

    `counts` is int64 [n, 3, C] on the device: of each class the pixels that are right, those in the targets and those
    in the predictions. Those of several processes add up.

    Args:
        number: of all images, n.
        num_classes: C.
        device: of the predictions.
        share: which of the images are counted here, in their order.
    """

    def __init__(self, number: int, num_classes: int, device: torch.device | str, share: slice = slice(None)) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(number, 3, num_classes, dtype=torch.int64, device=device)
        self._own, self._counted = self.counts[share], 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count the next images: integer [N, H, W] on the device, as `ConfusionMatrix.update`."""
        _check_shapes(prediction, target)
        ignored, none = target == IGNORE_INDEX, self.num_classes
        targets = torch.where(ignored, none, target.long())
        predictions = torch.where(ignored, none, prediction.long())
        right = torch.where(predictions == targets, targets, none)
        counts = [count_in_each(labels, none + 1)[:, :none] for labels in (right, targets, predictions)]
        self._own[self._counted : self._counted + len(target)] = torch.stack(counts, 1)
        self._counted += len(target)

    def compute(self) -> Metrics:
        """The metrics of all images, and how sure the mIoU is."""
        counts = self.counts.cpu()
        return metrics_of(counts.sum(0), standard_error(counts.numpy()))


def metrics_of(counts: Tensor, error: float = math.nan) -> Metrics:
    """Of all pixels, by class: int64 [3, C], those that are right, in the targets, in the predictions."""
    right, in_target, in_prediction = counts.double().cpu()
    iou = right / (in_target + in_prediction - right)  # 0 / 0 is nan
    return Metrics(
        miou=iou.nanmean().item(),
        iou=iou.tolist(),
        pixel_accuracy=(right.sum() / in_target.sum()).item(),
        mean_accuracy=(right / in_target).nanmean().item(),
        error=error,
    )


def _check_shapes(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(f"prediction must have target's shape {list(target.shape)}, got {list(prediction.shape)}")
