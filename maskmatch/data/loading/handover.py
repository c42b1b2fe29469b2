"""How a batch comes from the thread that makes it to the training, on a GPU without either waiting for the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import torch

from maskmatch.common.batch import Batch


class Made(NamedTuple):
    """A batch whose tensors may still be in the making on the device."""

    batch: Batch
    ready: torch.cuda.Event | None  # when they are; None on a CPU


class Handover:
    """Gives each thread that makes batches a CUDA stream of its own.

    Put on the training's stream instead, the decoding of a batch that is needed some steps later would hold up the step
    that is being taken.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._of_thread = threading.local()

    def make(self, make: Callable[[], Batch]) -> Made:
        """Call `make` with the thread's stream as the current one."""
        if self.device.type != "cuda":
            return Made(make(), None)
        if not hasattr(self._of_thread, "stream"):
            self._of_thread.stream = torch.cuda.Stream(self.device)
        stream = self._of_thread.stream
        with torch.cuda.stream(stream):
            return Made(make(), stream.record_event())

    def take(self, made: Made) -> Batch:
        """The batch, for the current stream: what is put on it from now on waits for the batch, the host does not."""
        if made.ready is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(made.ready)
            for tensor in made.batch:
                if tensor is not None:
                    tensor.record_stream(stream)  # else its memory could be taken for a later batch while it is read
        return made.batch
