"""Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

A draw is a pure function of (seed, counter), so it does not depend on batch, process, device or order. The
arithmetic is int64 with every product below 2**49, which no compiler can let overflow; csrc/common/philox.h gives
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
"""Fourth counter word of `uniform`; the operators use others, so that no stream of a caller meets theirs."""
PATCH_MASK_DOMAIN = 1
"""Fourth counter word of `patch_mask`."""


def _multiply(word: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of word * constant."""
    upper = (word >> 16) * constant
    lower = (word & 0xFFFF) * constant
    high = (upper + (lower >> 16)) >> 16
    low = (((upper & 0xFFFF) << 16) + lower) & _MASK
    return high, low


def philox4x32(seeds: Tensor, counter: Tensor, stream: int, domain: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four 32-bit words at a counter, as int64 tensors.

    `seeds` (the 64-bit key) and `counter` (the low 64 bits of the counter) are int64 and broadcast; `stream` and
    `domain` are its third and fourth words, in [0, 2**32).
    """
    seeds, counter = torch.broadcast_tensors(seeds, counter)
    key0, key1 = seeds & _MASK, (seeds >> 32) & _MASK
    word0, word1 = counter & _MASK, (counter >> 32) & _MASK
    word2 = torch.full_like(word0, stream)
    word3 = torch.full_like(word0, domain)
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(word0, _MULTIPLIERS[0])
        high1, low1 = _multiply(word2, _MULTIPLIERS[1])
        word0, word1, word2, word3 = high1 ^ word1 ^ key0, low1, high0 ^ word3 ^ key1, low0
        key0, key1 = (key0 + _WEYL[0]) & _MASK, (key1 + _WEYL[1]) & _MASK
    return word0, word1, word2, word3


def uniform(seeds: Tensor, count: int, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) from per-sample seeds: float32 [N, count] on the seeds' device, without a sync.

    `seeds` is int64 [N]; `stream` in [0, 2**32) separates uses of one seed. A row depends on its seed and stream
    alone, and its first numbers do not depend on `count`.
    """
    if seeds.dim() != 1 or seeds.dtype != torch.int64:
        raise ValueError(f"seeds must be int64 [N], got {seeds.dtype} {list(seeds.shape)}")
    if not 0 <= stream <= _MASK:
        raise ValueError(f"stream must be in [0, 2**32), got {stream}")
    counter = torch.arange((count + 3) // 4, dtype=torch.int64, device=seeds.device)
    words = torch.stack(philox4x32(seeds[:, None], counter[None, :], stream, UNIFORM_DOMAIN), dim=-1)
    return (words.flatten(1)[:, :count] >> 8).float() * 2.0**-24
