"""Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

A draw is a pure function of (seed, counter), so it does not depend on batch, process, device or order. The
arithmetic is int64 with every product below 2**63, which no compiler can let overflow; csrc/common/philox.h gives
the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

UNIFORM_DOMAIN = 0
"""Fourth counter word of `uniform`; the other domains keep the streams of its callers from meeting theirs."""
PATCH_MASK_DOMAIN = 1
"""Fourth counter word of `patch_mask`."""


def _pair(like: Tensor, values: tuple[int, int]) -> Tensor:
    """[2, *like.shape], filled where it is: a copy from the host would wait for the device."""
    return torch.stack([torch.full_like(like, value) for value in values])


def _multiply(words: Tensor, halves: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of words * (2 * halves + 1): both multipliers are odd."""
    product = words * halves
    high = (product + (words >> 1)) >> 31
    low = torch.add(words, product & 0x7FFFFFFF, alpha=2) & _MASK
    return high, low


def philox4x32(seeds: Tensor, counter: Tensor, stream: int, domain: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four 32-bit words at a counter, as int64 tensors.

    `seeds` (the 64-bit key) and `counter` (the low 64 bits of the counter) are int64 and broadcast; `stream` and
    `domain` are its third and fourth words, in [0, 2**32).
    """
    seeds, counter = torch.broadcast_tensors(seeds, counter)
    # Words 0 and 2 go through the same steps, as do 1 and 3: two at a time are half as many small operations.
    even = torch.stack([counter & _MASK, torch.full_like(counter, stream)])
    odd = torch.stack([(counter >> 32) & _MASK, torch.full_like(counter, domain)])
    key = torch.stack([seeds & _MASK, (seeds >> 32) & _MASK])
    rounds = torch.arange(_ROUNDS, device=seeds.device).view(-1, *[1] * key.dim())
    keys = (key + rounds * _pair(seeds, _WEYL)) & _MASK
    halves = _pair(seeds, (_MULTIPLIERS[0] >> 1, _MULTIPLIERS[1] >> 1))
    for key in keys:
        high, low = _multiply(even, halves)
        even, odd = high.flip(0) ^ odd ^ key, low.flip(0)
    return even[0], odd[0], even[1], odd[1]
