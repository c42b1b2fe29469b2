"""All that can be said of a network on images with masks, in one pass over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from maskmatch.common.json_values import finite
from maskmatch.metrics.boundary import BoundaryIoU
from maskmatch.metrics.confusion import ConfusionMatrix, ImageCounts, Metrics
from maskmatch.metrics.coverage import Coverage, CoveragePoint
from maskmatch.metrics.validator import Validator


@dataclass(frozen=True)
class Measurement:
    """Fractions in [0, 1]; nan where there was nothing to measure."""

    metrics: Metrics
    boundary_iou: list[float]
    """Of each class."""
    coverage: list[CoveragePoint]
    """One a threshold, from 0 to 1."""
    matrix: np.ndarray
    """int64 [C, C], rows are targets, columns predictions."""

    @property
    def mean_boundary_iou(self) -> float:
        """The mean over the classes that have a boundary anywhere."""
        known = [value for value in self.boundary_iou if not math.isnan(value)]
        return sum(known) / len(known) if known else math.nan

    def record(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Everything, for JSON: null where there was nothing to measure."""
        pixels = self.matrix.sum(1)
        accuracy = [self.matrix[i, i] / pixels[i] if pixels[i] else math.nan for i in range(len(pixels))]
        classes = zip(class_names, self.metrics.iou, self.boundary_iou, accuracy, pixels.tolist(), strict=True)
        return {
            "miou": finite(self.metrics.miou),
            "miou_error": finite(self.metrics.error),
            "mean_boundary_iou": finite(self.mean_boundary_iou),
            "pixel_accuracy": finite(self.metrics.pixel_accuracy),
            "mean_accuracy": finite(self.metrics.mean_accuracy),
            "classes": [
                {
                    "name": name,
                    "iou": finite(iou),
                    "boundary_iou": finite(boundary_iou),
                    "accuracy": finite(right),
                    "pixels": count,
                }
                for name, iou, boundary_iou, right, count in classes
            ],
            "coverage": [
                {"threshold": threshold, "coverage": finite(coverage), "accuracy": finite(right)}
                for threshold, coverage, right in self.coverage
            ],
            "confusion": self.matrix.tolist(),
        }


def measure(
    validator: Validator,
    network: nn.Module,
    total: Callable[[Tensor], Tensor],
    seen: Callable[[Tensor, Tensor], object],
) -> Measurement:
    """Run `network` over the validator's images.

    Args:
        validator: has this process's part of the images.
        network: the validator's student's or one like it, on its device.
        total: sums counts over the processes.
        seen: is given each batch's labels and targets, uint8 [N, H, W] on the device.
    """
    confusion = ConfusionMatrix(validator.num_classes, validator.device)
    images = ImageCounts(len(validator.pairs), validator.num_classes, validator.device, validator.share)
    edges = BoundaryIoU(validator.num_classes, validator.device)
    coverage = Coverage(validator.device)
    for label, confidence, target in validator.predictions(network):
        confusion.update(label, target)
        images.update(label, target)
        edges.update(label, target)
        coverage.update(label, confidence, target)
        seen(label, target)
    confusion.matrix = total(confusion.matrix)
    images.counts = total(images.counts)
    edges.counts = total(edges.counts)
    coverage.counts = total(coverage.counts)
    return Measurement(images.compute(), edges.compute(), coverage.compute(), confusion.matrix.cpu().numpy())
