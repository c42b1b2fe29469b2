"""Fused operators of semi-supervised segmentation, usable in any trainer.

    from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy

Every operator has one definition in plain PyTorch (`reference`) and compiled forms that compute the same without
ever building a tensor of full-resolution logits. `use_backend` and the environment variable MASKMATCH_BACKEND
choose between them.
"""

from __future__ import annotations

from maskmatch.ops import triton as _triton  # noqa: F401 - registers the Triton kernels where they can run
from maskmatch.ops._backend import current_backend, info, use_backend
from maskmatch.ops._multiscale_pseudo_label import multiscale_pseudo_label
from maskmatch.ops._patch_mask import IMAGENET_MEAN, IMAGENET_STD, patch_mask
from maskmatch.ops._uniform import uniform
from maskmatch.ops._upsample_cross_entropy import upsample_cross_entropy

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "current_backend",
    "info",
    "multiscale_pseudo_label",
    "patch_mask",
    "uniform",
    "upsample_cross_entropy",
    "use_backend",
]
