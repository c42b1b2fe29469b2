"""How fast the steps are and what they need: all that no second run of the same command has alike."""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from maskmatch.training.marks import Mark, wait_for

FIRST = 20  # the step from which on a run is timed: in those before, libraries start, compile and allocate


class Speed:
    """Times the training alone: its clock stands while it is `paused`, and the device is waited for on either side.

    Args:
        images_a_step: of all processes, labelled and unlabelled together.
        device: of the training; its memory counts.
        steps: that will be taken; where FIRST is not in their first half, the second half is timed.
    """

    def __init__(self, images_a_step: int, device: torch.device, steps: int) -> None:
        self.images_a_step, self.device = images_a_step, device
        self._untimed = min(FIRST - 1, steps // 2)
        self._taken = 0  # steps
        self._timed, self._seconds, self._waited = 0, 0.0, 0.0  # steps, their time, and of that the wait for data
        self._peak_bytes = 0
        self._started: float | None = None  # None while the clock stands
        self._began = 0  # steps taken when it was started
        self._waits: deque[tuple[int, Mark, Mark]] = deque()  # of a step, not yet known
        self._step_seconds: list[float] = []
        self._wait_seconds: list[float] = []  # may be a few steps behind

    def start(self) -> None:
        """Steps follow."""
        wait_for(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._began = self._taken
        self._started = self._last = time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around validation and saving, whose time and memory are not the training's."""
        if self._started is None:
            yield
            return
        self._stop()
        yield
        self.start()

    def _stop(self) -> None:
        wait_for(self.device)
        if self._started is not None and self._began >= self._untimed:
            self._seconds += time.perf_counter() - self._started
            self._timed += self._taken - self._began
        self._started = None
        self._read_waits()
        if self.device.type == "cuda":
            self._peak_bytes = max(self._peak_bytes, torch.cuda.max_memory_allocated(self.device))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around taking a step's data: for so long the device, done with the steps before, has nothing to do."""
        done = Mark(self.device)
        yield
        self._waits.append((self._taken, done, Mark(self.device)))

    def step(self) -> None:
        """A step was taken."""
        now = time.perf_counter()
        self._step_seconds.append(now - self._last)
        self._last = now
        self._read_waits()
        self._taken += 1
        if self._taken == self._untimed:
            with self.paused():  # the clock that counts starts with an idle device
                pass

    def _read_waits(self) -> None:
        while self._waits and self._waits[0][2].reached():
            step, done, ready = self._waits.popleft()
            self._wait_seconds.append(ready.seconds_since(done))
            if step >= self._untimed:
                self._waited += self._wait_seconds[-1]

    def recent(self, steps: int) -> dict[str, float | None]:
        """For TensorBoard and the display: over the last `steps` steps, without waiting; data_wait is a share."""
        seconds, waited = sum(self._step_seconds[-steps:]), sum(self._wait_seconds[-steps:])
        return {
            "images_per_second": self.images_a_step * len(self._step_seconds[-steps:]) / seconds if seconds else None,
            "data_wait": min(1.0, waited / seconds) if seconds else None,
            "peak_memory_mb": self.peak_memory_mb(),
        }

    def summary(self) -> dict[str, float | None]:
        """For summary.json: of the steps that are timed, up to the last pause.

        `images_per_second`; `step_ms`, and of that `data_wait_ms`, both means; `data_wait`, their ratio;
        `peak_memory_mb`. None where no step was timed.
        """
        speed: dict[str, float | None] = dict.fromkeys(("images_per_second", "step_ms", "data_wait_ms", "data_wait"))
        if self._timed:
            speed = {
                "images_per_second": self.images_a_step * self._timed / self._seconds,
                "step_ms": 1e3 * self._seconds / self._timed,
                "data_wait_ms": 1e3 * self._waited / self._timed,
                "data_wait": self._waited / self._seconds,
            }
        return speed | {"peak_memory_mb": self.peak_memory_mb()}

    def peak_memory_mb(self) -> float:
        """Of the device while it trains, or of the whole process where that is the CPU."""
        if self.device.type != "cuda":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        now = 0 if self._started is None else torch.cuda.max_memory_allocated(self.device)
        return max(self._peak_bytes, now) / 2**20
