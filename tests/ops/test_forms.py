"""Every form of a CUDA operator gives what the reference does, on a grid of shapes that leaves none out."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
import torch

from maskmatch.ops import multiscale_pseudo_label, use_backend
from tools.emulator import emulated

pytestmark = [pytest.mark.slow, pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")]
MODEST, LEAST, H200 = range(3)  # emulator.h's devices
CLASSES = (1, 2, 8, 9, 16, 17, 19, 20, 21, 22, 38, 39, 84, 85, 150, 152, 153, 255)


@pytest.fixture
def emulator() -> Iterator[emulated.Emulated]:
    with emulated.backend(order=1) as emulator:
        yield emulator
        emulator.module.set_device(MODEST)


def draw(classes: int, *size: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(1, classes, *size, generator=torch.Generator().manual_seed(seed)) * spread


def check(scales: list[torch.Tensor], size: tuple[int, int], ties: float = 2e-6, **options: object) -> None:
    label, confidence = multiscale_pseudo_label(scales, size, **options)
    exact = [scale.double() for scale in scales]
    with use_backend("reference"):
        _, expected = multiscale_pseudo_label(exact, size, **options)
    assert ((confidence - expected).abs() / expected).max() <= 3e-6
    probability = sum(
        torch.nn.functional.interpolate(s, size, mode="bilinear", align_corners=bool(options.get("align_corners")))
        .softmax(1) for s in exact
    ) / len(exact)  # fmt: skip
    chosen = probability.gather(1, label.long()[:, None])[:, 0]
    assert (expected - chosen).max() <= ties


@pytest.mark.parametrize("classes", CLASSES)
def test_pseudo_labels_of_any_number_of_classes(emulator: emulated.Emulated, classes: int) -> None:
    for device, count in product((MODEST, LEAST, H200), (1, 2, 3, 4)):
        if classes > 22 and (device, count) not in ((MODEST, 1), (LEAST, 3), (MODEST, 4)):
            continue
        emulator.module.set_device(device)
        check([draw(classes, 3 + s, 4, seed=s) for s in range(count)], (25, 37))
        assert emulator.module.forms()["multiscale_pseudo_label"] == ("series" if count <= 3 else "general")


RATIOS = [(1, 1), (2, 3), (16, 16), (37, 5), (64, 90)]


@pytest.mark.parametrize("align_corners", [False, True], ids=["half-pixel", "aligned"])
@pytest.mark.parametrize("size", [(1, 1), (2, 65), (41, 130), (64, 33)], ids=str)
def test_pseudo_labels_of_any_ratio(emulator: emulated.Emulated, size: tuple[int, int], align_corners: bool) -> None:
    for inputs, device in product(RATIOS, (MODEST, LEAST, H200)):
        emulator.module.set_device(device)
        check([draw(5, *inputs), draw(5, *inputs[::-1], seed=1)], size, align_corners=align_corners)


def test_pseudo_labels_that_no_tile_holds(emulator: emulated.Emulated) -> None:
    """So much smaller than their logits that no strip's would fit shared memory."""
    emulator.module.set_device(LEAST)
    check([draw(30, 200, 300)], (4, 64))
    assert emulator.module.forms()["multiscale_pseudo_label"] == "general"


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("value", [-1e4, -200.0])
def test_hidden_classes(emulator: emulated.Emulated, value: float, everywhere: bool) -> None:
    """Powers that a series could not follow."""
    scales = [draw(6, 5, 9, seed=s) for s in range(3)]
    for scale in scales:
        scale[:, 2, :, slice(None) if everywhere else slice(3, 5)] = value
    check(scales, (40, 72))
    assert emulator.module.forms()["multiscale_pseudo_label"] == "series"


def test_sure_logits(emulator: emulated.Emulated) -> None:
    top = torch.nn.functional.one_hot(draw(4, 6, 6).argmax(1), 4).permute(0, 3, 1, 2)
    scales = [draw(4, 6, 6, seed=s, spread=1.0) + 14 * top for s in range(3)]
    check(scales, (48, 48))
