"""The same bits whatever the number of threads, the run or the neighbours in the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from maskmatch.ops import multiscale_pseudo_label, patch_mask, upsample_cross_entropy


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run_loss(normalize: str) -> Callable[[], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, 23, 21, generator=generator)
    target = torch.randint(0, 7, (3, 90, 85), generator=generator)
    confidence = torch.rand(3, 90, 85, generator=generator)

    def run() -> list[Tensor]:
        leaf = logits.clone().requires_grad_()
        loss = upsample_cross_entropy(leaf, target, confidence=confidence, threshold=0.5, normalize=normalize)
        loss.sum().backward()
        assert leaf.grad is not None
        return [loss.detach(), leaf.grad]

    return run


def run_label() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    scales = [torch.randn(3, 7, n, n, generator=generator) for n in (11, 23)]
    return list(multiscale_pseudo_label(scales, (90, 85)))


def run_mask() -> list[Tensor]:
    images = torch.randint(0, 256, (5, 3, 90, 85), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return list(patch_mask(images, 8, mask_ratio=0.5, seeds=torch.arange(5)))


@pytest.mark.parametrize("run", [run_loss("all"), run_loss("none"), run_label, run_mask])
def test_threads_do_not_matter(fast_backend: torch.device, run: Callable[[], list[Tensor]]) -> None:
    if fast_backend.type != "cpu":
        pytest.skip("threads of the CPU")
    torch.set_num_threads(1)
    expected = run()
    for threads in (2, 3, 4, 7):
        torch.set_num_threads(threads)
        for a, b in zip(run(), expected, strict=True):
            assert torch.equal(a, b)


def test_neighbours_do_not_matter(fast_backend: torch.device) -> None:
    scales = [torch.randn(3, 7, n, n, device=fast_backend) for n in (5, 9)]
    together = multiscale_pseudo_label(scales, (40, 41))
    alone = multiscale_pseudo_label([scale[1:2] for scale in scales], (40, 41))
    for a, b in zip(together, alone, strict=True):
        assert torch.equal(a[1:2], b)
    images = torch.randint(0, 256, (3, 3, 40, 41), dtype=torch.uint8, device=fast_backend)
    seeds = torch.tensor([5, 6, 7], device=fast_backend)
    for strategy in ("random", "block", "grid"):
        together = patch_mask(images, 8, mask_ratio=0.5, seeds=seeds, strategy=strategy)
        alone = patch_mask(images[1:2], 8, mask_ratio=0.5, seeds=seeds[1:2], strategy=strategy)
        for a, b in zip(together, alone, strict=True):
            assert torch.equal(a[1:2], b)
