"""What the operators allocate on the CPU beyond their inputs: nothing of C numbers a pixel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks.speed.measure import peak_bytes
from maskmatch.ops import info, multiscale_pseudo_label, upsample_cross_entropy

N, C, SIDE, PIXELS = 2, 21, 32, 2 * 256 * 256
LOGIT_BYTES = N * C * SIDE * SIDE * 4


def summed(logits: Tensor, target: Tensor) -> Tensor:
    return torch.autograd.grad(upsample_cross_entropy(logits, target), logits)[0]


def per_pixel(logits: Tensor, target: Tensor) -> Tensor:
    return torch.autograd.grad(upsample_cross_entropy(logits, target, normalize="none").mean(), logits)[0]


def labels(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    return multiscale_pseudo_label([logits], target.shape[-2:])


@pytest.mark.parametrize(
    ("function", "least"),
    [
        (summed, 2 * LOGIT_BYTES),  # the gradient, and what the backward makes of it
        (per_pixel, 3 * 4 * PIXELS + LOGIT_BYTES),  # loss, log sum exp, the loss's gradient; the gradient
        (labels, 5 * PIXELS),
    ],
)
def test_peak(function: Callable[[Tensor, Tensor], object], least: int) -> None:
    if "cpp" not in info()["available"]:
        pytest.skip("no compiled operators")
    logits = torch.randn(N, C, SIDE, SIDE, requires_grad=True)
    target = torch.randint(0, C, (N, 256, 256), dtype=torch.uint8)
    assert peak_bytes(lambda: function(logits, target), "cpu") <= 1.1 * least + 50_000
