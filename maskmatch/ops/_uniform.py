"""Random numbers from per-sample seeds."""

from __future__ import annotations

import torch
from torch import Tensor

from maskmatch.ops import _backend, _library, reference
from maskmatch.ops._checks import check_integer, check_tensor

_COMPILED = {
    device: backend for device, backend in (("cpu", "cpp"), ("cuda", "cuda")) if _library.has_kernel("uniform", backend)
}


def uniform(seeds: Tensor, count: int, stream: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) from per-sample seeds, multiples of 2**-24: the upper bits of Philox 4x32-10's words.

    A row depends on its seed and stream alone, and its first numbers do not depend on `count`. Where there is no
    compiled code for the device, torch's operations draw them: the same bits, in some 80 operations. Nothing waits for
    the device.

    Args:
        seeds: int64 [N].
        count: how many numbers a seed.
        stream: in [0, 2**32); separates uses of one seed.

    Returns:
        float32 [N, count] on the seeds' device.

    Raises:
        ValueError, TypeError: an argument of the wrong shape, dtype or range.
    """
    check_tensor("seeds", seeds, "[N]", (torch.int64,))
    check_integer("count", count, 0, 2**31 - 1)
    check_integer("stream", stream, 0, 2**32 - 1)
    if _COMPILED.get(seeds.device.type) == _backend.current_backend(seeds.device):
        return torch.ops.maskmatch.uniform.default(seeds, count, stream)
    return reference.uniform(seeds, count, stream)


if _library.problems["cpp"] is None:

    @torch.library.register_fake("maskmatch::uniform")
    def _fake(seeds: Tensor, count: int, stream: int) -> Tensor:
        return seeds.new_empty((seeds.shape[0], count), dtype=torch.float32)
