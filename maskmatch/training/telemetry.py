"""What a run says while it goes: metrics.jsonl, TensorBoard, and a live display (plain lines in a log file)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch.utils.tensorboard import SummaryWriter

from maskmatch.common.terminal import plain_console
from maskmatch.common.text_files import write_text
from maskmatch.method import BRANCHES

SECONDS_BETWEEN_LINES = 5.0


class MetricsLog:
    """metrics.jsonl and TensorBoard of one run folder, continued after `step`.

    metrics.jsonl is the same, byte by byte, whenever the same command runs; timings are in TensorBoard alone.

    Records of later steps, left by a run that was killed after its last checkpoint, are dropped.
    """

    def __init__(self, folder: Path, step: int, class_names: Sequence[str]) -> None:
        self.class_names = class_names
        self.path = folder / "metrics.jsonl"
        self.records = [record for record in _read(self.path) if record["step"] <= step]
        write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.records))
        self.file = open(self.path, "a")  # noqa: SIM115 - closed in close()
        self.tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Add one record; it has a `step`, and goes to TensorBoard too: lists as one number a class."""
        self.records.append(record)
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        for name, value in record.items():
            if name == "acted":
                self.tensorboard.add_text(name, "\n\n".join(value), record["step"])
            elif isinstance(value, list):
                for of_class, class_name in zip(value, self.class_names, strict=True):
                    self._draw(f"{name}/{class_name}", of_class, record["step"])
            elif name != "step":
                self._draw(name, value, record["step"])

    def write_unrepeatable(self, step: int, values: dict[str, float | None]) -> None:
        """Timings and the like, which differ from run to run: to TensorBoard alone."""
        for name, value in values.items():
            self._draw(f"performance/{name}", value, step)

    def _draw(self, name: str, value: float | None, step: int) -> None:
        if value is not None:
            self.tensorboard.add_scalar(name, value, step)

    def sync(self) -> None:
        """Have the records on the disk, so that no checkpoint is ahead of them."""
        os.fsync(self.file.fileno())

    def close(self) -> None:
        self.file.close()
        self.tensorboard.close()


def _read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line cut short by a kill is left out."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


class Display:
    """A progress bar on a terminal, a line every few seconds elsewhere."""

    def __init__(self, steps: int, step: int, *, quiet: bool = False) -> None:
        self.console = plain_console(soft_wrap=True, quiet=quiet)
        self.steps = steps
        self.started, self.first_step = time.monotonic(), step
        self.last_line = 0.0
        self.progress = Progress(
            TextColumn("[bold]training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress.add_task("training", total=steps, completed=step, status="")

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self.console.print(line)

    def update(self, step: int, record: dict[str, Any], images_per_second: float) -> None:
        """Show where the run is after `step` steps."""
        losses = "  ".join(f"{name} {record[name]:.3f}" for name in BRANCHES if record.get(name) is not None)
        coverage = f"  coverage {record['coverage']:.0%}" if record.get("coverage") is not None else ""
        status = f"{losses}{coverage}  {images_per_second:.0f} images/s"
        self.progress.update(self.task, completed=step, status=status)
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            left = (now - self.started) / max(1, step - self.first_step) * (self.steps - step)
            self.say(f"step {step}/{self.steps}  {status}  {_duration(left)} left")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
