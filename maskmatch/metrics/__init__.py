"""How good a network is, in numbers and in pictures."""

from maskmatch.metrics.boundary import BoundaryIoU
from maskmatch.metrics.confusion import ConfusionMatrix, ImageCounts, Metrics
from maskmatch.metrics.coverage import Coverage, CoveragePoint
from maskmatch.metrics.figures import save_confusion, save_curves, save_predictions
from maskmatch.metrics.measurement import Measurement, measure
from maskmatch.metrics.validator import Validator

__all__ = [
    "BoundaryIoU",
    "ConfusionMatrix",
    "Coverage",
    "CoveragePoint",
    "ImageCounts",
    "Measurement",
    "Metrics",
    "Validator",
    "measure",
    "save_confusion",
    "save_curves",
    "save_predictions",
]
