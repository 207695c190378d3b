"""What falls when, in runs of the published set-up: rules for the timing of flatness and collapse beside accuracy.

The fit is train accuracy 99 %. Generalisation is a period: it starts at test accuracy STARTED, is halfway at HALFWAY
and done at 99 %; it may start before the fit. A quantity falls, from its maximum to its last value, at two steps:

- on a log scale, where half of the fall's logarithm is done; what is below FLOOR of the maximum has fallen;
- on a linear scale, where it is below half its maximum.

Both are looked for after the last value of at least half the maximum: a dip from which a curve comes back is no fall.
It falls

- with the fit: no later than the fit, and before generalisation starts, or else "with the fit and generalisation";
- between: after the fit, before generalisation starts;
- with generalisation: after the fit, between its start and test accuracy 99 %;
- after: later than that; never: its last value is more than half its maximum;
- exactly as generalisation starts, whatever the fit does: between STARTED and HALFWAY.

Every event lies between two measured steps, 7 to 15 % apart. Of two events in one such interval nothing tells which
came first: the quantity's is counted with the accuracy's, and the verdict names how many runs that concerns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grokcore.training.milestones import LEVEL, Passing, half_fall, last_height, passes, steepest_fall
from grokcore.training.record import Record

STARTED, HALFWAY = 0.05, 0.5
"""Test accuracies at which generalisation starts (chance is 0.01) and is halfway."""
FLOOR = 1e-6
"""What is below this share of the maximum has fallen: the half of a fall to 1e-60 would say nothing of when."""
SEEDS = 3
"""Fewer are named beside the verdict."""

FIT, FIT_AND_GENERALISATION, BETWEEN = "with the fit", "with the fit and generalisation", "between"
GENERALISATION, AFTER, NEVER, UNDEFINED = "with generalisation", "after", "never", "undefined"
NOT_SEEN, NO_FIT = "after the fit, no generalisation seen", "no fit seen"

QUANTITIES = {
    "train_kappa": "exact kappa",
    "train_published_product": "published curve",
    "train_published_product_variance": "published curve, variance form",
    "train_frobenius_surrogate": "Frobenius surrogate",
    "train_cdnv": "CDNV",
    "train_within_class_variance": "within-class variance",
    "train_inverse_distance": "1 / squared distance of means",
    "train_rnc1_sup": "RNC1, sup norm",
    "train_rnc1_mean": "RNC1, mean norm",
    "train_loss": "train loss",
    "test_kappa": "exact kappa, test",
    "test_published_product": "published curve, test",
    "test_cdnv": "CDNV, test",
}


@dataclass(frozen=True)
class Events:
    """When a run fits and generalises."""

    fit: Passing | None
    starts: Passing | None
    halfway: Passing | None
    done: Passing | None


@dataclass(frozen=True)
class Fall:
    """One fall beside a run's events; the step is infinite where it never comes, NaN where nothing is known."""

    phase: str
    step: float
    exactly: bool = False
    """Exactly as generalisation starts."""
    tied: str = ""
    """The event of the accuracy in the same interval."""


@dataclass(frozen=True)
class Timing:
    """When one quantity of one run falls."""

    log: Fall
    linear: Fall
    steepest: float
    """Where it falls most per unit of log step (:func:`~grokcore.training.milestones.steepest_fall`)."""
    levels: tuple[float, float, float, float]
    """Shares of the maximum left at the fit, as generalisation starts, at its end and in the last row."""


def events(record: Record) -> Events:
    """The fit, and the start, the middle and the end of generalisation."""
    steps, test = record.column("step").astype(np.int64), record.column("test_accuracy")
    fit = passes(steps, record.column("train_accuracy"), LEVEL)
    return Events(fit, *(passes(steps, test, level) for level in (STARTED, HALFWAY, LEVEL)))


def curve(record: Record, name: str) -> NDArray[np.float64]:
    """A quantity of QUANTITIES, NaN where it has no value."""
    if name != "train_inverse_distance":
        return record.column(name)
    distance = record.column("train_squared_mean_distance")
    return 1.0 / np.where(distance > 0, distance, np.nan)


def timing(record: Record, name: str) -> Timing:
    """When a quantity of one run falls, by the rules above; undefined if a value after the first row is not finite."""
    steps, values, seen = record.column("step").astype(np.int64), curve(record, name), events(record)
    if not np.isfinite(values[1:]).all() or values[1:].max() <= 0:
        undefined = Fall(UNDEFINED, math.nan)
        return Timing(undefined, undefined, math.nan, (math.nan,) * 4)
    shares = values / np.nanmax(values)
    clipped = np.maximum(shares, FLOOR)
    half, last = half_fall(steps, clipped, lasting=True), last_height(shares)
    below = None if half is None or last == len(steps) - 1 else Passing(int(steps[last + 1]), int(steps[last]))
    steepest = None if half is None else steepest_fall(steps, clipped)

    def left(event: Passing | None) -> float:
        return math.nan if event is None else float(shares[steps.tolist().index(event.step)])

    return Timing(
        fall(half, seen),
        fall(below, seen),
        math.inf if steepest is None else float(steepest.step),
        (left(seen.fit), left(seen.starts), left(seen.done), float(shares[-1])),
    )


def fall(event: Passing | None, seen: Events) -> Fall:
    """A fall's phase among the events of its run."""
    if event is None:
        return Fall(NEVER, math.inf)
    started = seen.starts is not None and event.step >= seen.starts.step
    exactly = started and (seen.halfway is None or event.step <= seen.halfway.step)
    named = {"the fit": seen.fit, "generalisation's start": seen.starts, "generalisation's end": seen.done}
    tied = " and ".join(name for name, each in named.items() if each is not None and each.step == event.step)
    return Fall(_phase(event, started, seen), float(event.step), exactly, tied)


def _phase(event: Passing, started: bool, seen: Events) -> str:
    if seen.fit is None:
        return NO_FIT
    if event.step <= seen.fit.step:
        return FIT_AND_GENERALISATION if started else FIT
    if seen.starts is None:
        return NOT_SEEN
    if not started:
        return BETWEEN
    return GENERALISATION if seen.done is None or event.step <= seen.done.step else AFTER


def agreed(falls: Sequence[Fall]) -> str:
    """The verdict over seeds: the phase of all runs, or that they differ."""
    counts = Counter(each.phase for each in falls).most_common()
    words = counts[0][0] if len(counts) == 1 else "seeds differ: " + ", ".join(f"{n} {phase}" for phase, n in counts)
    notes = [f"{len(falls)} seed{'s' * (len(falls) > 1)} only"] if len(falls) < SEEDS else []
    for tied, n in Counter(each.tied for each in falls if each.tied).items():
        notes.append(f"{n} of {len(falls)} in one interval with {tied}")
    return f"{words} ({'; '.join(notes)})" if notes else words


def published_runs(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Baseline runs with the published head, by set-up: preset and other variants, like ``paper, steps35000``."""
    found: dict[str, list[Record]] = {}
    for record in records:
        published = record.config["model"].get("head") == "vocabulary" and "train_published_product" in record.columns
        if published and record.config["arm"] == "baseline" and "fork" not in record.config:
            others = [token for token in record.config["variant"] if token != "headvocabulary"]
            found.setdefault(", ".join([record.config["preset"], *others]), []).append(record)
    return {name: sorted(runs, key=lambda run: run.config["seed"]) for name, runs in found.items()}
