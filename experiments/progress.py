"""Progress of runs in other processes: what stands for a run's bar there, and what is drawn of it here."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

TELL_EVERY_S = 0.5
"""How often a process tells its parent."""
LOG_EVERY_S = 60.0
"""How often a log gets a line of each job that runs."""


class ReportedBar:
    """A progress bar's stand-in in another process: tells its parent, every half second.

    When the parent is gone it raises SIGTERM here, so that the run checkpoints and stops.
    """

    def __init__(self, connection: Connection, *, total: int, initial: int = 0, **of_tqdm: Any) -> None:
        self._connection, self._total, self._done, self._words = connection, total, initial, ""
        self._told = 0.0

    def __enter__(self) -> ReportedBar:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def set_postfix_str(self, s: str, refresh: bool = False) -> None:
        """What the latest row says."""
        self._words = s

    def update(self, n: int) -> None:
        """`n` more steps are done."""
        self._done += n
        if time.monotonic() - self._told < TELL_EVERY_S:
            return
        self._told = time.monotonic()
        try:
            self._connection.send(("bar", self._done, self._total, self._words))
        except OSError:  # the parent is gone: stop as if it had asked for it
            signal.raise_signal(signal.SIGTERM)


class Screen:
    """What jobs show: on a terminal a bar each while they run, in a log a line as they begin and one a minute; then
    what they print."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names, self._terminal = names, sys.stderr.isatty()
        self._bars: dict[int, Any] = {}
        self._logged: dict[int, float] = {}

    def begin(self, job: int) -> None:
        """A job has begun."""
        if not self._terminal:
            print(f"{self._names[job]}: begun", file=sys.stderr, flush=True)
            self._logged[job] = time.monotonic()

    def show(self, job: int, done: int, total: int, words: str) -> None:
        """How far a job has come."""
        if not self._terminal:
            if time.monotonic() - self._logged[job] >= LOG_EVERY_S:
                self._logged[job] = time.monotonic()
                print(f"{self._names[job]}: step {done:,} of {total:,}, {words}", file=sys.stderr, flush=True)
            return
        if job not in self._bars:
            used = {bar.pos for bar in self._bars.values()}
            free = next(row for row in range(len(self._bars) + 1) if -row not in used)
            style: dict[str, Any] = {"unit": "step", "leave": False, "position": free}
            self._bars[job] = tqdm(total=total, initial=done, desc=self._names[job], **style)
        bar = self._bars[job]
        bar.set_postfix_str(words, refresh=False)
        bar.update(done - bar.n)

    def end(self, job: int, printed: str, complained: str) -> None:
        """A job has ended; what it wrote to stdout and stderr."""
        if job in self._bars:
            self._bars.pop(job).close()
        with tqdm.external_write_mode(file=sys.stderr):
            print(printed, end="", flush=True)
            print(complained, end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """No job runs any more."""
        for bar in self._bars.values():
            bar.close()
