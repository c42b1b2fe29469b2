"""What networks are fed: (image in units of [0, 1] - mean) / std. `ops.patch_mask` does the same where it masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def normalized(images: Tensor, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> Tensor:
    """float32 [N, 3, H, W] of images that are uint8, or float in units of [0, 1]; `mean` and `std` by channel."""
    unit = images if images.is_floating_point() else images / 255
    return (unit - _by_channel(mean, images)) / _by_channel(std, images)


def _by_channel(values: Sequence[float] | Tensor, images: Tensor) -> Tensor:
    return (values if isinstance(values, Tensor) else torch.tensor(values, device=images.device))[:, None, None]
