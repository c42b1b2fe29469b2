"""How good a network is, in numbers and in pictures."""

from maskmatch.evaluation.inference import Inference, predict, predict_batch
from maskmatch.evaluation.metrics import ConfusionMatrix, Metrics
from maskmatch.evaluation.pictures import save_curves, save_predictions
from maskmatch.evaluation.validate import Validator

__all__ = [
    "ConfusionMatrix",
    "Inference",
    "Metrics",
    "Validator",
    "predict",
    "predict_batch",
    "save_curves",
    "save_predictions",
]
