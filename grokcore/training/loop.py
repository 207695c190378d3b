"""The training loop: steps, measurements, checkpoints, signals, divergence, progress."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from grokcore.errors import DivergedError, InterruptedRunError, NonFiniteError
from grokcore.training.run_folder import RunFolder
from grokcore.training.schedules import log_spaced_steps
from grokcore.training.step import Trainer

CHECK_EVERY = 50
"""Steps between looks at the losses: a look waits for the device."""


def train(
    trainer: Trainer,
    folder: RunFolder,
    measure: Callable[[], dict[str, float]],
    *,
    checkpoint_every: int = 500,
    progress: Callable[[dict[str, Any]], str] | None = None,
) -> list[dict[str, Any]]:
    """Train to the configured end, from the folder's last checkpoint if it has one.

    Rows are written at step 0 and at the log-spaced steps of the config; each holds step, wall_s (seconds
    of training so far, over all resumptions), the step's objective and raw penalties, and what `measure`
    returns. Apart from wall_s an interrupted run ends with the same rows, bit for bit, on one machine with
    the same thread count.

    Args:
        trainer: freshly built; its state is replaced where there is a checkpoint.
        folder: entered.
        measure: called with the model at rest; it must draw no random numbers.
        checkpoint_every: steps between checkpoints.
        progress: turns the latest row into the progress bar's words; None draws no bar.

    Raises:
        DivergedError: a loss, weight or feature stopped being finite; the last good checkpoint stays.
        InterruptedRunError: SIGINT or SIGTERM came; the checkpoint of that step is on disk.
    """
    steps = trainer.config.steps
    wanted = set(log_spaced_steps(steps, trainer.config.measurements))
    watch = _LossWatch(trainer)
    state = folder.resume()
    spent = 0.0
    if state is not None:
        trainer.load_state(state)
        spent = state["wall_s"]
    started = time.monotonic()

    def save() -> None:
        watch.check()
        folder.save(trainer.state() | {"wall_s": spent + time.monotonic() - started})

    def record() -> None:
        watch.check()
        try:
            metrics = measure()
        except NonFiniteError as error:
            raise watch.diverged("the measured features are") from error
        head = {"step": trainer.steps_done, "wall_s": round(spent + time.monotonic() - started, 3)}
        row = head | watch.latest() | metrics
        folder.append(row)
        if progress is not None:
            bar.set_postfix_str(progress(row), refresh=False)

    bar = tqdm(total=steps, initial=trainer.steps_done, disable=progress is None, unit="step", mininterval=0.5)
    with bar, _StopSignal() as stop:
        if state is None:
            record()
            save()
        elif progress is not None:
            bar.set_postfix_str(progress(folder.rows()[-1]), refresh=False)
        while trainer.steps_done < steps:
            watch.add(*trainer.step())
            step = trainer.steps_done
            bar.update()
            if step in wanted:
                record()
            if step % checkpoint_every == 0 or step == steps or stop.requested:
                save()
            if stop.requested:
                raise InterruptedRunError(step)
    return folder.rows()


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


class _StopSignal:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one acts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._old: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        self._old.clear()
