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
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import log_ndtr  # type: ignore[import-untyped]

from grokcore.training.milestones import Passing
from grokcore.training.record import Record

FIT = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02)
"""The weight decays whose second clock a run of 100,000 steps can show."""
PREDICTED = -1.0
"""The slope of tau_2 ~ 1 / (eta lambda)."""
BOOTSTRAPS = 1_000
_LOG_ROOT = math.log(2 * math.pi) / 2
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
    slope, intercept, spread = _fit(events)
    by_decay: dict[float, list[Event]] = {}
    for event in events:
        by_decay.setdefault(event.decay, []).append(event)
    rng, slopes = np.random.default_rng(seed), list[float]()
    # One run a decay can be drawn in one way only: no interval.
    for _ in range(bootstraps if max(map(len, by_decay.values())) > 1 else 0):
        drawn = [group[i] for group in by_decay.values() for i in rng.integers(len(group), size=len(group))]
        if len({event.decay for event in drawn if not event.censored}) >= 2:
            slopes.append(_fit(drawn, start=(slope, intercept, spread))[0])
    low, high = np.quantile(slopes, (0.025, 0.975)) if slopes else (math.nan, math.nan)
    return Law(slope, intercept, spread, float(low), float(high), len(events), sum(event.censored for event in events))


def _fit(events: Sequence[Event], start: tuple[float, float, float] | None = None) -> tuple[float, float, float]:
    """Slope, intercept and spread of the greatest likelihood."""
    x = np.log([event.decay for event in events])
    # Step 0 has no logarithm: what was there from the start came before step 1.
    low = np.log([max(event.after, 0.5) for event in events])
    high = np.array([math.inf if event.censored else math.log(max(event.step, 1.0)) for event in events])
    if start is None:
        seen = np.isfinite(high)
        slope, intercept = np.polyfit(x[seen], high[seen], 1)
        start = (float(slope), float(intercept), 0.3)

    def minus_log_likelihood(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        slope, intercept, log_spread = values
        scale = math.exp(log_spread)
        spread, middle = _LEAST_SPREAD + scale, intercept + slope * x
        below, above = (low - middle) / spread, (high - middle) / spread
        logs = _log_between(below, above)
        # The densities at the ends over the probability between them.
        at_low, at_high = (np.exp(np.minimum(-(end**2) / 2 - _LOG_ROOT - logs, 700)) for end in (below, above))
        with np.errstate(invalid="ignore"):
            by_spread = np.where(np.isinf(above), 0.0, above * at_high) - below * at_low
        by_middle = at_high - at_low
        gradient = np.array([np.sum(by_middle * x), np.sum(by_middle), np.sum(by_spread) * scale]) / spread
        return -float(np.sum(logs)), gradient

    first = np.array([start[0], start[1], math.log(max(start[2] - _LEAST_SPREAD, 1e-3))])
    bounds = [(None, None), (None, None), (-9.0, 5.0)]
    found = minimize(
        minus_log_likelihood, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-13, "gtol": 1e-7}
    )
    slope, intercept, log_spread = (float(value) for value in found.x)
    return slope, intercept, _LEAST_SPREAD + math.exp(log_spread)


def _log_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(Phi(b) - Phi(a)) for a < b, b may be infinite, with its digits in both tails."""
    flip = a > 0  # Phi(b) - Phi(a) = Phi(-a) - Phi(-b)
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    smaller, larger = log_ndtr(lower), log_ndtr(upper)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.isneginf(smaller), 0.0, np.exp(np.minimum(smaller - larger, -1e-15)))
    found: NDArray[np.float64] = larger + np.log1p(-ratio)
    return found
