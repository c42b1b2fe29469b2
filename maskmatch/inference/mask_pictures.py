"""Masks, confidences and overlays as picture files hold them."""

from __future__ import annotations

import numpy as np
from PIL import Image

from maskmatch.common.batch import IGNORE_INDEX

IGNORED_COLOR = (255, 255, 255)
OVERLAY = 0.5
"""How much of a class's colour covers the image."""


def mask_picture(labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """Class indices uint8 [H, W] as an indexed picture with the colours of `palette`, uint8 [C, 3]."""
    picture = Image.fromarray(labels)
    picture.putpalette(all_colors(palette).tobytes())  # which makes mode L mode P
    return picture


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """The image, uint8 [H, W, 3], under the colours of its classes."""
    mixed = (1 - OVERLAY) * image + OVERLAY * all_colors(palette)[labels]
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def confidence_picture(confidence: np.ndarray) -> Image.Image:
    """Confidences float32 [H, W] in [0, 1] as gray values from 0 to 255."""
    return Image.fromarray(np.rint(255 * confidence).astype(np.uint8))


def certain(labels: np.ndarray, confidence: np.ndarray, threshold: float) -> np.ndarray:
    """The labels, IGNORE_INDEX where the confidence is below the threshold."""
    return np.where(confidence >= np.float32(threshold), labels, np.uint8(IGNORE_INDEX))


def all_colors(palette: np.ndarray) -> np.ndarray:
    """Colours of all that a mask can hold, uint8 [256, 3]."""
    colors = np.full((256, 3), IGNORED_COLOR, np.uint8)
    colors[: len(palette)] = palette
    return colors
