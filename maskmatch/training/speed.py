"""How fast the steps are and what they need: all that no second run of the same command has alike."""

from __future__ import annotations

import resource
import statistics

import torch


class Speed:
    """Seconds of each step of this process, waiting for data included, validation and saving not.

    Args:
        images_a_step: of all processes, labelled and unlabelled together.
        device: whose memory counts.
    """

    def __init__(self, images_a_step: int, device: torch.device) -> None:
        self.images_a_step, self.device = images_a_step, device
        self.steps: list[float] = []
        self.waits: list[float] = []  # for data, of each step

    def images_per_second(self, steps: int = 0) -> float | None:
        """Over the last `steps` steps, 0 for all; None before the first."""
        recent = self.steps[-steps:]
        return self.images_a_step * len(recent) / sum(recent) if recent else None

    def recent(self, steps: int) -> dict[str, float | None]:
        """For TensorBoard: over the last `steps` steps; data_wait is a share of the time."""
        seconds = sum(self.steps[-steps:])
        return {
            "images_per_second": self.images_per_second(steps),
            "data_wait": sum(self.waits[-steps:]) / seconds if seconds else None,
            "peak_memory_mb": self.peak_memory_mb(),
        }

    def summary(self) -> dict[str, float | None]:
        """For summary.json: over all steps; `step_ms` is the median without waiting for data, plus `data_wait_ms`.

        That one is a mean: batches that are made together are waited for by one step in several.
        """
        speed = {"images_per_second": self.images_per_second(), "step_ms": None, "data_wait_ms": None}
        if self.steps:
            wait = statistics.mean(self.waits)
            work = statistics.median(step - wait for step, wait in zip(self.steps, self.waits, strict=True))
            speed |= {"step_ms": 1e3 * (work + wait), "data_wait_ms": 1e3 * wait}
        return speed | {"peak_memory_mb": self.peak_memory_mb()}

    def peak_memory_mb(self) -> float:
        """Of the device, or of the process where that is the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
