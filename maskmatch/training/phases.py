"""The parts of a step by name: ranges in a torch.profiler trace, and times where they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.profiler import record_function

from maskmatch.training.marks import Mark, wait_for

PHASES = ("data wait", "teacher", "student forward", "loss", "backward", "optimizer", "EMA")
"""`loss` is all of the method that is no network: views, pseudo-labels, divisors and losses."""
NETWORK = ("teacher", "student forward", "backward")


class Phases:
    """`with phases("loss"): ...` marks a part of a step, where `timing` or `tracing` is set.

    Timing keeps its time: the device's, so that taking it does not wait either. Tracing makes it a
    range in a torch.profiler trace, which even without a profiler costs as much as several small operations.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.timing = False
        self.tracing = False
        self._marks: list[tuple[str, Mark, Mark]] = []

    @property
    def active(self) -> bool:
        """Whether anything is marked."""
        return self.timing or self.tracing

    def __call__(self, name: str) -> AbstractContextManager[object]:
        if self.tracing:
            return record_function(name)
        return self._timed(name) if self.timing else nullcontext()

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = Mark(self.device)
        yield
        self._marks.append((name, start, Mark(self.device)))

    def milliseconds(self) -> dict[str, float]:
        """Time by phase since the last call; waits for the device."""
        wait_for(self.device)
        times = dict.fromkeys(PHASES, 0.0)
        for name, start, end in self._marks:
            times[name] += 1e3 * end.seconds_since(start)
        self._marks.clear()
        return times
