"""Two networks on the same images: how much better one is, and how sure that is.

An image that is hard is hard for both, so their difference is surer than either figure. Its standard error is the
spread of the difference over samples of the images, drawn with replacement: the paired bootstrap (Efron, 1979).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskmatch.metrics.confusion import ConfusionMatrix
from maskmatch.metrics.validator import Validator

SAMPLES = 1000


class Difference(NamedTuple):
    """In mIoU, a fraction."""

    value: float
    error: float  # one standard error; nan of a single image


def counts_by_image(
    validator: Validator, network: nn.Module, images: slice, number: int, total: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """What a network's IoU follows from, image by image.

    Args:
        validator: has this process's part of the images.
        network: the validator's student's or one like it, on its device.
        images: which of all images this part is.
        number: of all images, n.
        total: adds up tensors over the processes.

    Returns:
        int64 [n, 3, C]: of each class the pixels that are right, those in the targets and those in the predictions.
    """
    counts = []
    for labels, _, targets in validator.predictions(network):
        for label, target in zip(labels, targets, strict=True):
            confusion = ConfusionMatrix(validator.num_classes, validator.device)
            confusion.update(label, target)
            counts.append(torch.stack([confusion.matrix.diag(), confusion.matrix.sum(1), confusion.matrix.sum(0)]))
    found = torch.zeros(number, 3, validator.num_classes, dtype=torch.int64, device=validator.device)
    if counts:
        found[images] = torch.stack(counts)
    return total(found).cpu().numpy()


def iou(counts: np.ndarray) -> np.ndarray:
    """[..., 3, C] -> IoU of each class, float64 [..., C]; nan for a class that occurs in neither."""
    right, target, prediction = np.moveaxis(counts.astype(np.float64), -2, 0)
    either = target + prediction - right
    return np.divide(right, either, out=np.full_like(right, np.nan), where=either > 0)


def miou(counts: np.ndarray) -> np.ndarray:
    """[..., 3, C] -> the mean over the classes that occur, float64 [...]."""
    of_classes = iou(counts)
    known = ~np.isnan(of_classes)
    sums = np.where(known, of_classes, 0).sum(-1)
    return np.divide(sums, known.sum(-1), out=np.full_like(sums, np.nan), where=known.any(-1))


def difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """By how much the mIoU of `one` is above that of `other`, both from `counts_by_image` on the same images."""
    number = len(one)
    value = float(miou(one.sum(0)) - miou(other.sum(0)))
    if number < 2:
        return Difference(value, float("nan"))
    draws = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), SAMPLES)
    of_samples = [miou(np.einsum("sn,nkc->skc", draws, counts)) for counts in (one, other)]
    return Difference(value, float(np.nanstd(of_samples[0] - of_samples[1])))
