"""The CUDA kernels move little more than they must, and benchmarks/roofline.py says so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import roofline
from roofline import Work, emulated

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")

VOC, CITYSCAPES = (1, 21, 321), (1, 19, 801)


def ratio(work: Work) -> float:
    with emulated.backend() as emulator:
        emulator.module.take_counts()
        work.fused()
        return roofline.record(work, emulator.module.take_counts(), 1)["ratio"]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("shape", "stride"), [(VOC, 8), (VOC, 4), (CITYSCAPES, 8)], ids=str)
def test_logits(shape: tuple[int, int, int], stride: int, dtype: torch.dtype) -> None:
    assert 1 <= ratio(roofline.pseudo_label(shape, stride, dtype)) <= 1.25
    assert 1 <= ratio(roofline.loss(shape, stride, dtype)) <= 1.5
    assert 1 <= ratio(roofline.pixel_loss(shape, stride, dtype)) <= 1.5


@pytest.mark.slow
def test_many_classes() -> None:
    """The tile's gradient must fit into shared memory, so that tiles get narrower."""
    assert ratio(roofline.loss((1, 81, 513), 4, torch.float32)) <= 1.5
    assert ratio(roofline.loss((1, 150, 512), 8, torch.float32)) <= 1.5


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_images(layout: str) -> None:
    assert 1 <= ratio(roofline.masking((2, 3, 321, 321), layout)) <= 1.25


def test_a_record_has_what_a_reader_needs() -> None:
    work = roofline.loss((1, 3, 33), 8, torch.float32)
    counts = {"bytes": 2 * work.least_bytes, "loads": 10, "stores": 20, "specials": 1000, "blocks": 8}
    record = roofline.record(work, counts, 10 * work.least_bytes)
    assert record["ratio"] == 2 and record["over_eager"] == 5
    assert record["predicted_us_h100_bytes"] == pytest.approx(2 * work.least_bytes / 3.35e12 * 1e6)
    assert set(roofline.COLUMNS) <= set(record)


def test_eager_bytes_are_those_that_go_in_and_out() -> None:
    a, b = torch.zeros(1000), torch.zeros(1000)
    assert roofline.eager_bytes(lambda: (a + b).view(10, 100)) == 3 * 4000
