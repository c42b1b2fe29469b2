"""The loop around the method: schedules, checkpoints, telemetry, the run folder."""

from maskmatch.training.loop import train

__all__ = ["train"]
