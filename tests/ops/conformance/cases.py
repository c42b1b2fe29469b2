"""Shapes, dtypes and layouts for every operator, and how close a backend must be to the fp64 reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maskmatch.ops.triton import INTERPRETED

# (N, C, h, w, H, W): one logit, one row, one column, ratios from 1 to 16, enlarging and shrinking, odd sizes, few and
# many classes. The widths cross the 4, 8 and 16 lanes of the vector code and its one- and two-vector windows.
SHAPES = [
    (2, 5, 1, 1, 5, 7),
    (1, 3, 1, 50, 1, 100),
    (1, 2, 9, 1, 30, 1),
    (2, 21, 6, 6, 41, 41),
    (1, 19, 16, 17, 16, 17),
    (1, 4, 33, 35, 47, 51),
    (1, 3, 20, 30, 7, 11),
    (1, 2, 5, 7, 37, 51),
    (1, 4, 4, 5, 56, 70),
    (2, 3, 3, 5, 48, 80),
    (1, 150, 3, 9, 21, 36),
    (1, 255, 3, 3, 17, 19),
    (2, 1, 4, 4, 9, 9),
    (1, 7, 40, 200, 3, 40),
    (1, 2, 3, 400, 2, 2),
    (1, 3, 2, 3, 40, 120),
    (0, 3, 4, 4, 9, 9),
]
if INTERPRETED:  # which is slow for each program: the same kinds of shapes, with fewer rows and logits
    SHAPES = [
        (2, 5, 1, 1, 5, 7),
        (1, 3, 1, 50, 1, 100),
        (1, 2, 9, 1, 17, 1),
        (2, 21, 3, 3, 11, 13),
        (1, 19, 5, 6, 5, 6),
        (1, 4, 8, 9, 11, 13),
        (1, 3, 10, 15, 4, 6),
        (1, 2, 3, 4, 19, 27),
        (1, 4, 1, 5, 14, 70),
        (2, 3, 1, 5, 8, 80),
        (1, 150, 2, 3, 4, 9),
        (1, 255, 2, 2, 3, 4),
        (2, 1, 4, 4, 5, 9),
        (1, 7, 13, 60, 2, 12),
        (1, 2, 3, 400, 2, 2),
        (1, 3, 1, 3, 10, 120),
        (0, 3, 4, 4, 9, 9),
    ]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]

# Relative to |value| + 1 and to the largest |logit|; gradients in norm, fp16 and bf16 ones being rounded once.
# The worst seen with the C++ code on AVX-512, AVX2 and baseline: values 7e-8, labels that differ 2e-12 apart, mean
# losses 2e-7; gradients 8e-5 at logits of 1e4 and 4e-7 else, in fp16 2.4e-4, in bf16 2.4e-3.
VALUE_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 4e-3, torch.float64: 1e-12}

# Where some classes are too unlikely to matter, where nearly all are, and where powers would not fit a float.
SPREADS = [12.0, 50.0, 4e3]


def leave_out_all_but_pairs(slow: bool, *numbers: int, of: int) -> None:
    """Where a case takes seconds: any two of the options' values, counted by these numbers, meet, not any three."""
    if slow and sum(numbers) % of:
        pytest.skip("any two of its options meet in another case")


def draw_logits(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0, spread: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * spread).to(dtype)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same values in another layout of memory."""
    if layout == "channels_last" and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        wide = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] * 2 + 1, dtype=tensor.dtype)
        view = wide[..., 1::2]
        view.copy_(tensor)
        return view
    return tensor


def assert_close(got: Tensor, expected: Tensor, largest: float) -> None:
    got, expected = got.double().cpu(), expected.double()
    error = (got - expected).abs() / (expected.abs() + 1)
    limit = VALUE_TOLERANCE * max(1.0, largest)
    assert not error.isnan().any()
    assert error.numel() == 0 or error.max() <= limit
