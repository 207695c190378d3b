"""What a run's curves say: when accuracy rises, when kappa and CDNV fall, and which came first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.99
"""The accuracy whose passing is the fit (train) and the grokking step (test)."""


@dataclass(frozen=True)
class Passing:
    """An event between two measured steps: seen at `step`, not yet at `after`."""

    step: int
    after: int


def passes(steps: NDArray[np.int64], values: NDArray[np.float64], level: float) -> Passing | None:
    """First measured step with value >= level."""
    return _first(steps, values >= level)


def half_fall(steps: NDArray[np.int64], values: NDArray[np.float64], *, lasting: bool = False) -> Passing | None:
    """First measured step after the maximum at which half of the fall to the last value is done, on a log
    scale: value <= sqrt(maximum * last). None where the last value is more than half the maximum, where
    a value is not positive at the end, or where a NaN stands among the values after the first row.

    Args:
        steps: the measured steps.
        values: the curve.
        lasting: look after the last value of at least half the maximum (and above the level) instead of after
            the maximum, so that a dip from which the curve comes back is not taken for its fall.
    """
    if not np.isfinite(values[1:]).all() or values[-1] <= 0:
        return None
    peak = int(np.nanargmax(values))
    if values[-1] > values[peak] / 2:
        return None
    level = math.sqrt(values[peak] * values[-1])
    high = (values > level) & (values >= values[peak] / 2)
    start = int(np.flatnonzero(high)[-1]) if lasting else peak
    return _first(steps, (np.arange(len(values)) > start) & (values <= level))


def last_height(values: NDArray[np.float64]) -> int:
    """The last row whose value is at least half the maximum: where the fall that lasts begins."""
    return int(np.flatnonzero(values >= np.nanmax(values) / 2)[-1])


def steepest_fall(steps: NDArray[np.int64], values: NDArray[np.float64], *, ratio: float = 1.2) -> Passing | None:
    """Where a positive curve falls most per unit of log step, once it is on the fall that lasts.

    Each measured step from :func:`last_height` on is compared with the first one at least `ratio` times as late, so
    that close neighbours do not win by their noise. None where no such pair falls, or where a value after
    the first row is NaN or not positive.
    """
    if not np.isfinite(values[1:]).all() or (values[1:] <= 0).any():
        return None
    found, steepest = None, 0.0
    for first in range(last_height(values), len(steps)):
        later = np.flatnonzero(steps >= ratio * steps[first])
        if steps[first] < 1 or not len(later):
            continue
        second = int(later[0])
        slope = math.log(values[second] / values[first]) / math.log(steps[second] / steps[first])
        if slope < steepest:
            found, steepest = Passing(int(steps[second]), int(steps[first])), slope
    return found


def value_at(steps: NDArray[np.int64], values: NDArray[np.float64], step: int) -> float:
    """A positive curve at `step`, interpolated on log-log axes."""
    inside = (steps > 0) & (values > 0)
    return float(np.exp(np.interp(math.log(step), np.log(steps[inside]), np.log(values[inside]))))


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a finished run's rows: events, final values and words.

    Keys: ``<split>_99`` and ``<split>_95`` (accuracy), ``<split>_kappa_half``, ``<split>_cdnv_half``: the
    measured step and the one before it, or None; ``final``: the last row; ``words``: a list of sentences.
    """
    steps = np.array([row["step"] for row in rows])

    def curve(name: str) -> NDArray[np.float64]:
        return np.array([row[name] for row in rows], dtype=np.float64)

    events: dict[str, Passing | None] = {}
    for split in ("train", "test"):
        events[f"{split}_99"] = passes(steps, curve(f"{split}_accuracy"), LEVEL)
        events[f"{split}_95"] = passes(steps, curve(f"{split}_accuracy"), 0.95)
        for name in ("kappa", "cdnv"):
            events[f"{split}_{name}_half"] = half_fall(steps, curve(f"{split}_{name}"))
    as_data = {k: None if e is None else {"step": e.step, "after": e.after} for k, e in events.items()}
    return as_data | {"final": dict(rows[-1]), "words": words(events, rows[-1])}


def words(events: dict[str, Passing | None], last: dict[str, Any]) -> list[str]:
    """Sentences a person can read, from the events and the last row."""
    said = [
        f"train accuracy passes 99 % {_when(events['train_99'])}, test accuracy {_when(events['test_99'])} "
        f"and ends at {100 * last['test_accuracy']:.1f} %",
        f"train kappa has made half of its fall {_when(events['train_kappa_half'])} "
        f"and ends at {last['train_kappa']:.3g}; train CDNV {_when(events['train_cdnv_half'])} "
        f"and ends at {last['train_cdnv']:.3g}",
    ]
    named = {
        "generalisation": events["test_99"],
        "the fall of kappa": events["train_kappa_half"],
        "the fall of CDNV": events["train_cdnv_half"],
    }
    happened = sorted(((e.step, e.after, name) for name, e in named.items() if e is not None))
    missing = [name for name, event in named.items() if event is None]
    if happened:
        groups: list[tuple[int, list[str]]] = []
        for step, after, name in happened:
            # Two events between the same two measurements cannot be told apart.
            if groups and after < groups[-1][0]:
                groups[-1][1].append(name)
            else:
                groups.append((step, [name]))
        order = ", then ".join(" together with ".join(names) for _, names in groups)
        said.append(f"order: {order}" + (f"; never: {', '.join(missing)}" if missing else ""))
    else:
        said.append(f"never: {', '.join(missing)}")
    return said


def _when(event: Passing | None) -> str:
    return "never" if event is None else f"at step {event.step:,}"


def _first(steps: NDArray[np.int64], reached: NDArray[np.bool_]) -> Passing | None:
    if not reached.any():
        return None
    index = int(np.argmax(reached))
    return Passing(int(steps[index]), int(steps[index - 1]) if index else 0)
