"""Every way to show an image to a network equals the same written out, one pass at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmatch.common.errors import UserError
from maskmatch.inference import modes as inference
from maskmatch.inference.modes import Inference, predict_batch
from maskmatch.models import Student, from_module

CLASSES = 4
IMAGES = torch.randint(0, 256, (2, 3, 53, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """Remembers what it was shown; sees more of the image than one pixel, so that windows differ from the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 9, 4, 4), nn.ReLU(), nn.Conv2d(8, CLASSES, 9, padding=4))
        self.shown: list[torch.Size] = []

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.shape)
        logits: Tensor = self.layers(images)
        return 5 * logits


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return from_module(Network(), size_multiple=16, align_corners=True, mean=(0.4, 0.5, 0.6))


def normalised(student: Student) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (student.mean, student.std))
    return (IMAGES / 255 - mean) / std


@torch.no_grad()
def softmax(student: Student, inputs: Tensor, size: tuple[int, int]) -> Tensor:
    logits = student.network(inputs)
    return F.interpolate(logits, size, mode="bilinear", align_corners=student.align_corners).softmax(1)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def compare(student: Student, how: Inference, expected: Tensor) -> None:
    label, confidence = predict_batch(student.network, student, IMAGES, how)
    assert label.dtype == torch.uint8 and label.shape == confidence.shape == (2, 53, 70)
    torch.testing.assert_close(confidence, expected.amax(1), rtol=1e-4, atol=1e-5)
    assert (label == expected.argmax(1)).float().mean() > 0.999
    assert len(label.unique()) > 1


@pytest.mark.parametrize("at_once", [1, 3 * 2 * 32 * 32, 2**18])
def test_slide(student: Student, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BATCH_PIXELS", at_once)
    inputs = normalised(student)
    total, times = torch.zeros(2, CLASSES, 53, 70), torch.zeros(53, 70)
    for top in (0, 21):  # two thirds of 32 apart, the last one ends with the image
        for left in (0, 21, 38):
            window = inputs[:, :, top : top + 32, left : left + 32]
            total[:, :, top : top + 32, left : left + 32] += softmax(student, window, (32, 32))
            times[top : top + 32, left : left + 32] += 1
    student.network.shown.clear()
    compare(student, Inference("slide", window=(32, 32)), total / times)
    assert {shape[2:] for shape in student.network.shown} == {(32, 32)}  # no slivers
    if at_once > 2 * 32 * 32:
        assert student.network.shown[0][0] > 2  # windows share a forward


@pytest.mark.parametrize("side", [1, 31, 32, 33, 53, 54, 1000])
def test_windows_cover_a_side_and_stay_inside(side: int) -> None:
    starts = inference._starts(max(side, 32), 32)
    assert starts[0] == 0 and starts[-1] == max(side, 32) - 32
    assert all(0 < b - a <= 32 for a, b in pairwise(starts))


def test_a_window_that_holds_the_image_is_the_whole(student: Student) -> None:
    whole = predict_batch(student.network, student, IMAGES, Inference())
    slide = predict_batch(student.network, student, IMAGES, Inference("slide", window=(64, 80)))
    torch.testing.assert_close(slide[1], whole[1], rtol=1e-4, atol=1e-5)


def test_resize(student: Student) -> None:
    expected = softmax(student, resized(normalised(student), (32, 48)), (53, 70))
    compare(student, Inference("resize", window=(32, 48)), expected)


def test_scales_and_flips(student: Student) -> None:
    inputs, views = normalised(student), []
    for height, width in ((53, 70), (26, 35), (80, 105)):
        for flipped in (False, True):
            image = resized(inputs, (height, width))
            image = image.flip(3) if flipped else image
            padded = torch.zeros(2, 3, -(-height // 16) * 16, -(-width // 16) * 16)
            padded[:, :, :height, :width] = image
            probabilities = softmax(student, padded, padded.shape[2:])[:, :, :height, :width]
            probabilities = F.interpolate(probabilities, (53, 70), mode="bilinear", align_corners=False)
            views.append(probabilities.flip(3) if flipped else probabilities)
    compare(student, Inference(scales=(1.0, 0.5, 1.5), flip=True), torch.stack(views).mean(0))


def test_float_images(student: Student) -> None:
    label, confidence = predict_batch(student.network, student, IMAGES)
    same = predict_batch(student.network, student, IMAGES / 255)
    assert torch.equal(same[0], label) and torch.equal(same[1], confidence)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"mode": "half"}, "mode: expected one of whole, slide, resize, got half"),
        ({"scales": ()}, "scales: expected positive numbers"),
        ({"scales": (1.0, -1.0)}, "scales: expected positive numbers"),
        ({"scales": (float("inf"),)}, "scales: expected positive numbers"),
        ({"mode": "slide"}, "window: expected the height and width of a slide window, got None"),
        ({"mode": "resize", "window": (0, 8)}, r"got \(0, 8\)"),
    ],
)
def test_values_that_cannot_be(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Inference(**given)
