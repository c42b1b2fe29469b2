"""What of the benchmarks is to run, and what was left out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Selection:
    """The command line of benchmarks/run.py; no shapes or providers are all of them."""

    device: str = "cpu"
    shapes: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    profile: Path | None = None
    """Folder for traces."""
    skipped: list[str] = field(default_factory=list)
    """A line for everything that was to run and did not, with the reason."""

    def chosen_shapes(self, known: Iterable[str]) -> list[str]:
        return [name for name in known if name in self.shapes or not self.shapes]

    def chosen_providers(self, known: Iterable[str]) -> list[str]:
        return [name for name in known if name in self.providers or not self.providers]

    def skip(self, line: str) -> None:
        if line not in self.skipped:
            self.skipped.append(line)

    def trace(self, name: str, function: Callable[[], Any]) -> None:
        """With --profile, one call as a trace for Perfetto or chrome://tracing: FOLDER/NAME.json.gz."""
        if self.profile is None:
            return
        self.profile.mkdir(parents=True, exist_ok=True)
        with torch.profiler.profile() as profiler:
            function()
        file = re.sub(r"[^\w.+-]+", "_", name) + ".json.gz"
        profiler.export_chrome_trace(str(self.profile / file))
