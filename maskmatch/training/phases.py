"""The parts of a step by name: ranges in a torch.profiler trace, and times where they are asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import record_function

PHASES = ("data wait", "teacher", "student forward", "loss", "backward", "optimizer", "EMA")
"""`loss` is all of the method that is no network: views, pseudo-labels, divisors and losses."""
NETWORK = ("teacher", "student forward", "backward")

Mark = float | torch.cuda.Event


class Phases:
    """`with phases("loss"): ...` marks a part of a step; its time is kept while `timing` is set.

    Times are the device's, between events, so that taking them does not wait either.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.timing = False
        self._marks: list[tuple[str, Mark, Mark]] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        with record_function(name):
            if not self.timing:
                yield
                return
            start = self._mark()
            yield
            self._marks.append((name, start, self._mark()))

    def _mark(self) -> Mark:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def milliseconds(self) -> dict[str, float]:
        """Time by phase since the last call; waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        times = dict.fromkeys(PHASES, 0.0)
        for name, start, end in self._marks:
            if isinstance(start, float):
                times[name] += 1e3 * (end - start)  # type: ignore[operator]
            else:
                times[name] += start.elapsed_time(end)  # type: ignore[arg-type]
        self._marks.clear()
        return times
