"""Evaluation and prediction, for a GPU that is not there: they run until they read a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Worker = Callable[..., dict[str, Any]]
DEVICES = ("auto", "cuda", "cuda:0")


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("use", "error", "place"),
    [
        ("evaluates", "RuntimeError: .numpy() is not supported", "confusion.py:compute"),
        ("predicts", "RuntimeError: .numpy() is not supported", "predict.py:_run"),
        ("loaded_array", "RuntimeError: .numpy() is not supported", "trained_model.py:predict"),
    ],
)
def test_it_runs_until_a_value_is_read(fake_device: Worker, use: str, error: str, place: str, device: str) -> None:
    found = fake_device(use=use, device=device)
    assert found.get("error", "none").startswith(error)
    assert place in found["at"]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_a_tensor_is_answered_on_its_device(fake_device: Worker, device: str) -> None:
    found = fake_device(use="loaded_tensor", device=device)
    assert found == {"device": "cuda:0", "labels": "cuda:0", "shape": [2, 40, 50]}
