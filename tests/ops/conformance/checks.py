"""Pseudo-labels and losses of a backend against the fp64 reference, and pseudo-labels against a second definition."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maskmatch.ops import multiscale_pseudo_label, upsample_cross_entropy, use_backend
from tests.ops.conformance.cases import GRADIENT_TOLERANCE, VALUE_TOLERANCE, assert_close


def check_pseudo_label(scales: list[Tensor], size: tuple[int, int], device: torch.device, **options: Any) -> None:
    label, confidence = multiscale_pseudo_label([scale.to(device) for scale in scales], size, **options)
    with use_backend("reference"):
        expected_label, expected = multiscale_pseudo_label([s.double() for s in scales], size, **options)
        probability = mean_probability([s.double() for s in scales], size, **options)
    assert label.dtype == torch.uint8 and confidence.dtype == torch.float32
    assert label.shape == confidence.shape == (scales[0].shape[0], *size)
    largest = max((float(s.double().abs().max()) for s in scales if s.numel()), default=0.0)
    assert_close(confidence, expected, largest)
    differs = label.cpu() != expected_label
    chosen = probability.gather(1, label.cpu().long()[:, None])[:, 0]
    assert not (differs & (expected.double() - chosen > VALUE_TOLERANCE * max(1.0, largest))).any()


def mean_probability(
    scales: list[Tensor],
    size: tuple[int, int],
    flipped: list[bool] | None = None,
    weights: list[float] | None = None,
    average: str = "probability",
    align_corners: bool = False,
) -> Tensor:
    """An independent definition: the resize as a matrix product with explicit weights."""
    flips = flipped or [False] * len(scales)
    shares = torch.tensor(weights or [1.0] * len(scales), dtype=torch.float64)
    total = torch.zeros(())
    for scale, flip, share in zip(scales, flips, shares / shares.sum(), strict=True):
        rows = bilinear_matrix(scale.shape[2], size[0], align_corners)
        columns = bilinear_matrix(scale.shape[3], size[1], align_corners)
        resized = rows @ scale @ columns.T
        resized = resized.flip(3) if flip else resized
        total = total + share * (resized.softmax(1) if average == "probability" else resized)
    return total if average == "probability" else total.softmax(1)


def bilinear_matrix(source: int, target: int, align_corners: bool) -> Tensor:
    matrix = torch.zeros(target, source, dtype=torch.float64)
    for i in range(target):
        if align_corners:
            position = i * (source - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = max((i + 0.5) * source / target - 0.5, 0.0)
        low = min(int(position), source - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, min(low + 1, source - 1)] += position - low
    return matrix


def draw_pixels(shape: tuple[int, ...], classes: int, ignore_index: int, seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, shape, generator=generator)
    target[torch.rand(shape, generator=generator) < 0.1] = ignore_index
    return {
        "target": target,
        "confidence": torch.rand(shape, generator=generator),
        "pixel_weight": torch.rand(shape, generator=generator),
        "upstream": torch.randn(shape, generator=generator),
    }


def loss_and_gradient(
    logits: Tensor, target: Tensor, upstream: Tensor, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    loss = upsample_cross_entropy(logits, target, **options)
    # Scaled up, as a loss scaler does, so that fp16 gradients are not lost to its smallest number.
    weight = upstream if loss.dim() else torch.full_like(loss, float(target.numel() or 1))
    (loss * weight.to(loss.dtype)).sum().backward()
    assert logits.grad is not None and logits.grad.dtype == logits.dtype
    return loss.detach(), logits.grad


def check_cross_entropy(logits: Tensor, target: Tensor, upstream: Tensor, device: torch.device, **options: Any) -> None:
    def moved(dtype: torch.dtype | None, where: torch.device) -> dict[str, Any]:
        return {k: v.to(where, dtype) if isinstance(v, Tensor) else v for k, v in options.items()}

    got, gradient = loss_and_gradient(logits.to(device), target.to(device), upstream.to(device), moved(None, device))
    cpu = torch.device("cpu")
    exact = moved(None, cpu)
    for name in ("pixel_weight", "class_weight"):
        if name in exact:
            exact[name] = exact[name].double()
    with use_backend("reference"):
        expected, expected_gradient = loss_and_gradient(logits.double(), target, upstream, exact)
    assert got.dtype == torch.float32
    largest = float(logits.double().abs().max()) if logits.numel() else 0.0
    if got.dim():
        assert_close(got, expected, largest)
    else:
        # 1e-5 relative; below 0.1 the rounding of a sum 1 + x of powers shows, as it does in torch's own fp32 loss.
        assert abs(got.item() - expected.item()) <= VALUE_TOLERANCE * max(abs(expected.item()), 0.1)
    error = (gradient.double().cpu() - expected_gradient).norm()
    # Where the exact gradient vanishes, as with one class, rounding of its summands remains.
    floor = 1e-7 * (1 + target.numel()) if logits.shape[1] == 1 else 1e-7
    assert error <= GRADIENT_TOLERANCE[logits.dtype] * expected_gradient.norm() + floor
