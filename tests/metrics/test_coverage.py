"""Coverage and accuracy equal their definitions at every threshold."""

from __future__ import annotations

import math

import pytest
import torch

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.metrics import Coverage


def test_equal_to_the_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(4, 50, 50, generator=generator)
    confidence[0, 0] = torch.arange(50) / 100  # on the thresholds
    prediction = torch.randint(0, 3, confidence.shape, generator=generator, dtype=torch.uint8)
    target = torch.randint(0, 3, confidence.shape, generator=generator, dtype=torch.uint8)
    target[torch.rand(confidence.shape, generator=generator) < 0.2] = IGNORE_INDEX
    coverage = Coverage()
    for some in (slice(0, 1), slice(1, 4)):
        coverage.update(prediction[some], confidence[some], target[some])
    points = coverage.compute()
    assert len(points) == 101
    known = target != IGNORE_INDEX
    for threshold, covered, right in points[:-1]:
        sure = known & (confidence >= threshold)
        assert covered == pytest.approx((sure.sum() / known.sum()).item())
        assert right == pytest.approx((prediction == target)[sure].float().mean().item())


def test_full_confidence() -> None:
    coverage = Coverage()
    one = torch.zeros(1, 2, 2, dtype=torch.uint8)
    coverage.update(one, torch.ones(1, 2, 2), one)
    assert coverage.compute()[100] == (1.0, 1.0, 1.0)
    assert math.isnan(Coverage().compute()[0].accuracy)
