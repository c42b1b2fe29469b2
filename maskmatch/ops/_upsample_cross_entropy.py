"""Cross-entropy of logits at the resolution of the target, without full-resolution logits or gradients."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from maskmatch.ops import _backend, _upsample_cross_entropy_op  # noqa: F401 - registers the compiled form
from maskmatch.ops._checks import (
    check_bool,
    check_integer,
    check_logits,
    check_number,
    check_shape,
    check_sides,
    check_tensor,
)
from maskmatch.ops.reference import compute_dtype

NORMALIZATIONS = ("all", "confident", "none")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def upsample_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    confidence: Tensor | None = None,
    threshold: float = 0.95,
    pixel_weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    ignore_index: int = 255,
    label_smoothing: float = 0.0,
    normalize: str | float | Tensor = "all",
    align_corners: bool = False,
) -> Tensor:
    """`cross_entropy(interpolate(logits, size of target), target)` over the confident pixels.

    Per pixel, with p = softmax(resize(logits)), target y, class weights v and smoothing e:
        l = w [confidence >= threshold] ((1 - e) v_y (-log p_y) + e / C sum_c v_c (-log p_c)),   0 where ignored,
    as torch's `cross_entropy` has it. The loss is the sum of l divided by what `normalize` says.

    Args:
        logits: fp16, bf16 or fp32 [N, C, h, w], C from 1 to 255, with any h x w; computed in fp32.
        target: uint8 or int64 [N, H, W], classes or ignore_index.
        confidence: float [N, H, W]; pixels below `threshold` (and NaN) have no loss.
        threshold: tau, a number; unused without confidence.
        pixel_weight: float [N, H, W], w; a constant, as is class_weight: no gradient flows to either.
        class_weight: float [C], v.
        ignore_index: target value of pixels that count in nothing.
        label_smoothing: e, in [0, 1].
        normalize: the divisor: `all` non-ignored pixels, the `confident` ones among them, or a number or 0-d
            tensor that the caller counted (such as the global batch's pixels); `none` returns every pixel's loss.
            A divisor of 0 gives a loss of 0.
        align_corners: as in `F.interpolate`, whose bilinear mode this resizes by.

    Returns:
        float32: a scalar, or [N, H, W] with normalize="none". Gradients come back in the logits' dtype.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value.
        RuntimeError: on the CPU, a target that is neither a class nor ignore_index (a device-side assert on CUDA).
    """
    check_logits("logits", logits)
    check_tensor("target", target, "[N, H, W]", (torch.uint8, torch.int64), device=logits.device)
    count, classes = logits.shape[:2]
    check_shape("target", target, "[N, H, W]", (count, *target.shape[1:]))
    check_sides("target", target)
    dtype = compute_dtype(logits)
    confidence = _check_map("confidence", confidence, target, torch.float32)
    pixel_weight = _check_map("pixel_weight", pixel_weight, target, dtype)
    if class_weight is not None:
        check_tensor("class_weight", class_weight, "[C]", _FLOATS, device=logits.device)
        check_shape("class_weight", class_weight, "[C]", (classes,))
        class_weight = class_weight.to(dtype)
    for name, weight in (("pixel_weight", pixel_weight), ("class_weight", class_weight)):
        if weight is not None and weight.requires_grad and torch.is_grad_enabled():
            raise ValueError(f"{name} must not require grad: it is a constant here, detach it")
    threshold = check_number("threshold", threshold, float("-inf"), float("inf"))
    check_integer("ignore_index", ignore_index, -(2**63), 2**63 - 1)
    label_smoothing = check_number("label_smoothing", label_smoothing, 0, 1)
    check_bool("align_corners", align_corners)
    _check_normalize(normalize, logits.device)

    implementation = _backend.implementation("upsample_cross_entropy", logits)
    per_pixel = isinstance(normalize, str) and normalize == "none"
    loss, _ = implementation(
        logits, target, confidence, threshold, pixel_weight, class_weight,
        ignore_index, label_smoothing, align_corners, per_pixel, None if per_pixel else partial(_divisor, normalize),
    )  # fmt: skip
    return loss


def _check_map(name: str, value: Tensor | None, target: Tensor, dtype: torch.dtype) -> Tensor | None:
    if value is None:
        return None
    check_tensor(name, value, "[N, H, W]", _FLOATS, device=target.device)
    check_shape(name, value, "[N, H, W]", target.shape)
    return value.to(dtype)


def _check_normalize(normalize: str | float | Tensor, device: torch.device) -> None:
    if isinstance(normalize, Tensor):
        if normalize.dim() != 0 or normalize.dtype.is_complex or normalize.dtype == torch.bool:
            raise ValueError(f"normalize must be a 0-d count, got {normalize.dtype} {list(normalize.shape)}")
        if normalize.device != device:
            raise ValueError(f"normalize must be on {device} like the logits, got {normalize.device}")
        if normalize.requires_grad and torch.is_grad_enabled():
            raise ValueError("normalize must not require grad: it is a constant here, detach it")
    elif isinstance(normalize, str):
        if normalize not in NORMALIZATIONS:
            raise ValueError(f"normalize must be one of {', '.join(NORMALIZATIONS)}, or a count, got {normalize!r}")
    else:
        check_number("normalize", normalize, 0, float("inf"))


def _divisor(normalize: str | float | Tensor, counts: Tensor) -> Tensor | float:
    if isinstance(normalize, str):  # where nothing counts, the sum is 0
        return counts[0 if normalize == "all" else 1].clamp_min(1)
    if isinstance(normalize, Tensor):
        return torch.where(normalize > 0, normalize, torch.inf)
    return float(normalize) or torch.inf  # an int of torch has 64 bits
