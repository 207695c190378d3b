"""The law of the second clock, tau_2 ~ 1 / (eta lambda): its slope on log axes, with what never happened counted in.

log tau = a + b log lambda + s N(0, 1), by maximum likelihood. A run's tau is known to lie between two measured steps;
one that never came lies beyond the run's end. Both are what the likelihood says of them, so nothing is dropped: leaving
out the runs that never got there would flatten the slope. The interval is by bootstrap over the runs of each decay.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grokcore.training.milestones import Passing
from grokcore.training.record import Record
from paper.interval_regression import fit

FIT = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02)
"""The weight decays whose second clock a run of 100,000 steps can show."""
PREDICTED = -1.0
"""The slope of tau_2 ~ 1 / (eta lambda)."""
BOOTSTRAPS = 1_000
_LEAST_SPREAD = 0.01  # of log tau: a tenth of the distance between two measured steps


@dataclass(frozen=True)
class Event:
    """When something happened in a run of one weight decay: after `after`, by `step`; infinite: not within the run."""

    decay: float
    after: float
    step: float

    @property
    def censored(self) -> bool:
        """Whether it did not come."""
        return math.isinf(self.step)


@dataclass(frozen=True)
class Law:
    """The fitted line, and what it rests on."""

    slope: float
    intercept: float
    """log tau at decay 1."""
    spread: float
    """Standard deviation of log tau about the line."""
    low: float
    """Bootstrap interval of the slope, 95 %; NaN where no decay has two runs."""
    high: float
    runs: int
    censored: int

    def tau(self, decay: float | NDArray[np.float64]) -> NDArray[np.float64]:
        """The line's median at a weight decay."""
        return np.exp(self.intercept + self.slope * np.log(decay))

    @property
    def words(self) -> str:
        """The slope and its interval, where it has one."""
        return f"{self.slope:.2f}" + ("" if math.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]")

    def __str__(self) -> str:
        return f"slope {self.words} (predicted {PREDICTED:g}), {self.runs} runs, {self.censored} of them censored"


def event_of(record: Record, name: str = "tau_2") -> Event:
    """An event of a run's summary."""
    found = record.summary.get(name)
    return event_at(record, None if found is None else Passing(int(found["step"]), int(found["after"])))


def event_at(record: Record, found: Passing | None) -> Event:
    """A passing in a run, or that it did not come."""
    if found is None:
        return Event(decay_of(record), float(record.final("step")), math.inf)
    return Event(decay_of(record), float(found.after), float(found.step))


def decay_of(record: Record) -> float:
    """A run's weight decay."""
    return float(record.config["training"]["weight_decay"])


def fitted(records: Sequence[Record]) -> list[Record]:
    """The runs of a sweep that the law is fitted to: those of the decays in FIT where it has them all, else all."""
    if set(FIT) <= {decay_of(record) for record in records}:
        return [record for record in records if decay_of(record) in FIT]
    return list(records)


def everywhere_reached(records: Sequence[Record]) -> list[Record]:
    """The runs of those decays at which tau_2 came in every run.

    A decay so strong that RNC1 comes to rest above its level is no slow clock, which is what the fit takes a censored
    run for. Whole decays are left out, not runs, so that those left are a fair sample of theirs.
    """
    missed = {decay_of(record) for record in records if event_of(record).censored}
    return [record for record in records if decay_of(record) not in missed]


def law(events: Sequence[Event], *, seed: int = 0, bootstraps: int = BOOTSTRAPS) -> Law:
    """The fit and its interval; runs without decay, which have no place on a log axis, are left out.

    Raises:
        ValueError: fewer than two weight decays at which it happened at all: no slope.
    """
    # In one order, so that the draws are the same whatever order the runs come in.
    events = sorted((each for each in events if each.decay > 0), key=lambda each: (each.decay, each.after, each.step))
    if len({event.decay for event in events if not event.censored}) < 2:
        raise ValueError("a slope needs the event at two weight decays or more")
    (slope,), (intercept,), (spread,) = _fit([events])
    by_decay: dict[float, list[Event]] = {}
    for event in events:
        by_decay.setdefault(event.decay, []).append(event)
    rng, samples = np.random.default_rng(seed), list[list[Event]]()
    # One run a decay can be drawn in one way only: no interval.
    for _ in range(bootstraps if max(map(len, by_decay.values())) > 1 else 0):
        drawn = [group[i] for group in by_decay.values() for i in rng.integers(len(group), size=len(group))]
        if len({event.decay for event in drawn if not event.censored}) >= 2:
            samples.append(drawn)
    low, high = np.quantile(_fit(samples)[0], (0.025, 0.975)) if samples else (math.nan, math.nan)
    censored = sum(event.censored for event in events)
    return Law(float(slope), float(intercept), float(spread), float(low), float(high), len(events), censored)


def _fit(samples: Sequence[Sequence[Event]]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Slope, intercept and spread of the greatest likelihood, of samples of one size."""
    x = np.log([[event.decay for event in events] for events in samples])
    # Step 0 has no logarithm: what was there from the start came before step 1.
    low = np.log([[max(event.after, 0.5) for event in events] for events in samples])
    high = np.log([[max(event.step, 1.0) for event in events] for events in samples])
    return fit(x, low, high, _LEAST_SPREAD)
