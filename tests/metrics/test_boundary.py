"""Boundary IoU equals the paper's definition, by erosions."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.metrics import BoundaryIoU

CLASSES = 4


def regions(seed: int, height: int, width: int) -> np.ndarray:
    """Blobs of four classes, uint8 [H, W]."""
    coarse = np.random.default_rng(seed).random((CLASSES, 5, 6)).astype(np.float32)
    return np.stack([cv2.resize(plane, (width, height)) for plane in coarse]).argmax(0).astype(np.uint8)


def paper(mask: np.ndarray) -> np.ndarray:
    """`mask_to_boundary` of Cheng et al.: a binary mask without what is left of it after d erosions."""
    height, width = mask.shape
    distance = max(1, round(0.02 * math.hypot(height, width)))
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)
    return mask - eroded[1:-1, 1:-1]


@pytest.mark.parametrize("size", [(60, 80), (150, 200), (9, 7), (1, 40)])
def test_equal_to_the_paper(size: tuple[int, int]) -> None:
    target, prediction = (np.stack([regions(10 * k + i, *size) for i in range(3)]) for k in range(2))
    measured = BoundaryIoU(CLASSES)
    for some in (slice(0, 2), slice(2, 3)):  # batches add up
        measured.update(torch.tensor(prediction[some]), torch.tensor(target[some]))
    for c in range(CLASSES):
        pairs = [
            (paper((t == c).astype(np.uint8)), paper((p == c).astype(np.uint8)))
            for t, p in zip(target, prediction, strict=True)
        ]
        union = sum(int((t | p).sum()) for t, p in pairs)
        expected = sum(int((t & p).sum()) for t, p in pairs) / union if union else math.nan
        assert measured.compute()[c] == pytest.approx(expected, nan_ok=True)


def test_ignored_pixels_make_no_boundary_and_do_not_count() -> None:
    target = np.zeros((1, 100, 100), np.uint8)
    target[0, 40:60, 40:60] = IGNORE_INDEX
    prediction = np.zeros_like(target)
    prediction[0, 45:55, 45:55] = 1  # where nobody knows
    measured = BoundaryIoU(CLASSES)
    measured.update(torch.tensor(prediction), torch.tensor(target))
    frame = 100**2 - 94**2  # 3 pixels at the end of the image
    assert measured.counts[:, :2].tolist() == [[frame, 0]] * 3
    assert measured.compute()[0] == 1 and math.isnan(measured.compute()[1])


def test_largest_number_of_classes() -> None:
    target = torch.full((1, 30, 30), 254)
    target[:, :, 15:] = IGNORE_INDEX
    measured = BoundaryIoU(255)
    measured.update(torch.full((1, 30, 30), 254, dtype=torch.uint8), target)
    assert measured.counts[:, 254].tolist() == [30 * 15 - 28 * 14] * 3
