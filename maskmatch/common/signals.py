"""SIGTERM and SIGINT: finish the step, save, leave. What a preemptible node needs, and Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
ECHO_SECONDS = 2.0  # a signal so soon after another is its echo: torchrun passes on what the terminal sent to all


class StopError(BaseException):
    """The work was stopped by a signal; the message says which, and how to go on.

    Like KeyboardInterrupt no Exception, so that nothing takes it for a failure of its own.
    """


class StopSignal:
    """Remembers that SIGTERM or SIGINT came; a later one acts as if nobody were listening.

    As a context it installs the handlers and puts the former ones back. Outside the main thread, where Python
    allows none, it never receives anything.
    """

    def __init__(self) -> None:
        self.received: str | None = None  # name of the signal
        self._received_at = 0.0
        self._raising = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._put_back()

    def check(self) -> None:
        """Raise StopError if a signal came."""
        if self.received:
            raise StopError(self.received)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """In the body, which can be done again from its start, a signal raises StopError at once."""
        self.check()
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def _handle(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received, self._received_at = signal.Signals(number).name, monotonic()
            if self._raising:
                raise StopError(self.received)
        elif monotonic() - self._received_at > ECHO_SECONDS:
            self._put_back()
            signal.raise_signal(number)

    def _put_back(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
