"""Coverage against accuracy: how right a network is on the pixels that it is sure of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.common.counting import count_each

STEPS = 100
"""Thresholds from 0 to 1 are this fine."""


class CoveragePoint(NamedTuple):
    """What a threshold of the confidence would let through."""

    threshold: float
    coverage: float
    """Share of the pixels whose confidence is at least the threshold; nan where there are no pixels."""
    accuracy: float
    """Share of those that are right; nan where there are none."""


class Coverage:
    """A histogram of confidences over any number of batches.

    `counts` is int64 [2, STEPS + 1] on the device: pixels by the highest threshold that they reach, all and right
    ones. Those of several processes add up.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(2, STEPS + 1, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, confidence: Tensor, target: Tensor) -> None:
        """Count a batch, all of one shape: classes, confidences in [0, 1], and classes or IGNORE_INDEX to skip."""
        thresholds = torch.arange(STEPS + 1, device=confidence.device) / STEPS
        bins = torch.bucketize(confidence.contiguous(), thresholds, right=True) - 1
        for row, counted in zip(self.counts, (target != IGNORE_INDEX, target == prediction), strict=True):
            row += count_each(torch.where(counted, bins, STEPS + 1), STEPS + 2)[:-1]

    def compute(self) -> list[CoveragePoint]:
        """One point a threshold, from 0 to 1."""
        every, right = self.counts.double().cpu().flip(1).cumsum(1).flip(1)
        points = torch.stack([every / every[0], right / every], 1).tolist()  # 0 / 0 is nan
        return [CoveragePoint(index / STEPS, *point) for index, point in enumerate(points)]
