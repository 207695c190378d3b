"""The training loop: steps, measurements, checkpoints, signals, divergence, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from grokcore.errors import DivergedError, InterruptedRunError, NonFiniteError
from grokcore.training.cohort import Cohort, require_alike
from grokcore.training.memory import denormals_flushed, is_out_of_memory, out_of_memory
from grokcore.training.run_folder import RunFolder
from grokcore.training.step import Trainer
from grokcore.training.stop_signal import StopSignal

CHECK_EVERY = 50
"""Steps between looks at the losses: a look waits for the device."""


@dataclass(frozen=True)
class Run:
    """A trainer, where its records go and how it is measured."""

    trainer: Trainer
    """Freshly built; its state is replaced where the folder has a checkpoint."""
    folder: RunFolder
    """Entered."""
    measure: Callable[[], dict[str, float]]
    """Called with the model at rest; it must draw no random numbers."""


class ProgressBar(Protocol):
    """What is told how far training has come: a tqdm, or what stands for one in another process."""

    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> Any: ...
    def update(self, n: int) -> Any:
        """`n` more steps are done."""

    def set_postfix_str(self, s: str, refresh: bool) -> Any:
        """What the latest row says."""


def train(
    trainer: Trainer,
    folder: RunFolder,
    measure: Callable[[], dict[str, float]],
    *,
    checkpoint_every: int = 500,
    keep: Collection[int] = (),
    progress: Callable[[dict[str, Any]], str] | None = None,
    bar: Callable[..., ProgressBar] = tqdm,
) -> list[dict[str, Any]]:
    """Train to the configured end, from the folder's last checkpoint if it has one.

    Rows are written at step 0 and at the measured steps of the config; each holds step, wall_s (seconds
    of training so far, over all resumptions), the step's objective and raw penalties, and what `measure`
    returns. Apart from wall_s an interrupted run ends with the same rows, bit for bit, on one machine with
    the same thread count.

    Args:
        trainer, folder, measure: of a :class:`Run`.
        checkpoint_every: steps between checkpoints.
        keep: steps whose checkpoints stay (``folder.keep``).
        progress: turns the latest row into the progress bar's words; None draws no bar.
        bar: makes the bar, of total, initial, unit, mininterval and disable.

    Raises:
        DivergedError: a loss, weight or feature stopped being finite; the last good checkpoint stays.
        InterruptedRunError: SIGINT or SIGTERM came; the checkpoint of that step is on disk.
        UsageError: out of memory; the message says which batch fits.
    """
    run = Run(trainer, folder, measure)
    (found,) = train_together([run], checkpoint_every=checkpoint_every, keep=keep, progress=progress, bar=bar)
    if isinstance(found, DivergedError):
        raise found
    return found


def train_together(
    runs: Sequence[Run],
    *,
    checkpoint_every: int = 500,
    keep: Collection[int] = (),
    progress: Callable[[dict[str, Any]], str] | None = None,
    bar: Callable[..., ProgressBar] = tqdm,
) -> list[list[dict[str, Any]] | DivergedError]:
    """Train several seeds of one arm as a :class:`~grokcore.training.cohort.Cohort`, each with its own records.

    Runs whose checkpoints are behind take their steps first, until all have met. One that diverges leaves with its
    last good checkpoint, and the others go on. wall_s is what all took together. Bit for bit equal are the rows of
    the same runs from the same checkpoints; in float32 not those of runs that met only on the way, or of one alone.

    Args:
        runs: one trains as by :func:`train`; none is nothing to do.
        checkpoint_every, keep, progress, bar: as of :func:`train`.

    Raises:
        UsageError: seeds that cannot be batched.
        InterruptedRunError: SIGINT or SIGTERM came; the checkpoints of all are on disk.

    Returns:
        For each run its rows, or what it ended with.
    """
    if not runs:
        return []
    started = time.monotonic()
    members = [_Member(run, started, checkpoint_every, frozenset(keep)) for run in runs]
    if len(members) > 1:
        require_alike([run.trainer for run in runs])
    cohort: Cohort | None = None
    bars = bar(
        total=sum(member.trainer.steps for member in members),
        initial=sum(member.trainer.steps_done for member in members),
        disable=progress is None,
        unit="step",
        mininterval=0.5,
    )
    with bars, StopSignal() as stop:
        for member in members:
            member.attempt(member.begin)
        while going := [member for member in members if member.going]:
            behind = min(member.trainer.steps_done for member in going)
            turn = [member for member in going if member.trainer.steps_done == behind]
            if progress is not None and turn[0].said is not turn[0].row:
                turn[0].said = turn[0].row
                bars.set_postfix_str(progress(turn[0].row), refresh=False)
            with denormals_flushed():
                if len(turn) == 1:
                    results, cohort = [_step(turn[0].trainer)], None
                else:
                    trainers = tuple(member.trainer for member in turn)
                    if cohort is None or cohort.trainers != trainers:
                        cohort = Cohort(trainers)
                    results = cohort.step()
            bars.update(len(turn))
            stopping = stop.requested  # read once: what follows must be on disk before the stop
            for member, result in zip(turn, results, strict=True):
                member.attempt(partial(member.after_step, *result, stopping))
            if stopping:
                raise InterruptedRunError(behind + 1)
        if progress is not None and members and members[0].row:
            bars.set_postfix_str(progress(members[0].row), refresh=True)
    return [member.diverged or member.folder.rows() for member in members]


def _step(trainer: Trainer) -> tuple[Tensor, dict[str, Tensor]]:
    try:
        return trainer.step()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise out_of_memory(trainer) from None
        raise


class _Member:
    """A run in the loop: its records, its checkpoints, and whether it goes on."""

    def __init__(self, run: Run, started: float, checkpoint_every: int, keep: frozenset[int]) -> None:
        self.trainer, self.folder, self._measure = run.trainer, run.folder, run.measure
        self._started, self._checkpoint_every, self._keep = started, checkpoint_every, keep
        self._wanted = set(self.trainer.measured_steps)
        self._watch = _LossWatch(self.trainer)
        self.diverged: DivergedError | None = None
        self.row: dict[str, Any] = {}
        """The latest."""
        self.said: dict[str, Any] | None = None
        """The row that the progress bar shows."""
        state = self.folder.resume()
        self._resumed, self._spent = state is not None, 0.0
        if state is not None:
            self.trainer.load_state(state)
            self._spent = state["wall_s"]

    @property
    def going(self) -> bool:
        return self.diverged is None and self.trainer.steps_done < self.trainer.steps

    def attempt(self, work: Callable[[], None]) -> None:
        """Do something in which this run may turn out to have diverged."""
        try:
            work()
        except DivergedError as error:
            self.diverged = error

    def begin(self) -> None:
        if self._resumed:
            self.row = self.folder.rows()[-1]
        else:
            self._record()
            self._save()

    def after_step(self, loss: Tensor, penalties: dict[str, Tensor], stopping: bool) -> None:
        self._watch.add(loss, penalties)
        step = self.trainer.steps_done
        if step in self._wanted:
            self._record()
        if step in self._keep:
            self._watch.check()
            self.folder.keep(self._state())
        if step % self._checkpoint_every == 0 or step == self.trainer.steps or stopping:
            self._save()

    def _state(self) -> dict[str, Any]:
        return self.trainer.state() | {"wall_s": self._seconds()}

    def _seconds(self) -> float:
        return self._spent + time.monotonic() - self._started

    def _save(self) -> None:
        self._watch.check()
        self.folder.save(self._state())

    def _record(self) -> None:
        self._watch.check()
        try:
            metrics = self._measure()
        except NonFiniteError as error:
            raise self._watch.diverged("the measured features are") from error
        head = {"step": self.trainer.steps_done, "wall_s": round(self._seconds(), 3)}
        self.row = head | self._watch.latest() | metrics
        self.folder.append(self.row)


class _LossWatch:
    """Keeps the losses of the last steps on the device and looks at them in one go."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._pending: list[tuple[int, Tensor, dict[str, Tensor]]] = []
        self._last: tuple[int, Tensor, dict[str, Tensor]] | None = None
        self._before: tuple[int, Tensor, dict[str, Tensor]] | None = None
        self._checked: tuple[int, Tensor, dict[str, Tensor]] | None = None

    def add(self, loss: Tensor, penalties: dict[str, Tensor]) -> None:
        self._before, self._last = self._last, (self._trainer.steps_done, loss, penalties)
        self._pending.append(self._last)
        if len(self._pending) >= CHECK_EVERY:
            self._check_losses()

    def check(self) -> None:
        """Raise unless every pending loss and every weight is finite."""
        self._check_losses()
        if not self._trainer.finite():
            raise self.diverged("the weights are")

    def latest(self) -> dict[str, float]:
        """Objective and penalties of the last step, NaN before the first."""
        if self._last is None:
            return {"objective": math.nan}
        _, loss, penalties = self._last
        return {"objective": float(loss)} | {f"penalty_{k}": float(v) for k, v in penalties.items()}

    def diverged(self, what: str) -> DivergedError:
        step, loss, penalties = self._last or (0, torch.tensor(math.nan), {})
        before = self._before[2] if self._before else {}
        return DivergedError(
            what,
            step,
            float(loss),
            {name: float(value) for name, value in penalties.items()},
            {name: float(value) for name, value in before.items()},
        )

    def _check_losses(self) -> None:
        if not self._pending:
            return
        finite = torch.isfinite(torch.stack([loss for _, loss, _ in self._pending])).tolist()
        if not all(finite):
            index = finite.index(False)
            self._before = self._pending[index - 1] if index else self._checked
            self._last = self._pending[index]
            raise self.diverged("the loss is")
        self._checked = self._pending[-1]
        self._pending.clear()
