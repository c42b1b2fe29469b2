"""The reference against PyTorch's own functions, finite differences and its published bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from maskmatch.ops import multiscale_pseudo_label, patch_mask, philox, upsample_cross_entropy, use_backend
from maskmatch.ops.reference import patch_grid


@pytest.fixture(autouse=True)
def _reference():
    with use_backend("reference"):
        yield


def test_philox_has_the_published_words() -> None:
    """The known answers of Random123's philox4x32-10 for all-zero and all-one counters and keys."""
    zero, ones = torch.tensor(0), torch.tensor(-1)
    assert [int(w) for w in philox.philox4x32(zero, zero, 0, 0)] == [
        0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8,
    ]  # fmt: skip
    assert [int(w) for w in philox.philox4x32(ones, ones, 0xFFFFFFFF, 0xFFFFFFFF)] == [
        0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD,
    ]  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
def test_cross_entropy_is_that_of_torch(smoothing: float, weighted: bool, align_corners: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 5, (2, 20, 30), generator=generator)
    target[0, :3] = 255
    weight = torch.linspace(0.5, 2, 5, dtype=torch.float64) if weighted else None
    resized = F.interpolate(logits, (20, 30), mode="bilinear", align_corners=align_corners)
    expected = F.cross_entropy(resized, target, weight, ignore_index=255, label_smoothing=smoothing, reduction="none")
    options = {"class_weight": weight, "label_smoothing": smoothing, "align_corners": align_corners}
    pixels = upsample_cross_entropy(logits, target, normalize="none", **options)
    torch.testing.assert_close(pixels, expected)
    valid = target != 255
    torch.testing.assert_close(upsample_cross_entropy(logits, target, **options), expected.sum() / valid.sum())
    confidence = torch.rand(2, 20, 30, generator=generator)
    keep = confidence >= 0.6
    options |= {"confidence": confidence, "threshold": 0.6}
    sum_of_kept = (expected * keep).sum()
    torch.testing.assert_close(upsample_cross_entropy(logits, target, **options), sum_of_kept / valid.sum())
    torch.testing.assert_close(
        upsample_cross_entropy(logits, target, normalize="confident", **options),
        sum_of_kept / (valid & keep).sum(),
    )
    torch.testing.assert_close(upsample_cross_entropy(logits, target, normalize=7, **options), sum_of_kept / 7)
    torch.testing.assert_close(
        upsample_cross_entropy(logits, target, normalize=torch.tensor(7), **options), sum_of_kept / 7
    )


@pytest.mark.parametrize("normalize", ["all", "confident", "none", 3.0])
def test_cross_entropy_gradient_by_finite_differences(normalize: str | float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (1, 7, 6), generator=generator)
    target[0, 0] = 255
    confidence = torch.rand(1, 7, 6, generator=generator)
    weight = torch.rand(1, 7, 6, generator=generator, dtype=torch.float64)
    torch.autograd.gradcheck(
        lambda x: upsample_cross_entropy(
            x, target, confidence=confidence, threshold=0.5, pixel_weight=weight, label_smoothing=0.1,
            class_weight=torch.tensor([0.5, 1, 2]), normalize=normalize,
        ),
        logits,
    )  # fmt: skip


def test_patch_mask_gradient_by_finite_differences() -> None:
    images = torch.rand(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    seeds = torch.tensor([1, 2])
    torch.autograd.gradcheck(lambda x: patch_mask(x, 2, mask_ratio=0.5, seeds=seeds)[0], images)


def test_pseudo_label_is_the_mean_of_softmaxes() -> None:
    generator = torch.Generator().manual_seed(0)
    scales = [torch.randn(2, 5, n, n + 1, generator=generator, dtype=torch.float64) for n in (4, 6)]
    first, second = (F.interpolate(s, (21, 23), mode="bilinear").softmax(1) for s in scales)
    expected = (first.flip(-1) * 3 + second) / 4
    label, confidence = multiscale_pseudo_label(scales, (21, 23), flipped=[True, False], weights=[3, 1])
    torch.testing.assert_close(confidence, expected.amax(1).float())
    assert torch.equal(label.long(), expected.argmax(1))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    ratio=st.floats(0, 1),
    strategy=st.sampled_from(["random", "block", "grid"]),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_every_strategy_hides_the_same_number(rows: int, columns: int, ratio: float, strategy: str, seed: int) -> None:
    grid = patch_grid(rows, columns, ratio, torch.tensor([seed, 5]), strategy)
    assert grid.sum(dim=(1, 2)).tolist() == [int(ratio * rows * columns + 0.5)] * 2
    # An image's mask does not depend on its neighbours in the batch, and less hides a part of what more hides.
    assert torch.equal(grid[:1], patch_grid(rows, columns, ratio, torch.tensor([seed]), strategy))
    assert (grid <= patch_grid(rows, columns, min(1.0, ratio * 1.3), torch.tensor([seed, 5]), strategy)).all()


def test_random_patches_are_uniform() -> None:
    grid = patch_grid(4, 5, 0.3, torch.arange(4000), "random").float()
    share = grid.mean(0)
    assert (share - 0.3).abs().max() < 0.04  # 4 deviations of 0.0072, and some
    assert torch.cov(grid.flatten(1).T).triu(1).abs().max() < 0.03


def test_grid_at_three_quarters_keeps_one_patch_of_every_square() -> None:
    for grid in patch_grid(8, 12, 0.75, torch.arange(20), "grid"):
        squares = (~grid).float().unfold(0, 2, 2).unfold(1, 2, 2).sum(dim=(-1, -2))
        assert (squares == 1).all()


def test_blocks_are_connected() -> None:
    """Far fewer borders between hidden and visible patches than with random ones."""

    def borders(strategy: str) -> float:
        grid = patch_grid(16, 16, 0.5, torch.arange(50), strategy)
        return (grid[:, 1:] != grid[:, :-1]).float().mean().item()

    assert borders("block") < 0.5 * borders("random")


def test_patch_mask_normalises_and_fills() -> None:
    images = torch.randint(0, 256, (2, 3, 20, 30), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    options = {"mean": mean.tolist(), "std": std.tolist()}
    expected = (images / 255 - mean[:, None, None]) / std[:, None, None]
    plain, grid = patch_mask(images, 7, mask_ratio=0.0, **options)
    torch.testing.assert_close(plain, expected)
    assert grid.shape == (2, 3, 5) and not grid.any()
    masked, grid = patch_mask(images, 7, mask_ratio=0.5, seeds=torch.tensor([8, 9]), fill=1.0, **options)
    hidden = grid.repeat_interleave(7, 1).repeat_interleave(7, 2)[:, :20, :30][:, None].expand_as(masked)
    white = ((1 - mean) / std)[None, :, None, None].expand_as(masked)
    torch.testing.assert_close(masked, torch.where(hidden, white, expected))
    masked, _ = patch_mask(images, 7, mask_ratio=0.5, seeds=torch.tensor([8, 9]), **options)
    assert (masked[hidden] == 0).all()
