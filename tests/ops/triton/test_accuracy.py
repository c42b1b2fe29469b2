"""The Triton kernels on a grid of sizes, against fp64: no further off than 2e-6, or than twice what torch is in fp32.

Tiles of 1 to 8 rows that reach 2 to 4 input rows, cells of no pixel to more than a program has at a time, and logits
so far apart that sums of shifted powers vanish.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from maskmatch.ops import multiscale_pseudo_label, upsample_cross_entropy, use_backend
from maskmatch.ops.triton import INTERPRETED
from tests.ops.triton.test_sampling import position

pytest.importorskip("triton")
from maskmatch.ops.triton.multiscale_pseudo_label import tile_rows
from maskmatch.ops.triton.upsample_cross_entropy import pixels_of_a_cell

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
on_device = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device, and the kernels are not interpreted"
)
INPUTS = [(1, 1), (2, 3), (16, 9), (40, 5)]
SIZES = [(1, 1), (2, 70), (41, 9), (16, 16)]


def draw(classes: int, *size: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(1, classes, *size, generator=generator) * spread).to(DEVICE)


def check_labels(scales: list[torch.Tensor], size: tuple[int, int], align_corners: bool = False) -> None:
    with use_backend("triton"):
        label, confidence = multiscale_pseudo_label(scales, size, align_corners=align_corners)
    exact = mean_probability([scale.double() for scale in scales], size, align_corners)
    of_torch = mean_probability(scales, size, align_corners).amax(1)
    expected = exact.amax(1)
    limit = max(3e-6, 2 * ((of_torch - expected).abs() / expected).max().item())
    assert ((confidence - expected).abs() / expected).max() <= limit
    assert (expected - exact.gather(1, label.long()[:, None])[:, 0]).max() <= max(2e-6, limit)


def mean_probability(scales: list[torch.Tensor], size: tuple[int, int], align_corners: bool) -> torch.Tensor:
    resized = (
        torch.nn.functional.interpolate(scale, size, mode="bilinear", align_corners=align_corners) for scale in scales
    )
    return torch.stack([logits.softmax(1) for logits in resized]).mean(0)


def check_loss(
    logits: torch.Tensor, size: tuple[int, int], align_corners: bool = False, relative: float = 2e-6
) -> None:
    target = torch.randint(0, logits.shape[1], (1, *size), generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def results(backend: str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = logits.to(dtype).requires_grad_()
        with use_backend(backend):
            loss = upsample_cross_entropy(leaf, target, align_corners=align_corners)
        return loss.detach().double(), torch.autograd.grad(loss, leaf)[0].double()

    exact = results("reference", torch.float64)
    got, of_torch = results("triton", torch.float32), results("reference", torch.float32)
    for expected, ours, theirs in zip(exact, got, of_torch, strict=True):
        limit = max(relative * expected.norm(), 2 * (theirs - expected).norm())
        assert (ours - expected).norm() <= limit


@on_device
@pytest.mark.parametrize("align_corners", [False, True], ids=["half-pixel", "aligned"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("inputs", INPUTS, ids=str)
def test_any_ratio(inputs: tuple[int, int], size: tuple[int, int], align_corners: bool) -> None:
    check_labels([draw(5, *inputs), draw(5, *inputs[::-1], seed=1)], size, align_corners)
    check_loss(draw(3, *inputs), size, align_corners)


@on_device
@pytest.mark.parametrize("classes", [1, 2, 8, 9, 33])
def test_any_number_of_classes(classes: int) -> None:
    check_labels([draw(classes, 2, 2, seed=s) for s in range(2)], (9, 9))
    check_loss(draw(classes, 2, 2), (9, 9))


@on_device
@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("value", [-1e4, -200.0])
def test_hidden_classes(value: float, everywhere: bool) -> None:
    """Shifted powers of all classes vanish between a node where one is hidden and one where the others are."""
    logits = draw(3, 3, 5)
    logits[:, 2, :, slice(None) if everywhere else slice(2, 4)] = value
    if not everywhere:
        logits[:, :2, :, :2] = value
    check_labels([logits, draw(3, 3, 5, seed=1)], (12, 20))
    # Between -1e4 and 0 a resized logit has three decimals in fp32, whoever resizes it.
    check_loss(logits, (12, 20), relative=1e-5 if value == -1e4 else 2e-6)


@on_device
def test_sure_logits() -> None:
    top = torch.nn.functional.one_hot(draw(4, 4, 4).argmax(1), 4).permute(0, 3, 1, 2)
    logits = draw(4, 4, 4, spread=1.0) + 14 * top
    check_labels([logits, draw(4, 4, 4, seed=1)], (32, 32))
    check_loss(logits, (32, 32))


@pytest.mark.parametrize("align_corners", [False, True], ids=["half-pixel", "aligned"])
def test_tiles_and_cells_hold_what_they_say(align_corners: bool) -> None:
    for inputs in range(1, 24):
        for outputs in range(1, 80):
            places = [position(o, inputs, outputs, align_corners) for o in range(outputs)]
            clamped = [min(max(math.floor(place), 0), inputs - 1) for place in places]
            rows, (levels,) = tile_rows([inputs], outputs, align_corners)
            for first in range(0, outputs, rows):
                last = clamped[min(first + rows, outputs) - 1]
                assert min(last + 1, inputs - 1) - clamped[first] < levels
            assert rows == 1 or levels <= 4
            cells = Counter(min(max(math.floor(place), -1), inputs - 1) for place in places)
            assert max(cells.values()) <= pixels_of_a_cell(inputs, outputs, align_corners)
