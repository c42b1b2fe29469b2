"""CutMix (Yun et al., 2019) between neighbours: image 2i takes a box from image 2i + 1, and the other way round."""

from __future__ import annotations

import torch
from torch import Tensor

from maskmatch.ops import uniform

# UniMatch's ranges: every second image is mixed; the box covers 2 to 40 % of it.
PROBABILITY = 0.5
AREA = (0.02, 0.4)
ASPECT = (0.3, 1 / 0.3)
STREAM = 1  # keeps these numbers apart from those of the patch masks, which have the same seeds


def cutmix_boxes(seeds: Tensor, height: int, width: int) -> Tensor:
    """Draw one box an image.

    Args:
        seeds: int64 [N], from (seed, epoch, sample id).
        height, width: size of the images in pixels.

    Returns:
        bool [N, height, width], True inside the box; all False where the image stays as it is.
    """
    draw, area, aspect, top, left = uniform(seeds, 5, STREAM).unbind(1)  # each float32 [N]
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * height * width
    # The aspect ratio is uniform in its logarithm, so that wide and tall boxes are equally likely.
    aspect = ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** aspect
    box_height = (area * aspect).sqrt().round().clamp(1, height)
    box_width = (area / aspect).sqrt().round().clamp(1, width)
    top = (top * (height - box_height + 1)).floor()
    left = (left * (width - box_width + 1)).floor()
    y = torch.arange(height, device=seeds.device)
    x = torch.arange(width, device=seeds.device)
    rows = (y >= top[:, None]) & (y < (top + box_height)[:, None]) & (draw < PROBABILITY)[:, None]  # [N, H]
    columns = (x >= left[:, None]) & (x < (left + box_width)[:, None])  # [N, W]
    return rows[:, :, None] & columns[:, None, :]


def mix(boxes: Tensor, values: Tensor) -> Tensor:
    """Take the neighbour's values inside the boxes.

    Args:
        boxes: bool [N, H, W], N even.
        values: [N, H, W] or [N, C, H, W], any dtype.
    """
    neighbour = values.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return torch.where(boxes if values.dim() == 3 else boxes[:, None], neighbour, values)
