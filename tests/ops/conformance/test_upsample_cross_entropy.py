"""upsample_cross_entropy and its gradient, of every backend, shape, layout and option, against the fp64 reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskmatch.ops.triton import INTERPRETED
from tests.ops.conformance.cases import DTYPES, SHAPES, SPREADS, draw_logits, laid_out
from tests.ops.conformance.checks import check_cross_entropy, draw_pixels


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(backend: torch.device, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    ignore_index = 255 if shape[1] < 255 else -1
    pixels = draw_pixels((shape[0], *shape[4:]), shape[1], ignore_index)
    check_cross_entropy(
        draw_logits(shape[:4], dtype),
        pixels["target"],
        pixels["upstream"],
        backend,
        ignore_index=ignore_index,
    )


OPTIONS: list[dict[str, Any]] = [
    {"confidence": True, "threshold": 0.5},
    {"confidence": True, "threshold": 0.5, "normalize": "confident"},
    {"confidence": True, "threshold": 0.99, "normalize": "none"},
    {"confidence": True, "threshold": 2.0},
    {"normalize": "none"},
    {"normalize": 37.5, "pixel_weight": True},
    {"normalize": "tensor", "class_weight": True},
    {"label_smoothing": 0.1},
    {"label_smoothing": 1.0, "class_weight": True, "normalize": "none"},
    {
        "label_smoothing": 0.3,
        "class_weight": True,
        "pixel_weight": True,
        "confidence": True,
        "threshold": 0.3,
    },
    {"class_weight": True, "pixel_weight": True, "normalize": "none", "confidence": True, "threshold": 0.5},
    {"align_corners": True, "normalize": "none", "label_smoothing": 0.1},
    {"align_corners": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(map(str, options.items())))
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[4], SHAPES[6], SHAPES[8]], ids=str)
def test_cross_entropy_options(backend: torch.device, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    pixels = draw_pixels((shape[0], *shape[4:]), shape[1], 255)
    targets = [pixels["target"], pixels["target"].to(torch.uint8)]
    if INTERPRETED:  # one of them, but both with every option and with every shape
        targets = [targets[(OPTIONS.index(options) + SHAPES.index(shape)) % 2]]
    options = dict(options)
    for name in ("confidence", "pixel_weight"):
        if options.get(name):
            options[name] = pixels[name]
    if options.get("class_weight"):
        options["class_weight"] = torch.linspace(0.0, 2.0, shape[1])  # a class of weight 0 among them
    if options.get("normalize") == "tensor":
        options["normalize"] = torch.tensor(12345)
    for target in targets:
        check_cross_entropy(draw_logits(shape[:4], torch.float32), target, pixels["upstream"], backend, **options)


@pytest.mark.parametrize("layout", ["channels_last", "strided"])
@pytest.mark.parametrize("normalize", ["all", "none"])
def test_cross_entropy_layouts(backend: torch.device, layout: str, normalize: str) -> None:
    pixels = {name: laid_out(map_, layout) for name, map_ in draw_pixels((2, 31, 33), 5, 255).items()}
    target, upstream = pixels.pop("target"), pixels.pop("upstream")
    logits = laid_out(draw_logits((2, 5, 6, 7), torch.float32), layout)
    check_cross_entropy(logits, target, upstream, backend, threshold=0.5, normalize=normalize, **pixels)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("normalize", ["all", "none"])
@pytest.mark.parametrize("spread", SPREADS)
def test_cross_entropy_of_large_logits(backend: torch.device, spread: float, normalize: str, smoothing: float) -> None:
    pixels = draw_pixels((1, 35, 35), 6, 255)
    logits = draw_logits((1, 6, 5, 5), torch.float32, spread=spread)
    options = {"normalize": normalize, "label_smoothing": smoothing}
    check_cross_entropy(logits, pixels["target"], pixels["upstream"], backend, **options)
