"""L_x: cross-entropy on the labelled images, weighted by class or over the hardest pixels where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskmatch.common.batch import IGNORE_INDEX
from maskmatch.ops import upsample_cross_entropy


class SupervisedLoss:
    """The weighted mean of the labelled pixels' losses, or of the hardest of them.

    Args:
        class_weights: one number a class, as in `torch.nn.CrossEntropyLoss(weight)`, whose divisor this also has.
        hardest: share of a call's labelled pixels that count, those with the highest loss: online hard example
            mining (Shrivastava et al., 2016). Of several micro-batches or processes each chooses among its own, so
            that the choice, unlike all else, depends on how a batch is divided.
        align_corners: how the logits are to be upsampled.
    """

    def __init__(
        self, class_weights: Sequence[float] | None = None, hardest: float = 1.0, *, align_corners: bool = False
    ) -> None:
        self.class_weights, self.hardest, self.align_corners = class_weights, hardest, align_corners
        self._weights: dict[torch.device, Tensor] = {}

    def divisor(self, target: Tensor) -> Tensor:
        """What to divide by: the number of non-ignored pixels, int64, or the sum of their weights, float64; scalar.

        Of several batches that are to be seen as one, it is the sum of theirs.
        """
        valid = target != IGNORE_INDEX
        weights = self._class_weights(target.device)
        if weights is None:
            return valid.sum()
        return torch.where(valid, weights[torch.where(valid, target, 0).long()], 0.0).sum(dtype=torch.float64)

    def __call__(self, logits: Tensor, target: Tensor, divisor: Tensor) -> Tensor:
        """Logits [N, C, h, w], target uint8 [N, H, W] -> float32 scalar."""
        weights = self._class_weights(logits.device)
        if self.hardest == 1:
            return self._cross_entropy(logits, target, weights, None, divisor)
        with torch.no_grad():
            pixels = upsample_cross_entropy(
                logits.detach(), target, class_weight=weights, normalize="none", align_corners=self.align_corners
            )
            # The index depends on how many pixels are labelled, and so stays on the device; all of them are the most.
            hardest = pixels.flatten().topk(math.ceil(target.numel() * self.hardest)).values
            count = (target != IGNORE_INDEX).sum(dtype=torch.float64)
            least = hardest.gather(0, (count * self.hardest).ceil().long().sub(1).clamp(min=0).view(1))
        return self._cross_entropy(logits, target, weights, (pixels >= least).float(), divisor * self.hardest)

    def _cross_entropy(
        self, logits: Tensor, target: Tensor, weights: Tensor | None, pixel_weight: Tensor | None, divisor: Tensor
    ) -> Tensor:
        return upsample_cross_entropy(
            logits,
            target,
            class_weight=weights,
            pixel_weight=pixel_weight,
            normalize=divisor,
            align_corners=self.align_corners,
        )

    def _class_weights(self, device: torch.device) -> Tensor | None:
        """On the device; copied there once, as a copy waits for it."""
        if self.class_weights is None:
            return None
        if device not in self._weights:
            self._weights[device] = torch.tensor(self.class_weights, dtype=torch.float32, device=device)
        return self._weights[device]
