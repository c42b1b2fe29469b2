"""`maskmatch.ops.upsample_cross_entropy` as a module, in the manner of `torch.nn.CrossEntropyLoss`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskmatch.ops import upsample_cross_entropy

REDUCTIONS = ("mean", "sum", "none")


class UpsampleCrossEntropyLoss(nn.Module):
    """`CrossEntropyLoss(weight, ...)(interpolate(logits, size of target), target)` without the interpolated logits.

    `weight` [C], `ignore_index`, `reduction` and `label_smoothing` mean what they do in `torch.nn.CrossEntropyLoss`
    (`mean` divides by the class weights of the non-ignored pixels); only ignore_index is 255 by default. `threshold`
    is that of the confidences given to forward; pixels below it count in the divisor but have no loss.
    """

    weight: Tensor | None

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = 255,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        threshold: float = 0.95,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        self.register_buffer("weight", weight)
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing
        self.threshold, self.align_corners = threshold, align_corners

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        confidence: Tensor | None = None,
        pixel_weight: Tensor | None = None,
    ) -> Tensor:
        """Logits [N, C, h, w], target uint8 or int64 [N, H, W] -> float32, a scalar or [N, H, W]."""
        return upsample_cross_entropy(
            logits,
            target,
            confidence=confidence,
            threshold=self.threshold,
            pixel_weight=pixel_weight,
            class_weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            normalize=self._normalize(target),
            align_corners=self.align_corners,
        )

    def _normalize(self, target: Tensor) -> str | float | Tensor:
        if self.reduction == "none":
            return "none"
        if self.reduction == "sum":
            return 1.0
        if self.weight is None:
            return "all"
        valid = target != self.ignore_index
        weights = self.weight[torch.where(valid, target, 0).long()]
        return torch.where(valid, weights, 0).sum()

    def extra_repr(self) -> str:
        return (
            f"ignore_index={self.ignore_index}, reduction={self.reduction!r}, "
            f"label_smoothing={self.label_smoothing}, threshold={self.threshold}, "
            f"align_corners={self.align_corners}"
        )
