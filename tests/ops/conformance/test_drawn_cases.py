"""Pseudo-labels and losses of shapes and options that nobody thought of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from maskmatch.ops import info
from maskmatch.ops.triton import INTERPRETED
from tests.ops.conformance.cases import draw_logits
from tests.ops.conformance.checks import check_cross_entropy, check_pseudo_label, draw_pixels


@pytest.mark.parametrize("part", range(4))
def test_drawn_cases(backend: torch.device, part: int) -> None:
    """Shapes and options that nobody thought of; a few at a time, as on a device Triton compiles kernels for each."""
    examples = 2 if info()["backend"] == "triton" else 10

    @settings(max_examples=examples, deadline=None, database=None)
    @seed(part)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        check_drawn_case(backend, data)

    check()


def check_drawn_case(backend: torch.device, data: st.DataObject) -> None:
    integer, boolean = (
        (lambda low, high: data.draw(st.integers(low, high))),
        (lambda: data.draw(st.booleans())),
    )
    side = 12 if INTERPRETED else 60
    shape = (integer(1, 2), integer(1, 9), integer(1, 40), integer(1, 40))
    size = (integer(1, side), integer(1, side))
    options: dict[str, Any] = {"align_corners": boolean()}
    logits = draw_logits(shape, data.draw(st.sampled_from([torch.float32, torch.float16])), integer(0, 9))
    check_pseudo_label([logits, logits.flip(0)], size, backend, flipped=[boolean(), boolean()], **options)
    pixels = draw_pixels((shape[0], *size), shape[1], 255, integer(0, 9))
    for name in ("confidence", "pixel_weight"):
        if boolean():
            options[name] = pixels[name]
    if boolean():
        options["class_weight"] = torch.linspace(0.5, 2.0, shape[1])
    options["threshold"] = data.draw(st.floats(0, 1))
    options["label_smoothing"] = data.draw(st.sampled_from([0.0, 0.2]))
    options["normalize"] = data.draw(st.sampled_from(["all", "confident", "none"]))
    check_cross_entropy(logits, pixels["target"], pixels["upstream"], backend, **options)
