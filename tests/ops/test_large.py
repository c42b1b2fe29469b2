"""More than 2 ** 31 pixels. Inputs vary along rows alone, so that the reference of one column says what is right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy, use_backend

SIDE = 46400
GIB = 2**30

pytestmark = pytest.mark.slow


def need_memory(gib: float) -> None:
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    available = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), 0)
    if available < gib * GIB:
        pytest.skip(f"needs {gib} GiB of free memory, there are {available / GIB:.1f}")


@pytest.fixture
def compiled() -> str:
    try:
        with use_backend("cpp"):
            return "cpp"
    except RuntimeError as error:
        pytest.skip(str(error))


def test_loss_of_two_billion_pixels(compiled: str) -> None:
    need_memory(4)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 2, 5, 1, generator=generator).requires_grad_()
    column = torch.randint(0, 2, (1, SIDE, 1), generator=generator, dtype=torch.uint8)
    loss = upsample_cross_entropy(logits, column.expand(1, SIDE, SIDE).contiguous())
    (gradient,) = torch.autograd.grad(loss, logits)
    with use_backend("reference"):
        exact = logits.detach().double().requires_grad_()
        expected = upsample_cross_entropy(exact, column)
        (expected_gradient,) = torch.autograd.grad(expected, exact)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    assert (gradient - expected_gradient).norm() <= 1e-4 * expected_gradient.norm()


def test_pseudo_labels_of_two_billion_pixels(compiled: str) -> None:
    need_memory(14)
    logits = torch.randn(1, 3, 5, 1, generator=torch.Generator().manual_seed(0))
    label, confidence = multiscale_pseudo_label([logits], (SIDE, SIDE))
    with use_backend("reference"):
        expected_label, expected = multiscale_pseudo_label([logits.double()], (SIDE, 1))
    for x in (0, SIDE // 2, SIDE - 1):
        assert (label[..., x : x + 1] != expected_label).float().mean() < 1e-3  # equal best classes
        torch.testing.assert_close(confidence[..., x : x + 1], expected.float(), rtol=1e-5, atol=1e-5)


def test_masks_of_two_billion_pixels(compiled: str) -> None:
    need_memory(14)
    column = torch.randint(0, 256, (1, 1, SIDE, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = column.expand(1, 1, SIDE, SIDE).contiguous()
    output, grid = patch_mask(
        images, 400, mask_ratio=0.5, seeds=torch.tensor([7]), mean=(0.5,), std=(0.5,), fill=(0.5,)
    )
    visible = ~grid[0].repeat_interleave(400, 0)[:, [0, -1]]
    for i, x in enumerate((0, SIDE - 1)):
        expected = torch.where(visible[:, i], column[0, 0, :, 0] / 127.5 - 1, 0.0)
        torch.testing.assert_close(output[0, 0, :, x], expected, rtol=0, atol=2e-6)
