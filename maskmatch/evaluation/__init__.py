"""How good a network is, in numbers and in pictures."""

from maskmatch.evaluation.metrics import ConfusionMatrix, Metrics
from maskmatch.evaluation.pictures import save_curves, save_predictions
from maskmatch.evaluation.validate import Validator, predict

__all__ = [
    "ConfusionMatrix",
    "Metrics",
    "Validator",
    "predict",
    "save_curves",
    "save_predictions",
]
