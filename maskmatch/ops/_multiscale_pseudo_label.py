"""multiscale_pseudo_label: labels of a teacher that saw an image at several scales, without full-resolution logits.

The function, its checks and its fake; it has no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from maskmatch.ops import _backend, _library, reference
from maskmatch.ops._checks import MAX_SIDE, check_bool, check_choice, check_integer, check_logits

AVERAGES = ("probability", "logit")


def multiscale_pseudo_label(
    logits: Sequence[Tensor],
    size: Sequence[int],
    *,
    flipped: Sequence[bool] | None = None,
    weights: Sequence[float] | None = None,
    average: str = "probability",
    align_corners: bool = False,
) -> tuple[Tensor, Tensor]:
    """The class of the highest mean probability over scales, and that probability.

    p = sum_s w_s softmax(resize(logits_s, size)) / sum_s w_s, with flipped scales turned back, or with
    average="logit" the softmax of the mean of the resized logits; label = argmax_c p, confidence = max_c p.
    `resize` is `F.interpolate(mode="bilinear", align_corners=align_corners)` without antialiasing.

    Args:
        logits: S tensors [N, C, h_s, w_s] of one dtype (fp16, bf16, fp32) and device, C from 1 to 255.
        size: height and width of the result, H and W.
        flipped: for each scale whether its image was mirrored left to right; none by default.
        weights: one non-negative number a scale; equal by default.
        average: what is averaged, `probability` or `logit`.
        align_corners: as in `F.interpolate`.

    Returns:
        label uint8 [N, H, W] and confidence float32 [N, H, W]; they carry no gradient. Equal best probabilities
        may give either label. A pixel that a NaN or +inf logit reaches has a NaN confidence and any label.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype, device or value.
    """
    scales = _check_scales(logits)
    height, width = _check_size(size)
    flips = _per_scale("flipped", flipped, len(scales), False)
    for index, flip in enumerate(flips):
        check_bool(f"flipped[{index}]", flip)
    shares = _check_weights(_per_scale("weights", weights, len(scales), 1.0))
    check_choice("average", average, AVERAGES)
    check_bool("align_corners", align_corners)
    implementation = _backend.implementation("multiscale_pseudo_label", scales[0])
    return implementation(scales, height, width, flips, shares, average, align_corners)


def _check_scales(logits: Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(logits, (list, tuple)):
        raise TypeError(f"logits must be a list of tensors [N, C, h, w], got {type(logits).__name__}")
    if not logits:
        raise ValueError("logits must hold at least one scale, got an empty list")
    scales = [check_logits(f"logits[{index}]", scale).detach() for index, scale in enumerate(logits)]
    first = scales[0]
    for index, scale in enumerate(scales):
        if scale.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"logits[{index}] must have [N, C] = {list(first.shape[:2])} like logits[0], got {list(scale.shape)}"
            )
        if scale.dtype != first.dtype or scale.device != first.device:
            raise ValueError(
                f"logits[{index}] must be {first.dtype} on {first.device} like logits[0], "
                f"got {scale.dtype} on {scale.device}"
            )
    return scales


def _check_size(size: Sequence[int]) -> tuple[int, int]:
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ValueError(f"size must be (height, width), got {size!r}")
    height, width = (check_integer("size", side, 1, MAX_SIDE) for side in size)
    return height, width


def _per_scale(name: str, values: Sequence | None, scales: int, default: object) -> list:
    if values is None:
        return [default] * scales
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{name} must be a list, one entry a scale, got {type(values).__name__}")
    if len(values) != scales:
        raise ValueError(f"{name} must have one entry for each of {scales} scales, got {list(values)}")
    return list(values)


def _check_weights(weights: list) -> list[float]:
    for index, weight in enumerate(weights):
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"weights[{index}] must be a number, got {type(weight).__name__}")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weights[{index}] must be finite and not negative, got {weight}")
    total = math.fsum(weights)
    if total <= 0:
        raise ValueError(f"weights must not all be zero, got {weights}")
    return [weight / total for weight in weights]


def fake(logits: list[Tensor], height: int, width: int, *_: object) -> tuple[Tensor, Tensor]:
    """Shapes and dtypes of the results."""
    if not logits:
        raise ValueError("logits must hold at least one scale, got an empty list")
    check_logits("logits[0]", logits[0])
    shape = (logits[0].shape[0], height, width)
    return logits[0].new_empty(shape, dtype=torch.uint8), logits[0].new_empty(shape, dtype=torch.float32)


def attach(namespace: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """Give torch.ops.NAMESPACE's operator its fake; returns the function that a backend offers."""
    operators = getattr(torch.ops, namespace)
    torch.library.register_fake(f"{namespace}::multiscale_pseudo_label", fake)

    def run(
        logits: list[Tensor],
        height: int,
        width: int,
        flipped: list[bool],
        weights: list[float],
        average: str,
        align_corners: bool,
    ) -> tuple[Tensor, Tensor]:
        flips = [int(flip) for flip in flipped]
        return operators.multiscale_pseudo_label.default(logits, height, width, flips, weights, average, align_corners)

    return run


_backend.register("reference", "multiscale_pseudo_label", reference.multiscale_pseudo_label)
if _library.problems["cpp"] is None:
    _backend.register_compiled("multiscale_pseudo_label", attach("maskmatch"))
