"""What a run has written about itself, besides its networks."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from maskmatch.common.errors import UserError
from maskmatch.common.json_values import finite

Points = list[tuple[int, float | None]]
"""Values over steps; None where there was a value that is no number, such as the loss of a skipped step."""

_PHASE = re.compile(r"(\S.*?)\s+(-?[\d.]+)\s+-?[\d.]+%")
"""A row of profile.txt: phase, milliseconds a step, share."""


class Phase(NamedTuple):
    """A part of a step."""

    name: str
    milliseconds: float


@dataclass(frozen=True)
class Recorded:
    """What is missing is empty: runs that are not finished have no summary, older ones no environment."""

    records: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    summary: dict[str, Any]
    environment: dict[str, dict[str, str]]
    """Of the training, by section."""
    phases: list[Phase]
    """Of a step, from `--profile`."""
    speed: dict[str, Points]
    """images_per_second, data_wait (a share) and peak_memory_mb over the steps."""

    @property
    def step(self) -> int:
        """How far the run has come, by its records."""
        return int(self.records[-1]["step"]) if self.records else 0

    def points(self, key: str) -> Points:
        """A number of the records over the steps."""
        return [(record["step"], finite(record[key])) for record in self.records if key in record]

    def points_of_class(self, key: str, index: int) -> Points:
        """One class's number of those that the records have by class."""
        lists = [(record["step"], record[key]) for record in self.records if isinstance(record.get(key), list)]
        return [(step, finite(values[index])) for step, values in lists if index < len(values)]

    def last(self, key: str) -> float | None:
        """The last value that is a number."""
        return next((value for _, value in reversed(self.points(key)) if value is not None), None)


def read_recorded(run: Path) -> Recorded:
    """Read what the run's folder has.

    Raises:
        UserError: a file is there but is not what a run writes.
    """
    return Recorded(
        records=_read_metrics(run / "metrics.jsonl"),
        summary=_read_object(run / "summary.json"),
        environment=_read_object(run / "environment.json"),
        phases=_read_phases(run / "profile.txt"),
        speed=_read_speed(run / "tensorboard"),
    )


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    records = []
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
        elif number < len(lines):  # the last one may have been cut short by a kill
            raise UserError(f"expected a record with a step on each line, got {line[:40]!r}: {path}, line {number}")
    return records


def _read_object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    found = _parsed(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(found, dict):
        raise UserError(f"expected a JSON object, got something else: {path}")
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _read_phases(path: Path) -> list[Phase]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    found = [match for line in lines if (match := _PHASE.fullmatch(line.strip()))]
    return [Phase(match[1], float(match[2])) for match in found if match[1] != "step"]


def _read_speed(folder: Path) -> dict[str, Points]:
    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0 keeps all
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("performance/")]
    return {
        tag.removeprefix("performance/"): [(event.step, finite(event.value)) for event in events.Scalars(tag)]
        for tag in tags
    }
