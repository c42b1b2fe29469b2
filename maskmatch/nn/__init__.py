"""Module forms of the operators in `maskmatch.ops`."""

from __future__ import annotations

from maskmatch.nn.multiscale_pseudo_label import MultiscalePseudoLabel
from maskmatch.nn.patch_mask import PatchMask
from maskmatch.nn.upsample_cross_entropy import UpsampleCrossEntropyLoss

__all__ = ["MultiscalePseudoLabel", "PatchMask", "UpsampleCrossEntropyLoss"]
