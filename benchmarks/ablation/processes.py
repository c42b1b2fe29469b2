"""The processes of maskmatch.train and maskmatch.evaluate that an ablation starts, and that end with it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from benchmarks.provenance import ROOT
from maskmatch.commands.command_line import EXIT_STOPPED
from maskmatch.common.errors import UserError


class Processes:
    """The subprocesses that run now, to stop with this one."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.stopped = False
        self._lock = threading.Lock()

    def run(self, command: Sequence[str], log: Path, threads: int) -> None:
        """Run a command and add what it prints to `log`.

        Raises:
            UserError: with the last line that it printed, where it failed.
            InterruptedError: it was stopped.
        """
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with open(log, "ab") as output:
            with self._lock:
                if self.stopped:
                    raise InterruptedError
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
                self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        if self.stopped or code == EXIT_STOPPED:
            raise InterruptedError
        if code:
            lines = log.read_text(errors="replace").splitlines() or [f"exit code {code}"]
            raise UserError(f"{lines[-1]} ({log})")

    def stop(self, number: int, frame: FrameType | None) -> None:
        """For SIGINT and SIGTERM: each training saves and ends."""
        self.stopped = True
        for process in list(self.running):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
