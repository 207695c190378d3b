"""Runs in processes of their own, one a core: how many seeds and arms end sooner on a CPU.

A process runs one job after another. It is pinned to its share of the cores' threads, so that a run's rows are those
of the same command one after another with that number of ``--threads``, bit for bit. What a job prints appears whole
when it ends; on a terminal each running job has a bar.

The first SIGINT or SIGTERM asks every process to checkpoint and stop; a second one ends them at once. A process that
loses its parent checkpoints and stops by itself.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, Literal

import torch

from experiments.progress import ReportedBar, Screen
from grokcore.commandline import STOPPED
from grokcore.errors import DivergedError, InterruptedRunError, UsageError
from grokcore.training.stop_signal import StopSignal

Together = Literal["auto", "processes", "batches", "batched", "no"]
"""How several runs are done: each in a process of its own, as one batched model in each process, as one batched model
in this one, or one after another."""


@dataclass(frozen=True)
class Job:
    """A run, by the name that errors and bars give it."""

    name: str
    work: Callable[..., Any]
    """Called with ``bar``, which makes its progress bar; it and what it returns can be pickled."""


@dataclass(frozen=True)
class Failure:
    """Why a job has no result; the others went on."""

    message: str
    code: int = 1
    """The exit code that a command of this job alone would have."""
    step: int | None = None
    """Where a signal stopped it; its checkpoint of that step is on disk."""

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """In the words of the error."""
        if isinstance(error, InterruptedRunError):
            return cls(str(error), STOPPED, error.step)
        if isinstance(error, DivergedError):
            return cls(f"diverged: {error}; its last good checkpoint is kept")
        return cls(str(error) or type(error).__name__, 2 if isinstance(error, (UsageError, OSError)) else 1)


def way_of(
    asked: Together,
    device: torch.device,
    runs: int,
    cores: int,
    *,
    batchable: bool = True,
    on_cpu: Together = "processes",
) -> Together:
    """What is done for so many runs. ``auto`` is `on_cpu` on a CPU with two cores or more (`python -m benchmarks seeds`
    finds processes faster than batching for grokking's models); on CUDA it is batched, which no GPU has been asked
    about yet.

    Raises:
        UsageError: batched runs of models that are not `batchable`.
    """
    if asked in ("batched", "batches") and not batchable:
        raise UsageError(f"--together {asked}: seeds of a model with batch norm cannot be batched")
    if runs < 2:
        return "no"
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "batched" if batchable else "no"
    if not batchable and on_cpu in ("batched", "batches"):
        on_cpu = "processes"
    return on_cpu if cores > 1 else "no"


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(runs: int, cores: int) -> tuple[int, int]:
    """Processes for so many runs, and the threads of each."""
    workers = max(1, min(runs, cores))
    return workers, max(1, cores // workers)


def run_in_processes(jobs: Sequence[Job], workers: int) -> list[Any]:
    """Do all jobs, so many at a time. Call it under ``if __name__ == "__main__"``, from the main thread.

    Returns:
        For each job what its work returned, or a :class:`Failure`, which has been said: it raised, or its process was
        killed.

    Raises:
        InterruptedRunError: a signal came, and every process has ended; the checkpoints are on disk.
    """
    outcomes: list[Any] = [None] * len(jobs)
    waiting, team = deque(enumerate(jobs)), list[_Worker]()
    screen = Screen([job.name for job in jobs])
    with StopSignal() as stop:
        try:
            while team or (waiting and not stop.requested):
                while waiting and not stop.requested and len(team) < workers:
                    team.append(_Worker())
                    screen.begin(team[-1].begin(*waiting.popleft()))
                if stop.requested:
                    for worker in team:
                        worker.stop()
                for worker in _ready(team):
                    kind, *said = worker.hear()
                    if kind == "bar":
                        screen.show(worker.job, *said)
                        continue
                    outcome, printed, complained = said
                    outcomes[worker.job] = outcome
                    if isinstance(outcome, Failure) and not (stop.requested and kind == "lost"):
                        mark = "" if outcome.code == STOPPED else "error: "
                        complained += f"{mark}{jobs[worker.job].name} {outcome.message}\n"
                    screen.end(worker.job, printed, complained)
                    if kind == "lost" or stop.requested or not waiting:
                        team.remove(worker)
                        worker.dismiss()
                    else:
                        screen.begin(worker.begin(*waiting.popleft()))
        finally:
            for worker in team:
                worker.process.kill()
            screen.close()
    if stop.requested:
        stopped = [each.step for each in outcomes if isinstance(each, Failure) and each.step is not None]
        raise InterruptedRunError(max(stopped, default=None))
    return outcomes


class _Worker:
    """A process that does one job after another."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _interrupts_blocked():
            self.process.start()
        theirs.close()  # or the end of the process would not be heard
        self.job, self._told = -1, False

    def begin(self, number: int, job: Job) -> int:
        self.job = number
        with suppress(OSError):  # it has been killed: that is heard next
            self.connection.send(job.work)
        return number

    def stop(self) -> None:
        """Ask once: a second signal would end it before its checkpoint."""
        if not self._told:
            self._told = True
            self.process.terminate()

    def hear(self) -> tuple[Any, ...]:
        try:
            said: tuple[Any, ...] = self.connection.recv()
            return said
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"left with exit code {code}"
            return "lost", Failure(f"its process {how}"), "", ""

    def dismiss(self) -> None:
        self.connection.close()
        self.process.join()


def _serve(connection: Connection) -> None:
    # A terminal's Ctrl-C is for the parent, which passes it on as SIGTERM, once.
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _end_unless_stopping)
    while True:
        try:
            work = connection.recv()
        except (EOFError, OSError):
            return
        printed, complained = StringIO(), StringIO()
        outcome: Any
        with redirect_stdout(printed), redirect_stderr(complained):
            try:
                outcome = work(bar=partial(ReportedBar, connection))
            except Exception as error:
                outcome = Failure.of(error)
                if not isinstance(error, (InterruptedRunError, DivergedError, UsageError, OSError)):
                    traceback.print_exc()
        try:
            connection.send(("done", outcome, printed.getvalue(), complained.getvalue()))
        except OSError:
            return  # the parent is gone


def _end_unless_stopping(number: int, frame: FrameType | None) -> None:
    """A stop may be asked for twice, by whoever signals the group and by the parent: the checkpoint comes first."""
    if not StopSignal.open:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)


def _ready(team: Sequence[_Worker]) -> list[_Worker]:
    """Those that have said something, or ended, within a moment."""
    heard = wait([worker.connection for worker in team], timeout=0.2)
    return [worker for worker in team if worker.connection in heard]


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C waits: a process started inside inherits this, and is not torn apart while it loads."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
