"""How good a network is, in numbers and in pictures."""

from maskmatch.evaluation.boundary import BoundaryIoU
from maskmatch.evaluation.coverage import Coverage, CoveragePoint
from maskmatch.evaluation.inference import Inference, predict, predict_batch
from maskmatch.evaluation.measure import Measurement, measure
from maskmatch.evaluation.metrics import ConfusionMatrix, Metrics
from maskmatch.evaluation.pictures import save_confusion, save_curves, save_predictions
from maskmatch.evaluation.validate import Validator

__all__ = [
    "BoundaryIoU",
    "ConfusionMatrix",
    "Coverage",
    "CoveragePoint",
    "Inference",
    "Measurement",
    "Metrics",
    "Validator",
    "measure",
    "predict",
    "predict_batch",
    "save_confusion",
    "save_curves",
    "save_predictions",
]
