"""SIGINT and SIGTERM as a request to stop at the next good moment."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a request to stop, ``requested``; a second one acts at once, as the
    handlers before it say."""

    open = 0
    """How many are entered now: a handler before them can tell whether a request is being seen to."""

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignal:
        StopSignal.open += 1
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        StopSignal.open -= 1
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        if sys.stderr.isatty():  # written past Python's buffers, in which a handler may not write
            os.write(sys.stderr.fileno(), b"\nstopping after this step, or the measurement that is being made\n")

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()
