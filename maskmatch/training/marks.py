"""Points in time where the work is done: on a GPU its own, so that taking one does not wait for it."""

from __future__ import annotations

import time

import torch


class Mark:
    """Now, in the order of the work: on a GPU when all that was given to its current stream before is done."""

    def __init__(self, device: torch.device) -> None:
        self._seconds = 0.0
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))
        else:
            self._seconds = time.perf_counter()

    def reached(self) -> bool:
        """Whether `seconds_since` can be asked."""
        return self._event is None or self._event.query()

    def seconds_since(self, earlier: Mark) -> float:
        """The time between two marks of one device; both must have been reached."""
        if self._event is None or earlier._event is None:
            return self._seconds - earlier._seconds
        return earlier._event.elapsed_time(self._event) / 1e3


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
