"""multiscale_pseudo_label: every backend, dtype, shape, layout and option against the fp64 reference."""

from __future__ import annotations

import pytest
import torch

from maskmatch.ops.triton import INTERPRETED
from tests.ops.conformance.cases import DTYPES, SHAPES, SPREADS, draw_logits, laid_out, leave_out_all_but_pairs
from tests.ops.conformance.checks import check_pseudo_label


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pseudo_label_of_one_scale(backend: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_pseudo_label([draw_logits(shape[:4], dtype)], shape[4:], backend)


@pytest.mark.parametrize("align_corners", [False, True], ids=["half-pixel", "aligned"])
@pytest.mark.parametrize("average", ["probability", "logit"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pseudo_label_of_three_scales(
    backend: torch.device, shape: tuple[int, ...], average: str, align_corners: bool
) -> None:
    leave_out_all_but_pairs(INTERPRETED, SHAPES.index(shape), average == "logit", align_corners, of=2)
    count, classes, height, width = shape[:4]
    sizes = [(height, width), (height + 1, max(1, width // 2)), (2 * height, width + 3)]
    scales = [draw_logits((count, classes, *size), torch.float32, seed) for seed, size in enumerate(sizes)]
    options = {"flipped": [False, True, True], "weights": [1.0, 0.5, 2.0], "average": average}
    check_pseudo_label(scales, shape[4:], backend, align_corners=align_corners, **options)


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
def test_pseudo_label_layouts(backend: torch.device, layout: str) -> None:
    scales = [laid_out(draw_logits((2, 5, 6, 7), torch.float32, seed), layout) for seed in (0, 1)]
    check_pseudo_label(scales, (31, 33), backend)


@pytest.mark.parametrize("average", ["probability", "logit"])
@pytest.mark.parametrize("spread", SPREADS)
def test_pseudo_label_of_large_logits(backend: torch.device, spread: float, average: str) -> None:
    scales = [draw_logits((1, 6, 5, 5), torch.float32, seed, spread) for seed in (0, 1)]
    check_pseudo_label(scales, (35, 35), backend, average=average)
    check_pseudo_label(scales[:1], (35, 35), backend)
