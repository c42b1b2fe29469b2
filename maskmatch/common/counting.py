"""How often each number occurs in a tensor, counted where the tensor is."""

from __future__ import annotations

import torch
from torch import Tensor

COUNTERS_A_NUMBER = 2  # at most, so that they take no more memory than a few copies of what is counted


def count_each(index: Tensor, size: int, values: Tensor | None = None) -> Tensor:
    """How often each of 0 to size - 1 occurs, int64 [size].

    Not by torch.bincount, which waits for the device to say which number is the largest. Where `size` is small every
    line is counted by itself first: on a GPU all pixels would otherwise add to the same few addresses, one after the
    other.

    Args:
        index: int64 [..., W], in [0, size).
        size: how many numbers there are.
        values: int64 [..., W], added up instead of ones.
    """
    return _by_line(index, size, values, 1).sum(0) if index.numel() else index.new_zeros(size)


def count_in_each(index: Tensor, size: int) -> Tensor:
    """The same of each of N parts: int64 [N, ..., W] -> int64 [N, size]."""
    if not index.numel():
        return index.new_zeros(len(index), size)
    return _by_line(index, size, None, len(index)).view(len(index), -1, size).sum(1)


def _by_line(index: Tensor, size: int, values: Tensor | None, parts: int) -> Tensor:
    """Of each line, or where there are many numbers of each part, int64 [lines, size]."""
    by_line = size <= COUNTERS_A_NUMBER * index.shape[-1]
    lines = index.reshape(-1, index.shape[-1] if by_line else index.numel() // parts)
    added = torch.ones_like(lines) if values is None else values.reshape(lines.shape)
    return lines.new_zeros(lines.shape[0], size).scatter_add_(1, lines, added)
