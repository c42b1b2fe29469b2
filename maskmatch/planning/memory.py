"""A step that fits into the memory: where it does not, activations are computed twice, then the batch is cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from maskmatch.common.errors import UserError
from maskmatch.config import Config
from maskmatch.planning.choice import Choice
from maskmatch.training.memory import measure_memory

MOST = 0.85  # of what is free
GIB = 2**30


def of_memory(config: Config, num_classes: int, free: int) -> list[Choice]:
    """What has to change for the step to take at most 85 % of `free` bytes, the mildest that does.

    Raises:
        UserError: nothing does.
    """
    peak = 0
    for changes, what in _milder(config):
        peak = measure_memory(replace(config, train=replace(config.train, **changes)), num_classes).peak
        if peak <= MOST * free:
            reason = f"{what}a step takes {peak / GIB:.1f} GiB at its peak, {free / GIB:.1f} are free"
            changes = changes or {"accumulate": 1}
            return [Choice(f"train.{name}", value, reason) for name, value in changes.items()]
    raise UserError(
        f"a step of 2 images at {config.data.crop} takes {peak / GIB:.1f} GiB, and {free / GIB:.1f} are free: "
        "try a smaller --data.crop_size or --model.encoder"
    )


def _milder(config: Config) -> Iterator[tuple[dict[str, Any], str]]:
    """Options of the training that take ever less memory, for the same gradients but for BatchNorm's."""
    yield {}, ""
    yield {"checkpoint_activations": True}, "activations are computed twice: "
    batch = config.train.batch_size
    for parts in (2, 4, 8):
        if batch % (2 * parts) == 0:
            smaller = {"batch_size": batch // parts, "accumulate": parts * config.train.accumulate}
            yield {"checkpoint_activations": True} | smaller, f"a batch in {parts} parts: "
