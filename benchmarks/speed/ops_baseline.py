"""What one would write with torch in the place of each operator; tests compare it with maskmatch.ops.reference.

It is not the reference itself, which checks its labels and weighs its scales, and so takes longer than it need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits.float(), size, mode="bilinear")


def pseudo_label(scales: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Label int64 and confidence, [N, H, W]."""
    total = resized(scales[0], size).softmax(1)
    for scale in scales[1:]:
        total = total + resized(scale, size).softmax(1)
    confidence, label = (total / len(scales)).max(1)
    return label, confidence


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Of every pixel, [N, H, W]; target int64."""
    size = (target.shape[-2], target.shape[-1])
    return F.cross_entropy(resized(logits, size), target, ignore_index=255, reduction="none")


def mean_loss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Over all pixels that are not ignored, of the confident ones."""
    return (pixel_loss(logits, target) * (confidence >= threshold)).sum() / (target != 255).sum()


def spread(grid: Tensor, patch: int, height: int, width: int) -> Tensor:
    """A patch grid at pixels, bool [N, 1, H, W]."""
    return grid.repeat_interleave(patch, 1).repeat_interleave(patch, 2)[:, None, :height, :width]


def masked(images: Tensor, grid: Tensor, patch: int, mean: Tensor, scale: Tensor) -> Tensor:
    """`(images - mean) * scale` with zeros in the hidden patches; mean and scale [1, C, 1, 1], in the images' units."""
    hidden = spread(grid, patch, images.shape[-2], images.shape[-1])
    return ((images - mean) * scale).masked_fill_(hidden, 0.0)


def random_grid(count: int, rows: int, columns: int, hidden: int, device: torch.device) -> Tensor:
    """`hidden` patches of each image at random, bool [N, rows, columns]."""
    rank = torch.rand(count, rows * columns, device=device).argsort(1).argsort(1)
    return (rank < hidden).view(count, rows, columns)
