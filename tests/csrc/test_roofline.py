"""benchmarks/speed/roofline.py counts what the CUDA kernels move; patch_mask moves little more than it must."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed import roofline
from benchmarks.speed.roofline import Work, emulated

pytestmark = pytest.mark.skipif(emulated.compiler() is None, reason="no C++ compiler")


def ratio(work: Work) -> float:
    with emulated.backend() as emulator:
        emulator.module.take_counts()
        work.fused()
        return roofline.record(work, emulator.module.take_counts(), 1)["ratio"]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_images(layout: str) -> None:
    assert 1 <= ratio(roofline.masking((2, 3, 321, 321), layout)) <= 1.25


def test_a_record_has_what_a_reader_needs() -> None:
    work = roofline.loss((2, 3, 32, 8), torch.float32)
    counts = {"bytes": 2 * work.least_bytes, "loads": 10, "stores": 20, "specials": 1000, "blocks": 8}
    record = roofline.record(work, counts, 10 * work.least_bytes)
    assert record["ratio"] == 2 and record["over_eager"] == 5
    assert record["bytes"] == 4 * work.least_bytes  # of two images
    assert set(roofline.COLUMNS) - {"launches", "predicted_us"} <= set(record)


def test_eager_bytes_are_those_that_go_in_and_out() -> None:
    a, b = torch.zeros(1000), torch.zeros(1000)
    assert roofline.eager_bytes(lambda: (a + b).view(10, 100)) == 3 * 4000
