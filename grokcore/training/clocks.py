"""The two clocks of a run (paper B): when the train set is fitted, and when its features have contracted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grokcore.training.milestones import Passing, passes
from grokcore.training.record import Record
from grokcore.training.table import arms_in_order, event_step, short, spread

FITTED = 0.999
"""Train accuracy at tau_1."""
CONTRACTED = 0.1
"""RNC1 (mean norm) below which it stays from tau_2 on."""
HEADER = (
    "run", "seeds", "tau_1: train 99.9 % at step", "tau_2: train RNC1 below 0.1 from step", "the same, test",
    "final test accuracy (%)", "final train RNC1", "final test RNC1", "final train kappa (squared)",
)  # fmt: skip


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a finished run's rows.

    Keys: ``tau_1``, ``tau_2``, ``tau_2_test``: the measured step of the event and the one before it, or None where it
    did not come (censored at the last step); ``final``: the last row; ``words``: sentences.
    """
    steps = np.array([row["step"] for row in rows])
    found = {
        "tau_1": passes(steps, _column(rows, "train_accuracy"), FITTED),
        "tau_2": stays_below(steps, _column(rows, "train_rnc1_mean"), CONTRACTED),
        "tau_2_test": stays_below(steps, _column(rows, "test_rnc1_mean"), CONTRACTED),
    }
    plain = {
        name: None if event is None else {"step": event.step, "after": event.after} for name, event in found.items()
    }
    return plain | {"final": dict(rows[-1]), "words": _words(rows, found)}


def stays_below(steps: NDArray[np.int64], values: NDArray[np.float64], level: float) -> Passing | None:
    """The first measured step from which on every value is below the level; None where the last is not.

    A value that is not a number is not below it.
    """
    above = np.flatnonzero(~(values < level))
    first = int(above[-1]) + 1 if len(above) else 0
    if first == len(values):
        return None
    return Passing(int(steps[first]), int(steps[first - 1]) if first else int(steps[0]))


def comparison(
    records: Sequence[Record] | Mapping[str, list[Record]], order: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`: median and [least, greatest] over the seeds of each arm; "never" is censored."""
    rows: list[tuple[str, ...]] = []
    for arm, runs in arms_in_order(records, order):
        events = [[event_step(r, name) for r in runs] for name in ("tau_1", "tau_2", "tau_2_test")]
        finals = [
            [r.final(name) for r in runs] for name in ("train_rnc1_mean", "test_rnc1_mean", "train_kappa_squared")
        ]
        rows.append(
            (
                arm,
                " ".join(str(r.config["seed"]) for r in runs),
                *(spread(values, lambda v: f"{v:,.0f}") for values in events),
                spread([100 * r.final("test_accuracy") for r in runs], lambda v: f"{v:.1f}"),
                *(spread(values, short) for values in finals),
            )
        )
    return rows


def _column(rows: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([row[name] for row in rows], dtype=np.float64)


def _words(rows: Sequence[dict[str, Any]], found: dict[str, Passing | None]) -> list[str]:
    last = rows[-1]
    fit, contracted, on_test = (_when(found[name], last["step"]) for name in ("tau_1", "tau_2", "tau_2_test"))
    return [
        f"train accuracy passes {100 * FITTED:g} % {fit} (tau_1); test accuracy ends at "
        f"{100 * last['test_accuracy']:.1f} %",
        f"RNC1 stays below {CONTRACTED:g} {contracted} on the train set (tau_2), {on_test} on the test set",
        f"train RNC1 ends at {last['train_rnc1_mean']:.3g}, test RNC1 at {last['test_rnc1_mean']:.3g}; "
        f"train kappa of the squared loss at {last['train_kappa_squared']:.3g}",
    ]


def _when(event: Passing | None, last: int) -> str:
    return f"not within {last:,} steps" if event is None else f"from step {event.step:,}"
