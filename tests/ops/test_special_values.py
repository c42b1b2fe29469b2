"""Inputs at the edge of what makes sense: nothing to count, NaN, infinity, empty batches, wrong labels."""

from __future__ import annotations

import pytest
import torch

from maskmatch.ops import info, multiscale_pseudo_label, patch_mask, upsample_cross_entropy


@pytest.mark.parametrize("normalize", ["all", "confident", "none", 0.0, 5.0])
@pytest.mark.parametrize("why", ["ignored", "unsure"])
def test_nothing_to_count_gives_zero(backend: torch.device, normalize: str | float, why: str) -> None:
    logits = torch.randn(2, 3, 4, 4, device=backend, requires_grad=True)
    target = torch.full((2, 9, 9), 255 if why == "ignored" else 1, device=backend)
    confidence = torch.full((2, 9, 9), float("nan"), device=backend)
    loss = upsample_cross_entropy(logits, target, confidence=confidence, threshold=0.5, normalize=normalize)
    loss.sum().backward()
    assert (loss == 0).all()
    assert logits.grad is not None and (logits.grad == 0).all()


def test_zero_count_from_the_caller_gives_zero(backend: torch.device) -> None:
    logits = torch.randn(1, 3, 4, 4, device=backend, requires_grad=True)
    target = torch.zeros(1, 9, 9, dtype=torch.uint8, device=backend)
    loss = upsample_cross_entropy(logits, target, normalize=torch.tensor(0, device=backend))
    loss.backward()
    assert loss == 0 and (logits.grad == 0).all()


def test_empty_batch(backend: torch.device) -> None:
    logits = torch.randn(0, 3, 4, 4, device=backend, requires_grad=True)
    target = torch.zeros(0, 9, 9, dtype=torch.uint8, device=backend)
    for normalize in ("all", "none"):
        upsample_cross_entropy(logits, target, normalize=normalize).sum().backward()
    assert logits.grad is not None and logits.grad.shape == logits.shape
    label, confidence = multiscale_pseudo_label([logits], (9, 9))
    assert label.shape == confidence.shape == (0, 9, 9)
    output, grid = patch_mask(
        target[:, None].expand(0, 3, 9, 9), 4, mask_ratio=0.5, seeds=torch.zeros(0, dtype=torch.int64, device=backend)
    )  # fmt: skip
    assert output.shape == (0, 3, 9, 9) and grid.shape == (0, 3, 3)


def test_one_class_is_certain(backend: torch.device) -> None:
    logits = torch.randn(1, 1, 4, 4, device=backend, requires_grad=True)
    label, confidence = multiscale_pseudo_label([logits, -logits], (9, 9))
    assert (label == 0).all()
    torch.testing.assert_close(confidence, torch.ones_like(confidence))
    loss = upsample_cross_entropy(logits, torch.zeros(1, 9, 9, dtype=torch.int64, device=backend))
    loss.backward()
    assert loss.abs() < 1e-6 and logits.grad.abs().max() < 1e-6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_reach_their_neighbours_alone(backend: torch.device, value: float) -> None:
    logits = torch.randn(1, 4, 9, 20, device=backend)
    logits[0, 2, 4, 10] = value
    target = torch.zeros(1, 72, 160, dtype=torch.int64, device=backend)
    _, confidence = multiscale_pseudo_label([logits, logits], (72, 160))
    loss = upsample_cross_entropy(logits, target, normalize="none")
    for result in (confidence, loss):
        bad = ~result.isfinite()
        assert bad[0, 36, 84] and not (confidence >= 0)[0, 36, 84]
        assert not bad[0, :27].any() and not bad[0, 45:].any()
        assert not bad[0, :, :75].any() and not bad[0, :, 93:].any()


def test_hidden_nan_does_not_come_through(backend: torch.device) -> None:
    images = torch.full((1, 3, 8, 8), float("nan"), device=backend)
    output, _ = patch_mask(images, 4, mask_ratio=1.0, seeds=torch.tensor([1], device=backend))
    assert (output == 0).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("wrong", [7, 200, 2**32, -3])
def test_wrong_label_raises_on_the_cpu(backend: torch.device, dtype: torch.dtype, wrong: int) -> None:
    if backend.type != "cpu":
        pytest.skip("a device-side assert ends the process's use of the device")
    if dtype == torch.uint8 and not 0 <= wrong < 256:
        pytest.skip("does not fit")
    target = torch.zeros(2, 9, 33, dtype=torch.int64)
    target[1, 8, 32] = wrong
    logits = torch.randn(2, 7, 4, 4, requires_grad=True)
    confidence = torch.zeros(2, 9, 33)  # wrong, even though it would not count
    message = f"target must hold classes 0 to 6 or ignore_index 255, got {wrong}"
    if info()["backend"] == "cuda-emulated":
        message = "device-side assert"
    for normalize in ("all", "none"):
        with pytest.raises(RuntimeError, match=message):
            upsample_cross_entropy(logits, target.to(dtype), confidence=confidence, normalize=normalize)


def test_ignore_index_may_be_any_number(backend: torch.device) -> None:
    logits = torch.randn(1, 3, 4, 4, device=backend)
    target = torch.randint(0, 3, (1, 9, 9), device=backend)
    expected = upsample_cross_entropy(logits, torch.where(target == 1, 255, target))
    for ignore_index in (1, -100, 2**40):
        marked = torch.where(target == 1, ignore_index, target)
        torch.testing.assert_close(upsample_cross_entropy(logits, marked, ignore_index=ignore_index), expected)


def test_expanded_tensors(backend: torch.device) -> None:
    """Strides of zero: every element is the same one."""
    storage = torch.zeros(1, device=backend)
    logits = storage.expand(1, 2, 3, 3)
    target = torch.zeros(1, dtype=torch.uint8, device=backend).expand(1, 50, 50)
    torch.testing.assert_close(upsample_cross_entropy(logits, target).item(), 0.6931472, atol=1e-6, rtol=0)
