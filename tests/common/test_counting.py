"""Counts against numpy's, by lines and at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmatch.common.counting import count_each, count_in_each


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 40), (90,), (0, 4), (4, 0)], ids=str)
@pytest.mark.parametrize("size", [1, 6, 14, 15, 500])
def test_counts_are_numpys(shape: tuple[int, ...], size: int) -> None:
    rng = np.random.default_rng(size)
    index, values = rng.integers(size, size=shape), rng.integers(-(2**40), 2**40, size=shape)
    weighted = [values[index == number].sum() for number in range(size)]
    given = torch.from_numpy(index)
    assert count_each(given, size).tolist() == np.bincount(index.ravel(), minlength=size).tolist()
    assert count_each(given, size, torch.from_numpy(values)).tolist() == weighted
    if len(shape) > 1:
        apart = [np.bincount(part.ravel(), minlength=size).tolist() for part in index]
        assert count_in_each(given, size).tolist() == apart


def test_the_counters_of_many_classes_take_no_more_memory_than_the_image() -> None:
    """A confusion matrix of 150 classes has 22501 counters; a row of them for each line would be 184 MB."""
    index = torch.zeros(1, 1024, 2048, dtype=torch.int64)
    with torch.profiler.profile(profile_memory=True) as profile:
        count_each(index, 22501)
    most = max(event.self_cpu_memory_usage for event in profile.events())
    assert most <= index.numel() * index.element_size()
