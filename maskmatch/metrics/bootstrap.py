"""How sure an mIoU is, and how sure the difference of two networks on the same images.

The standard error is the spread over samples of the images, drawn with replacement, as many as there are: the bootstrap
(Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979). An image that is hard is hard for both networks, so
their difference is surer than either figure: there each sample is of both (the paired bootstrap). The samples are the
same every time. Images of one scene are taken for separate ones, and few images for all there are: of two or three the
error is too small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SAMPLES = 1000
AT_ONCE = 2**20  # draws of an image, so that samples of many images do not fill the memory


class Difference(NamedTuple):
    """In mIoU, a fraction."""

    value: float
    error: float  # one standard error; nan of a single image


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


def standard_error(counts: np.ndarray) -> float:
    """One standard error of the mIoU of all images together, a fraction; nan of a single image.

    `counts`, int64 [n, 3, C], are those of `ImageCounts`.
    """
    return float("nan") if len(counts) < 2 else _spread(np.concatenate([miou(sums) for sums in _samples(counts)]))


def difference(one: np.ndarray, other: np.ndarray) -> Difference:
    """By how much the mIoU of `one` is above that of `other`, int64 [n, 3, C] of the same images."""
    value = float(miou(one.sum(0)) - miou(other.sum(0)))
    if len(one) < 2:
        return Difference(value, float("nan"))
    pairs = zip(_samples(one), _samples(other), strict=True)
    return Difference(value, _spread(np.concatenate([miou(sums) - miou(others) for sums, others in pairs])))


def with_error(value: float, error: float | None, digits: int = 4) -> str:
    """`0.5123 +- 0.0211`, the latter one standard error; `?` where nothing says how sure the value is."""
    unknown = error is None or math.isnan(error)
    return f"{value:.{digits}f} +- " + ("?" if unknown else f"{error:.{digits}f}")


def _samples(counts: np.ndarray) -> Iterator[np.ndarray]:
    """float64 [s, 3, C], whole numbers, of some samples of the images after others; SAMPLES together."""
    number = len(counts)
    generator, flat = np.random.default_rng(0), counts.reshape(number, -1).astype(np.float64)
    most = max(1, AT_ONCE // number)
    for first in range(0, SAMPLES, most):
        draws = generator.multinomial(number, np.full(number, 1 / number), min(most, SAMPLES - first))
        yield (draws.astype(np.float64) @ flat).reshape(-1, *counts.shape[1:])


def _spread(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.std()) if len(known) else float("nan")
