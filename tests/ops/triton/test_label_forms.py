"""Both Triton kernels of multiscale_pseudo_label on a grid of shapes, against fp64, and which of them ran."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import pytest
import torch

from maskmatch.ops import info, multiscale_pseudo_label, use_backend
from maskmatch.ops.triton import INTERPRETED

pytest.importorskip("triton")
from maskmatch.ops.triton.multiscale_pseudo_label import form_of, series_lanes

DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
on_device = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no CUDA device, and the kernels are not interpreted"
)


def draw(classes: int, *size: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(1, classes, *size, generator=generator) * spread).to(DEVICE)


def exact(
    scales: list[torch.Tensor], size: tuple[int, int], weights: Iterable[float], flipped: Iterable[bool], align: bool
) -> torch.Tensor:
    """[1, C, H, W] fp64, the mean probability."""
    total = torch.zeros((), dtype=torch.float64, device=DEVICE)
    for scale, weight, flip in zip(scales, weights, flipped, strict=True):
        resized = torch.nn.functional.interpolate(scale.double(), size, mode="bilinear", align_corners=align)
        total = total + weight * (resized.flip(-1) if flip else resized).softmax(1)
    return total / sum(weights)


def check(
    form: str, scales: list[torch.Tensor], size: tuple[int, int], weights: list[float] | None = None,
    flipped: list[bool] | None = None, align: bool = False,
) -> None:  # fmt: skip
    with use_backend("triton"):
        label, confidence = multiscale_pseudo_label(scales, size, weights=weights, flipped=flipped, align_corners=align)
    assert info()["triton_forms"]["multiscale_pseudo_label"] == form
    probability = exact(scales, size, weights or [1.0] * len(scales), flipped or [False] * len(scales), align)
    expected = probability.amax(1)
    assert ((confidence - expected).abs() / expected).max() <= 3e-6
    assert (expected - probability.gather(1, label.long()[:, None])[:, 0]).max() <= 2e-6


@on_device
@pytest.mark.parametrize("align", [False, True], ids=["half-pixel", "aligned"])
@pytest.mark.parametrize(("inputs", "size"), [((1, 1), (2, 3)), ((2, 3), (45, 9)), ((4, 2), (8, 5)), ((3, 5), (9, 40))])
def test_series_at_any_enlargement(inputs: tuple[int, int], size: tuple[int, int], align: bool) -> None:
    """Cells of 1 to 24 rows of pixels, in strips of 20: some go on beyond a strip, and rows lie beyond all nodes."""
    check("series", [draw(5, *inputs), draw(5, 1, inputs[0], seed=1)], size, align=align)


@on_device
@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_series_keeps_its_digits_over_a_cell(ratio: int) -> None:
    for spread in (1.0, 10.0):
        check("series", [draw(9, 3, 3, seed=s, spread=spread) for s in range(2)], (3 * ratio, 20))


@on_device
@pytest.mark.parametrize("classes", [1, 2, 3, 21, 65, 130, 255])
def test_series_of_any_number_of_classes(classes: int) -> None:
    check("series", [draw(classes, 2, 2)], (4, 5))


@on_device
@pytest.mark.parametrize("count", range(1, 9))
def test_series_of_any_number_of_scales(count: int) -> None:
    """Weights and flips; at eight scales of nine classes two threads share a pixel."""
    scales = [draw(5 + 4 * (count > 4), 1 + s % 2, 2 + s, seed=s) for s in range(count)]
    check("series", scales, (7, 6), [0.5 + s for s in range(count)], [s % 2 == 1 for s in range(count)])


@on_device
@pytest.mark.parametrize("value", [-60.0, -200.0, -1e4])
@pytest.mark.parametrize("where", ["everywhere", "a node", "a row"])
def test_classes_hidden_at_the_top_of_a_cell_are_likely_at_its_bottom(value: float, where: str) -> None:
    """Powers that vanish where a series begins."""
    logits = draw(4, 3, 3, spread=1.0)
    rows, columns = {"everywhere": (slice(None),) * 2, "a node": (1, 1), "a row": (1, slice(None))}[where]
    logits[:, 2] += 5
    logits[:, 2, rows, columns] = value
    check("series", [logits, draw(4, 2, 2, seed=1)], (24, 12))


@on_device
def test_all_classes_of_one_node_vanish_at_the_next() -> None:
    logits = torch.zeros(1, 4, 2, 3, device=DEVICE)
    logits[:, 0, :, ::2] = logits[:, 1, :, 1] = 110.0
    check("series", [logits], (4, 30))
    check("series", [logits.transpose(2, 3).contiguous()], (30, 4))


@on_device
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_a_number_where_a_logit_is_not_finite(value: float) -> None:
    logits = draw(3, 3, 7)
    logits[0, 1, 1, 3] = value
    with use_backend("triton"):
        _, confidence = multiscale_pseudo_label([logits, draw(3, 3, 7)], (12, 28))
        _, elsewhere = multiscale_pseudo_label([logits.nan_to_num(0.0, 0.0, 0.0), draw(3, 3, 7)], (12, 28))
    assert info()["triton_forms"]["multiscale_pseudo_label"] == "series"
    reached = torch.zeros(12, 28, dtype=torch.bool, device=DEVICE)
    reached[:10, 10:18] = True  # by two rows and columns of four pixels, and by what lies above the first row
    assert value == -float("inf") or confidence[0][reached].isnan().all()  # a power of -inf is 0
    torch.testing.assert_close(confidence[0][~reached], elsewhere[0][~reached], rtol=3e-6, atol=0)


@on_device
def test_general_takes_what_series_does_not() -> None:
    check("general", [draw(5, 3, 2)], (5, 9))
    with use_backend("triton"):
        multiscale_pseudo_label([draw(3, 2, 2)], (8, 8), average="logit")
    assert info()["triton_forms"]["multiscale_pseudo_label"] == "general"


def test_series_takes_every_number_of_classes_and_scales() -> None:
    for classes, scales in product(range(1, 256), range(1, 9)):
        assert form_of(classes, [8] * scales, 16, "probability") == "series"
        lanes = series_lanes(classes, scales)
        assert -(-classes // lanes) * scales <= 64 + scales - 1 and lanes <= 32
    assert form_of(21, [8, 9], 17, "probability") == form_of(21, [8], 16, "logit") == "general"
