"""Every form of upsample_cross_entropy gives what the reference does, on a grid of shapes that leaves none out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from maskmatch.ops import upsample_cross_entropy, use_backend
from tools.emulator import emulated

pytestmark = [pytest.mark.slow, pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")]
MODEST, LEAST, H200 = range(3)  # emulator.h's devices
CLASSES = (1, 2, 3, 7, 8, 9, 21, 40, 150, 255)
# Ratios of rows and columns: all numbers of lanes; then one pixel a cell, more lanes than a warp has, shrinking.
RATIOS = [
    (1.5, 1.5), (2, 1), (2, 2), (3, 4), (4, 4), (4, 4.1), (1, 4), (5, 8), (8, 8), (7.9, 16), (16, 16), (32, 2),
    (32, 32), (33, 4),
]  # fmt: skip
OF_GENERAL_FORM = [(1, 1), (33, 32), (0.5, 8), (0.4, 0.3)]


@pytest.fixture
def emulator() -> Iterator[emulated.Emulated]:
    with emulated.backend(order=1) as emulator:
        yield emulator
        emulator.module.set_device(MODEST)


def draw(classes: int, *size: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(1, classes, *size, generator=torch.Generator().manual_seed(seed)) * spread


def draw_target(classes: int, *size: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    target = torch.randint(0, classes, (1, *size), generator=generator)
    return torch.where(torch.rand(target.shape, generator=generator) < 0.1, -1, target)


def check(logits: Tensor, target: Tensor, tolerance: float = 2e-6, **options: Any) -> None:
    """The mean loss and the loss of every pixel. A pixel's has the rounding of its logits."""
    for normalize in ("all", "none"):
        results = []
        for dtype in (torch.float32, torch.float64):
            leaf = logits.to(dtype).requires_grad_()
            with use_backend("reference" if dtype == torch.float64 else emulated.NAME):
                loss = upsample_cross_entropy(leaf, target, ignore_index=-1, normalize=normalize, **options)
                (gradient,) = torch.autograd.grad(loss.sum() * (target.numel() if normalize == "all" else 1), leaf)
            results.append((loss.detach().double(), gradient.double()))
        (loss, gradient), (expected, expected_gradient) = results
        floor = 1e-7 if normalize == "all" else 0.2 * tolerance * max(5.0, float(logits.abs().max()))
        assert ((loss - expected).abs() <= tolerance * expected.abs() + floor).all()
        # With one class the gradient is 0.
        least = 1e-8 * target.numel() ** 0.5
        assert (gradient - expected_gradient).norm() <= tolerance * expected_gradient.norm() + least


def form(emulator: emulated.Emulated) -> str:
    return emulator.module.forms()["upsample_cross_entropy"]


@pytest.mark.parametrize("classes", CLASSES)
def test_any_number_of_classes(emulator: emulated.Emulated, classes: int) -> None:
    for device in (MODEST, LEAST, H200):
        emulator.module.set_device(device)
        for ratio in (4, 8):
            check(draw(classes, 4, 5), draw_target(classes, 4 * ratio, 5 * ratio))
            assert form(emulator) == "series"


@pytest.mark.parametrize("align_corners", [False, True], ids=["half-pixel", "aligned"])
@pytest.mark.parametrize("ratio", RATIOS + OF_GENERAL_FORM, ids=str)
def test_any_ratio(emulator: emulated.Emulated, ratio: tuple[float, float], align_corners: bool) -> None:
    for device, (height, width) in ((MODEST, (7, 5)), (LEAST, (1, 9)), (H200, (12, 3))):
        emulator.module.set_device(device)
        size = max(1, round(ratio[0] * height)), max(1, round(ratio[1] * width))
        check(draw(5, height, width), draw_target(5, *size), align_corners=align_corners)
        if not align_corners and (height, width) == (7, 5):
            assert form(emulator) == ("general" if ratio in OF_GENERAL_FORM else "series")


def test_many_tiles(emulator: emulated.Emulated) -> None:
    for device in (MODEST, LEAST):
        emulator.module.set_device(device)
        for classes, ratio in ((3, 2), (21, 4), (30, 3)):
            check(draw(classes, 40, 41), draw_target(classes, 40 * ratio, 41 * ratio))


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("value", [-1e4, -200.0, -80.0])
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_hidden_classes(emulator: emulated.Emulated, ratio: int, value: float, everywhere: bool) -> None:
    """Powers that a series could not follow."""
    logits = draw(6, 5, 9)
    logits[:, 2, :, slice(None) if everywhere else slice(3, 5)] = value
    target = draw_target(6, 5 * ratio, 9 * ratio)
    check(logits, torch.where(target == 2, 3, target), tolerance=1e-5)
    check(logits, target, tolerance=1e-5, label_smoothing=0.1)
    assert form(emulator) == "series"


@pytest.mark.parametrize("option", [None, "label_smoothing", "class_weight", "pixel_weight"])
def test_sure_logits(emulator: emulated.Emulated, option: str | None) -> None:
    """Losses of 1e-4 and less keep their digits, as do gradients."""
    top = torch.nn.functional.one_hot(draw(4, 6, 6).argmax(1), 4).permute(0, 3, 1, 2)
    logits = draw(4, 6, 6, seed=1, spread=1.0) + 14 * top
    target = torch.nn.functional.interpolate(logits, (48, 48), mode="bilinear").argmax(1)
    values = {
        "label_smoothing": 0.1,
        "class_weight": torch.tensor([1.0, 0.0, 2.0, 0.5]),
        "pixel_weight": torch.linspace(-1, 1, target.numel()).view(target.shape),
    }
    check(logits, target, **({option: values[option]} if option else {}))
