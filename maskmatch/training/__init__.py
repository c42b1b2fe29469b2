"""The loop around the method: steps, schedules, several processes, telemetry, the folder of a run."""

from maskmatch.training.loop import train

__all__ = ["train"]
