"""The module forms against torch's own modules and the functions."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from maskmatch.nn import MultiscalePseudoLabel, PatchMask, UpsampleCrossEntropyLoss
from maskmatch.ops import multiscale_pseudo_label, patch_mask


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_replaces_interpolate_and_torch_s_loss(reduction: str, weighted: bool, smoothing: float) -> None:
    logits = torch.randn(2, 5, 6, 7, requires_grad=True)
    target = torch.randint(0, 5, (2, 40, 50))
    target[0, :9] = 255
    weight = torch.linspace(0.5, 2, 5) if weighted else None
    options = {"ignore_index": 255, "reduction": reduction, "label_smoothing": smoothing}
    expected = nn.CrossEntropyLoss(weight, **options)(F.interpolate(logits, (40, 50), mode="bilinear"), target)
    loss = UpsampleCrossEntropyLoss(weight, **options)(logits, target)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_loss_keeps_its_weight_with_the_module() -> None:
    loss = UpsampleCrossEntropyLoss(torch.ones(3))
    assert "weight" in loss.state_dict()
    assert loss.to(torch.float16).weight.dtype == torch.float16
    assert "ignore_index=255" in repr(loss)


def test_the_divisor_of_half_precision_weights_does_not_overflow() -> None:
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 300, 300))
    weight = torch.tensor([1.0, 2.0, 3.0])  # sums to more than 65504
    module = UpsampleCrossEntropyLoss(weight)
    torch.testing.assert_close(module.half()(logits, target), UpsampleCrossEntropyLoss(weight)(logits, target))


@pytest.mark.parametrize("wrong", [{"target": torch.full((1, 9, 9), 200)}, {"weight": torch.ones(2)}])
def test_a_weighted_mean_checks_its_arguments_first(wrong: dict[str, torch.Tensor]) -> None:
    given = {"weight": torch.ones(3), "target": torch.full((1, 9, 9), 2)} | wrong
    with pytest.raises((ValueError, RuntimeError), match=r"^(target|class_weight) "):
        UpsampleCrossEntropyLoss(given["weight"])(torch.randn(1, 3, 4, 4), given["target"])


def test_loss_of_confident_pixels() -> None:
    logits, target = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 9, 9))
    confidence = torch.rand(1, 9, 9)
    pixels = UpsampleCrossEntropyLoss(reduction="none")(logits, target)
    loss = UpsampleCrossEntropyLoss(threshold=0.7)(logits, target, confidence)
    torch.testing.assert_close(loss, (pixels * (confidence >= 0.7)).mean())


def test_unknown_reduction() -> None:
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        UpsampleCrossEntropyLoss(reduction="max")


def test_the_other_modules_call_their_functions() -> None:
    images, seeds = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8), torch.tensor([1, 2])
    for a, b in zip(
        PatchMask(8, 0.5, strategy="grid", fill=0.0)(images, seeds),
        patch_mask(images, 8, mask_ratio=0.5, seeds=seeds, strategy="grid", fill=0.0),
        strict=True,
    ):
        assert torch.equal(a, b)
    scales = [torch.randn(1, 3, 4, 4), torch.randn(1, 3, 5, 5)]
    module = MultiscalePseudoLabel(weights=[1.0, 2.0], average="logit", align_corners=True)
    options = {"weights": [1.0, 2.0], "average": "logit", "align_corners": True, "flipped": [True, False]}
    for a, b in zip(
        module(scales, (9, 9), [True, False]), multiscale_pseudo_label(scales, (9, 9), **options), strict=True
    ):
        assert torch.equal(a, b)
