"""patch_mask: every backend, dtype, shape, layout and strategy against the fp64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskmatch.ops import info, patch_mask, use_backend
from maskmatch.ops.triton import INTERPRETED
from tests.ops.conformance.cases import DTYPES, laid_out, leave_out_all_but_pairs
from tools.emulator import emulated

STRATEGIES = ["random", "block", "grid"]
LAYOUTS = ["contiguous", "channels_last", "strided"]
IMAGE_DTYPES = [torch.uint8, *DTYPES]
IMAGE_SHAPES = [(3, 3, 40, 50), (2, 1, 7, 9), (1, 5, 1, 1), (2, 3, 33, 16), (0, 3, 8, 8)]
if INTERPRETED:
    IMAGE_SHAPES = [(2, 3, 5, 18), (1, 5, 1, 1), (3, 1, 2, 9), (0, 3, 8, 8)]
# fp32 images: 3e-7 seen at values up to 5; half-precision ones are rounded once.
IMAGE_TOLERANCE = {torch.uint8: 2e-6, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
if INTERPRETED:  # Triton's interpreter cuts fp32 off to bf16 where a device rounds
    IMAGE_TOLERANCE[torch.bfloat16] *= 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", IMAGE_DTYPES, ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", IMAGE_SHAPES, ids=str)
def test_patch_mask(
    backend: torch.device, shape: tuple[int, ...], strategy: str, dtype: torch.dtype, layout: str
) -> None:
    slow = INTERPRETED or info()["backend"] == emulated.NAME
    numbers = STRATEGIES.index(strategy), IMAGE_DTYPES.index(dtype), LAYOUTS.index(layout)
    leave_out_all_but_pairs(slow, *numbers, of=3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if dtype != torch.uint8:
        images = (images / 255).to(dtype)
    images = laid_out(images, layout)
    channels = shape[1]
    options: dict[str, Any] = {
        "strategy": strategy,
        "mean": torch.linspace(0.1, 0.6, channels).tolist(),
        "std": torch.linspace(0.2, 0.4, channels).tolist(),
        "fill": torch.linspace(0.0, 1.0, channels).tolist(),
    }
    seeds = torch.tensor([0, -1, 2**62])[: shape[0]]
    for patch_size, ratio in ((8, 0.7), (5, 0.0), (1, 0.5), (100, 1.0)):
        output, grid = patch_mask(images.to(backend), patch_size, mask_ratio=ratio, seeds=seeds.to(backend), **options)
        with use_backend("reference"):
            expected, expected_grid = patch_mask(
                images.double() / (255 if dtype == torch.uint8 else 1),
                patch_size, mask_ratio=ratio, seeds=seeds, **options,
            )  # fmt: skip
            same_layout, _ = patch_mask(images, patch_size, mask_ratio=ratio, seeds=seeds, **options)
        assert torch.equal(grid.cpu(), expected_grid)
        assert output.dtype == (torch.float32 if dtype == torch.uint8 else dtype)
        assert output.numel() == 0 or output.stride() == same_layout.stride()
        error = (output.cpu().double() - expected).abs()
        assert not error.numel() or error.max() <= IMAGE_TOLERANCE[dtype]


@pytest.mark.skipif(INTERPRETED, reason="takes minutes")
@pytest.mark.parametrize("patch_size", [6, 20])  # a band of rows a patch, and three
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_images_of_several_thread_blocks(backend: torch.device, layout: str, patch_size: int) -> None:
    images = torch.rand(2, 3, 97, 340, generator=torch.Generator().manual_seed(0))
    images, seeds = laid_out(images, layout), torch.tensor([3, -5])
    for strategy in ("random", "block", "grid"):
        options: dict[str, Any] = {"mask_ratio": 0.4, "strategy": strategy}
        output, grid = patch_mask(images.to(backend), patch_size, seeds=seeds.to(backend), **options)
        with use_backend("reference"):
            expected, expected_grid = patch_mask(images.double(), patch_size, seeds=seeds, **options)
        assert torch.equal(grid.cpu(), expected_grid)
        assert (output.cpu().double() - expected).abs().max() <= IMAGE_TOLERANCE[torch.float32]


@pytest.mark.skipif(INTERPRETED, reason="takes minutes")
@pytest.mark.parametrize("strategy", ["random", "block", "grid"])
def test_more_patches_than_a_thread_block_keeps(backend: torch.device, strategy: str) -> None:
    images, seeds = torch.zeros(2, 3, 71, 67), torch.tensor([3, -5])
    for ratio in (0.001, 0.7, 0.9999):
        grid = patch_mask(images.to(backend), 1, mask_ratio=ratio, seeds=seeds.to(backend), strategy=strategy)[1]
        with use_backend("reference"):
            expected = patch_mask(images, 1, mask_ratio=ratio, seeds=seeds, strategy=strategy)[1]
        assert torch.equal(grid.cpu(), expected)
