"""`maskmatch.ops.multiscale_pseudo_label` as a module."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from maskmatch.ops import multiscale_pseudo_label


class MultiscalePseudoLabel(nn.Module):
    """Labels and confidences of several scales' logits; see `maskmatch.ops.multiscale_pseudo_label`."""

    def __init__(
        self,
        *,
        weights: Sequence[float] | None = None,
        average: str = "probability",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.weights, self.average, self.align_corners = weights, average, align_corners

    def forward(
        self, logits: Sequence[Tensor], size: Sequence[int], flipped: Sequence[bool] | None = None
    ) -> tuple[Tensor, Tensor]:
        """S tensors [N, C, h, w] -> label uint8 and confidence float32, [N, *size]."""
        return multiscale_pseudo_label(
            logits,
            size,
            flipped=flipped,
            weights=self.weights,
            average=self.average,
            align_corners=self.align_corners,
        )

    def extra_repr(self) -> str:
        return f"weights={self.weights}, average={self.average!r}, align_corners={self.align_corners}"
