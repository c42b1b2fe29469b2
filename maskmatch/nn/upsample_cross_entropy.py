"""`maskmatch.ops.upsample_cross_entropy` as a module, in the manner of `torch.nn.CrossEntropyLoss`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from maskmatch.ops import upsample_cross_entropy

_NORMALIZE: dict[str, str | float] = {"mean": "all", "sum": 1.0, "none": "none"}
REDUCTIONS = tuple(_NORMALIZE)


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
        weights = self.weight if self.reduction == "mean" else None
        loss = upsample_cross_entropy(
            logits,
            target,
            confidence=confidence,
            threshold=self.threshold,
            pixel_weight=pixel_weight,
            class_weight=self.weight,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            normalize=_NORMALIZE[self.reduction if weights is None else "sum"],
            align_corners=self.align_corners,
        )
        return loss if weights is None else loss / self._total(weights.to(loss.dtype), target)

    def _total(self, weights: Tensor, target: Tensor) -> Tensor:
        """The non-ignored pixels' class weights added up; one instead of zero, as then there is no loss to divide."""
        valid = target != self.ignore_index
        total = torch.where(valid, weights[torch.where(valid, target, 0).long()], 0).sum()
        return torch.where(total > 0, total, 1)

    def extra_repr(self) -> str:
        return (
            f"ignore_index={self.ignore_index}, reduction={self.reduction!r}, "
            f"label_smoothing={self.label_smoothing}, threshold={self.threshold}, "
            f"align_corners={self.align_corners}"
        )
