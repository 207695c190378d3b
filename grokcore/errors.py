"""Errors that grokcore raises by name, so that callers can tell them apart."""

from __future__ import annotations


class UsageError(ValueError):
    """Input from a person that cannot be acted on; command lines print it and exit with code 2."""


class NonFiniteError(ValueError):
    """NaN or infinity where a measurement needs finite numbers."""


class ResourceBusyError(UsageError):
    """Another process holds the run folder."""


class DivergedError(RuntimeError):
    """Training left the finite numbers.

    Attributes: ``step`` (the first step, counted from 1, after which `what` was not finite), ``loss``
    (that step's whole objective, nats) and ``penalties`` (its active penalties' raw values).
    """

    def __init__(self, what: str, step: int, loss: float, penalties: dict[str, float]) -> None:
        self.step, self.loss, self.penalties = step, loss, penalties
        terms = ", ".join(f"{name} {value:.6g}" for name, value in penalties.items())
        super().__init__(f"{what} not finite at step {step} (loss {loss:.6g}, penalty {terms or 'none active'})")


class InterruptedRunError(RuntimeError):
    """A signal asked the run to stop; its checkpoint is on disk. ``step`` says where."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"stopped at step {step}")
