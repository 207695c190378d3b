"""Errors that grokcore raises by name, so that callers can tell them apart."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any


class UsageError(ValueError):
    """Input from a person that cannot be acted on; command lines print it and exit with code 2."""


class NonFiniteError(ValueError):
    """NaN or infinity where a measurement needs finite numbers."""


class UnsuitedLayerError(UsageError):
    """A layer whose curvature cannot be taken from its pre-activations; products with its weight's Hessian can."""


class ResourceBusyError(UsageError):
    """Another process holds the run folder."""


class DivergedError(RuntimeError):
    """Training left the finite numbers.

    Attributes: ``step`` (the first step, counted from 1, after which `what` was not finite), ``loss``
    (that step's whole objective, nats), ``penalties`` (its active penalties' raw values) and ``before``
    (those of the step before it, as far as this process saw them).
    """

    def __init__(
        self, what: str, step: int, loss: float, penalties: dict[str, float], before: dict[str, float]
    ) -> None:
        self.step, self.loss, self.penalties, self.before = step, loss, penalties, before
        terms = ", ".join(
            f"{name} {value:.6g}" + (f" after {before[name]:.6g}" if name in before else "")
            for name, value in penalties.items()
        )
        super().__init__(f"{what} not finite at step {step} (loss {loss:.6g}, penalty {terms or 'none active'})")


class InterruptedRunError(RuntimeError):
    """A signal asked the run to stop; its checkpoint is on disk. ``step`` says where, None before it went on."""

    def __init__(self, step: int | None) -> None:
        self.step = step
        super().__init__("stopped before another step" if step is None else f"stopped at step {step}")


def flag(name: str) -> str:
    """A field's name as its command-line flag."""
    return "--" + name.replace("_", "-")


def require_finite(config: Any) -> None:
    """Raise UsageError for the first field of a dataclass that is NaN or infinite."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag(field.name)} must be a finite number, got {value}")


def without_nan(value: Any) -> Any:
    """Nested plain data with None for each float that is not finite: JSON has no word for those."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
