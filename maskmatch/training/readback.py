"""Reading numbers from the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """A tensor on its way to the host; made at once, read when it has arrived."""

    def __init__(self, tensor: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        self._host = tensor
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def arrived(self) -> bool:
        """Whether `read` would return at once."""
        return self._arrived is None or self._arrived.query()

    def read(self) -> list[float]:
        """The values; waits for them if need be."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return list(self._host.tolist())
