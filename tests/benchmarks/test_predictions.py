"""What the model of a GPU says of the kernels as they are, against kernels whose times were read on one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks.speed import gpu_model, roofline
from benchmarks.speed.launches import Kernels
from benchmarks.speed.roofline import SHAPES, emulated
from maskmatch.ops import upsample_cross_entropy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not found"),
    pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler for the emulator"),
]

TRIALS = {(r.case, r.shape): r for r in gpu_model.readings() if r.kernels == "trial"}
MARGIN = 1.15
# Microseconds on an H200 that each operator is to reach.
BARS = {
    "labels": {"8x21x320/8": 26, "4x19x800/8": 58, "16x21x320/4": 62, "8x150x512/4": 790},
    "loss": {"8x21x320/8": 32, "4x19x800/8": 72, "16x21x320/4": 62, "8x150x512/4": 520},
}
WORK = {"labels": roofline.pseudo_label, "loss": roofline.loss}
NAMES = {f"{count}x{classes}x{size}/{stride}": name for name, (count, classes, size, stride) in SHAPES.items()}

# How often the time of its bytes (an image read once, and written) patch_mask may take, by its images and their side.
MASK_BARS = {(16, 320): 1.8, (8, 800): 1.5, (16, 512): 1.5}

Predict = Callable[[Callable[[], Any], int, int], float]


@pytest.fixture(scope="module")
def predict() -> Iterator[Predict]:
    """Microseconds of a call on one image, which moves so many bytes, as if there were so many images."""
    nvcc = shutil.which("nvcc")
    assert nvcc
    kernels = Kernels(emulated.KERNELS, nvcc)
    with emulated.backend(variant="profiled") as emulator:
        yield lambda call, images, least_bytes=0: gpu_model.predicted_us(
            kernels.launches(emulator, call, images), least_bytes=images * least_bytes
        )


@pytest.mark.parametrize(("case", "shape"), [(case, shape) for case, bars in BARS.items() for shape in bars])
def test_as_fast_as_the_trial_kernels_with_what_was_read_of_them(case: str, shape: str, predict: Predict) -> None:
    trial = TRIALS[case, shape]
    work = WORK[case](SHAPES[NAMES[shape]], torch.float32)
    ratio = predict(work.fused, work.images, work.least_bytes) / trial.predicted_us()
    assert ratio <= MARGIN * BARS[case][shape] / trial.measured_us


@pytest.mark.parametrize("patch", [16, 32])
@pytest.mark.parametrize(("images", "side"), MASK_BARS)
def test_patch_mask_over_the_time_of_its_bytes(images: int, side: int, patch: int, predict: Predict) -> None:
    work = roofline.masking((images, 3, side, side), "channels_last", patch)
    bytes_us = images * 3 * side * side * (1 + 4) / gpu_model.BYTES_A_US
    assert predict(work.fused, work.images, work.least_bytes) <= MASK_BARS[images, side] * bytes_us


@pytest.fixture(scope="module")
def plain_loss(predict: Predict) -> float:
    work = roofline.loss(SHAPES["voc"], torch.float32)
    return predict(work.fused, work.images, work.least_bytes)


@pytest.mark.parametrize("option", ["class_weight", "label_smoothing", "pixel_weight", "normalize"])
def test_what_an_option_of_the_loss_costs(option: str, plain_loss: float, predict: Predict) -> None:
    images, classes, size, stride = SHAPES["voc"]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, classes, size // stride, size // stride, generator=generator).requires_grad_()
    target = torch.randint(0, classes, (1, size, size), generator=generator).to(torch.uint8)
    random = torch.rand(1, size, size, generator=generator)
    value = {
        "class_weight": torch.rand(classes, generator=generator),
        "label_smoothing": 0.1,
        "pixel_weight": random,
        "normalize": "none",
    }[option]

    def call() -> None:
        loss = upsample_cross_entropy(logits, target, confidence=random, threshold=0.5, **{option: value})
        torch.autograd.grad(loss, logits, torch.ones_like(loss))

    assert predict(call, images, 0) <= 1.5 * plain_loss
