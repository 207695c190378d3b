"""When things set in along a run: generalisation, the contraction of train and of test features, the fall of kappa.

The onset of generalisation is the first measured step at which test accuracy has made half of its rise from its least
value to the run's last; a rise of less than LEAST_RISE is none. (Not from the fit: under strong decay that comes late,
or not at all, and generalisation does not wait for it.) The onset of a quantity's fall is that of
:func:`grokcore.training.milestones.half_fall`, on a log scale, after the last value of half its maximum. Every decay
makes everything earlier or later together, so ranks are also compared within the decays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr  # type: ignore[import-untyped]

from grokcore.training.milestones import Passing, half_fall, passes
from grokcore.training.record import Record
from paper.clock_law import decay_of

LEAST_RISE = 0.05
"""Test accuracy, from its least value to the end."""
FALLS = {
    "train_rnc1_mean": "train RNC1",
    "test_rnc1_mean": "test RNC1",
    "train_nc1_trace_ratio": "train NC1 (trace ratio)",
    "test_nc1_trace_ratio": "test NC1 (trace ratio)",
    "train_kappa_squared": "train kappa (squared loss)",
    "test_kappa_squared": "test kappa (squared loss)",
    "train_within_class_variance": "train variance within classes",
    "test_within_class_variance": "test variance within classes",
    "weight_norm": "norm of all weights (control)",
}
"""What may fall, in words. The norm is a control: decay shrinks it, and so kappa and variance, whatever is learned."""
BOOTSTRAPS = 1_000
HEADER = (
    "onset of", "runs", "before generalisation by the factor: median [95 %]", "rank correlation with it [95 %]",
    "the same within each decay [95 %]", "rank correlation with test accuracy along a run: median [least, greatest]",
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % bootstrap interval over runs."""

    value: float
    low: float
    high: float

    def show(self, digits: int = 2) -> str:
        """With its interval."""
        if math.isnan(self.value):
            return "undefined"
        value, low, high = (f"{each:.{digits}f}" for each in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def generalisation_onset(record: Record) -> Passing | None:
    """Half of the rise of test accuracy; None without a rise."""
    steps, accuracy = record.column("step").astype(np.int64), record.column("test_accuracy")
    least = int(np.argmin(accuracy))
    if accuracy[-1] - accuracy[least] < LEAST_RISE:
        return None
    return passes(steps[least:], accuracy[least:], (accuracy[least] + accuracy[-1]) / 2)


def fall_onset(record: Record, name: str) -> Passing | None:
    """Half of the lasting fall of a column, on a log scale; None where it ends above half its maximum."""
    return half_fall(record.column("step").astype(np.int64), record.column(name), lasting=True)


def leads(records: Sequence[Record], name: str) -> NDArray[np.float64]:
    """log of (onset of generalisation / onset of the column's fall), for each run that has both: positive leads."""
    return np.array([math.log(general.step / fall.step) for _, general, fall in _both(records, name)])


def order_of_contraction(records: Sequence[Record]) -> Interval:
    """The test set's onset of contraction (RNC1) over the train set's, for the runs that have both: above 1, train
    features contract first."""
    found = [(fall_onset(r, "train_rnc1_mean"), fall_onset(r, "test_rnc1_mean")) for r in records]
    logs = np.array([math.log(test.step / train.step) for train, test in found if train and test])
    interval = _interval(logs[:, None], _median)
    return Interval(*(math.exp(each) for each in (interval.value, interval.low, interval.high)))


def table(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under HEADER, of the runs that generalise."""
    rows = []
    for name, words in FALLS.items():
        both = _both(records, name)
        if not both:
            continue
        lead = _interval(leads(records, name)[:, None], _median)
        factor = Interval(*(math.exp(each) for each in (lead.value, lead.low, lead.high)))
        pairs = np.array([[math.log(general.step), math.log(fall.step)] for _, general, fall in both])
        decays = np.array([decay_of(record) for record, _, _ in both])
        within = np.column_stack([pairs, decays])
        along = [along_run(record, name) for record, _, _ in both]
        rows.append(
            (
                words,
                str(len(both)),
                factor.show(),
                _interval(pairs, _rank_correlation).show(),
                _interval(within, _rank_correlation_within).show(),
                f"{np.median(along):.2f} [{min(along):.2f}, {max(along):.2f}]",
            )
        )
    return rows


def along_run(record: Record, name: str) -> float:
    """Spearman's correlation of a column with test accuracy over the measured steps from its least value on."""
    accuracy = record.column("test_accuracy")
    least = int(np.argmin(accuracy))
    return _rank_correlation(np.column_stack([record.column(name)[least:], accuracy[least:]]))


def _both(records: Sequence[Record], name: str) -> list[tuple[Record, Passing, Passing]]:
    found = [(record, generalisation_onset(record), fall_onset(record, name)) for record in records]
    return [(record, general, fall) for record, general, fall in found if general and fall]


def _median(rows: NDArray[np.float64]) -> float:
    return float(np.median(rows))


def _rank_correlation(pairs: NDArray[np.float64]) -> float:
    if len(pairs) < 3 or (pairs.min(axis=0) == pairs.max(axis=0)).any():
        return math.nan
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)


def _rank_correlation_within(rows: NDArray[np.float64]) -> float:
    """Of (a, b, decay): each number less the median of its decay."""
    apart = rows[:, :2].copy()
    for decay in np.unique(rows[:, 2]):
        own = rows[:, 2] == decay
        apart[own] -= np.median(apart[own], axis=0)
    return _rank_correlation(apart)


def _interval(rows: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], float]) -> Interval:
    """A statistic of runs and its percentile interval over draws of the runs."""
    rng = np.random.default_rng(0)
    drawn = [statistic(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(BOOTSTRAPS)]
    known = np.array([each for each in drawn if not math.isnan(each)])
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (math.nan, math.nan)
    return Interval(float(statistic(rows)), float(low), float(high))
