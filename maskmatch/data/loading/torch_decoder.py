"""Decoding and cropping with OpenCV and Pillow: works wherever torch does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from maskmatch.data.loading.loader import Item
from maskmatch.data.loading.source import Source
from maskmatch.data.loading.views import Geometry, crop_image, plan


class TorchDecoder:
    """Weak views on the CPU; safe to call from several threads at once."""

    def __init__(self, crop: tuple[int, int], source: Source) -> None:
        self.crop = crop
        self.source = source

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, list[Geometry]]:
        """Weak views, uint8 [N, H, W, 3], and how each was cut out."""
        views = np.empty((len(items), *self.crop, 3), np.uint8)
        geometries = []
        for (pair, sample), out in zip(items, views, strict=True):
            image = self.source.image(pair)
            geometry = plan(image.shape[0], image.shape[1], sample, self.crop)
            crop_image(image, geometry, out)
            geometries.append(geometry)
        return torch.from_numpy(views), geometries
