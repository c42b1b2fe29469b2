"""Where the Triton kernels sample, against exact fractions; and the kernels with 64-bit offsets."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from maskmatch.ops import multiscale_pseudo_label, upsample_cross_entropy, use_backend
from maskmatch.ops.triton import INTERPRETED

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from maskmatch.ops.triton import multiscale_pseudo_label as pseudo_label_module  # noqa: E402
from maskmatch.ops.triton import upsample_cross_entropy as cross_entropy_module  # noqa: E402
from maskmatch.ops.triton._sampling import first_output, index_type, sample  # noqa: E402

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
on_device = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device, and the kernels are not interpreted"
)
SIZES = [(41, 321), (1, 7), (7, 1), (321, 41), (1, 1), (5, 5), (3, 2**30), (2**30, 2**20), (2**30, 2**30)]


@triton.jit
def sample_kernel(
    outputs, low, high, fraction, input_size, output_size, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr
):  # fmt: skip
    """outputs: [64] int64, read; low, high: [64] int64 and fraction: [64] fp32, written."""
    lane = tl.arange(0, 64)
    a, b, c = sample(tl.load(outputs + lane), input_size, output_size, ALIGN_CORNERS, INDEX)
    tl.store(low + lane, a)
    tl.store(high + lane, b)
    tl.store(fraction + lane, c)


@triton.jit
def first_output_kernel(
    positions, first, input_size, output_size, ALIGN_CORNERS: tl.constexpr, INDEX: tl.constexpr
):  # fmt: skip
    """positions: [64] int64, read; first: [64] int64, written."""
    lane = tl.arange(0, 64)
    tl.store(first + lane, first_output(tl.load(positions + lane), input_size, output_size, ALIGN_CORNERS, INDEX))


def position(output: int, input_size: int, output_size: int, align_corners: bool) -> Fraction:
    """Where an output samples, before the clamp."""
    if align_corners:
        return Fraction(output * (input_size - 1), max(output_size - 1, 1))
    return Fraction((2 * output + 1) * input_size - output_size, 2 * output_size)


def integer_type(input_size: int, output_size: int) -> object:
    return tl.int64 if 2 * (output_size + 1) * (input_size + 1) >= 2**31 else tl.int32


@on_device
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("input_size", "output_size"), SIZES)
def test_samples_are_exact(input_size: int, output_size: int, align_corners: bool) -> None:
    outputs = [round(i * (output_size - 1) / 63) for i in range(64)]
    low, high = (torch.empty(64, dtype=torch.int64, device=DEVICE) for _ in range(2))
    fraction = torch.empty(64, device=DEVICE)
    sample_kernel[(1,)](
        torch.tensor(outputs, device=DEVICE), low, high, fraction, input_size, output_size, align_corners,
        integer_type(input_size, output_size),
    )  # fmt: skip
    for i, output in enumerate(outputs):
        exact = min(max(position(output, input_size, output_size, align_corners), Fraction(0)), input_size - 1)
        assert low[i] == math.floor(exact)
        assert high[i] == min(low[i] + 1, input_size - 1)
        assert abs(fraction[i].item() - float(exact - math.floor(exact))) <= 2**-22


@on_device
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("input_size", "output_size"), SIZES[:6])
def test_first_outputs_part_the_axis(input_size: int, output_size: int, align_corners: bool) -> None:
    positions = [min(i - 1, input_size) for i in range(64)]
    first = torch.empty(64, dtype=torch.int64, device=DEVICE)
    first_output_kernel[(1,)](
        torch.tensor(positions, device=DEVICE), first, input_size, output_size, align_corners, tl.int32
    )  # fmt: skip
    for i, at in enumerate(positions):
        beyond = [o for o in range(output_size) if position(o, input_size, output_size, align_corners) >= at]
        expected = 0 if at < 0 else min(beyond, default=output_size) if at < input_size else output_size
        assert first[i] == expected, at


def test_offsets_are_wide_where_they_must_be() -> None:
    def chosen(*shape: int, width: int = 100) -> object:
        return index_type([torch.empty(shape, device="meta")], 100, width)

    assert chosen(9, 21, 81, 81, width=641) == tl.int32
    assert chosen(1, 255, 3000, 3000) == tl.int64  # elements of an image
    assert chosen(1000, 255, 100, 100) == tl.int32  # images are told apart in 64 bits anyway
    assert chosen(1, 2, 1, 2**20, width=2**20) == tl.int64  # the numerator of a position
    wide = torch.empty(1, 2, 3, 3, device="meta").as_strided((1, 2, 3, 3), (0, 2**31, 3, 1))
    assert index_type([wide], 9, 9) == tl.int64


@on_device
def test_wide_offsets_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.randn(2, 5, 3, 4, device=DEVICE), torch.randint(0, 5, (2, 7, 9), device=DEVICE)

    def results() -> list[torch.Tensor]:
        scales = [logits, logits[..., ::2]]
        of_labels = multiscale_pseudo_label(scales, (7, 9), flipped=[False, True])
        leaf = logits.clone().requires_grad_()
        loss = upsample_cross_entropy(leaf, target, label_smoothing=0.1)
        return [*of_labels, loss.detach(), *torch.autograd.grad(loss, leaf)]

    with use_backend("triton"):
        narrow = results()
        for module in (pseudo_label_module, cross_entropy_module):
            monkeypatch.setattr(module, "index_type", lambda *_: tl.int64)
        for a, b in zip(results(), narrow, strict=True):
            assert torch.equal(a, b)
