"""When things set in along a run: generalisation, the contraction of train and of test features, the fall of kappa.

The onset of generalisation is the first measured step at which test accuracy has made half of its rise from its least
value to the run's last; a rise of less than LEAST_RISE is none. (Not from the fit: under strong decay that comes late,
or not at all, and generalisation does not wait for it.) The onset of a quantity's fall is that of
:func:`grokcore.training.milestones.half_fall`, on a log scale, after the last value of half its maximum; half of a fall
over many decades is late in it, so beside it stands the step from which on a quantity stays below half its maximum.
Every decay makes everything earlier or later together, so ranks are also compared within the decays.

Train and test features are compared at common levels of RNC1: by halves of its own fall the test set, which falls
less, would seem to be first.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata  # type: ignore[import-untyped]

from grokcore.training.clocks import stays_below
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
    "onset of", "runs", "half of its fall, before generalisation by the factor: median [95 %]",
    "below half its maximum, the same", "rank correlation of half the fall with it [95 %]",
    "the same within each decay [95 %]", "rank correlation with test accuracy along a run: median [least, greatest]",
)  # fmt: skip
LEVELS = (0.25, 0.2, 0.15, 0.1)
"""Of RNC1, at which train and test set are compared."""
ORDER_HEADER = (
    "RNC1 stays below", "runs of which both do", "of which the test set never does",
    "test set's step over the train set's: median [95 %]", "which says",
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


def below_onset(record: Record, name: str, level: float | None = None) -> Passing | None:
    """The measured step from which on a column stays below a level, by default half of its greatest value after the
    start; None where it does not."""
    steps, values = record.column("step").astype(np.int64), record.column(name)
    return stays_below(steps, values, float(np.nanmax(values[1:])) / 2 if level is None else level)


def order_of_contraction(records: Sequence[Record], level: float) -> tuple[Interval, int, int]:
    """Whether train or test features contract first: the step from which on test RNC1 stays below a level over the
    train set's, for the runs that have both, above 1: train features first; how many runs those are; and in how many
    the train set gets there and the test set never does."""
    found = [tuple(below_onset(r, f"{split}_rnc1_mean", level) for split in ("train", "test")) for r in records]
    logs = [math.log(max(test.step, 1) / max(train.step, 1)) for train, test in found if train and test]
    never = sum(train is not None and test is None for train, test in found)
    if not logs:
        return Interval(math.nan, math.nan, math.nan), 0, never
    return _exp(_interval(np.array(logs)[:, None], _median)), len(logs), never


def order_table(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under ORDER_HEADER."""
    rows = []
    for level in LEVELS:
        found, both, never = order_of_contraction(records, level)
        if found.low > 1:
            says = "train first"
        elif found.high < 1:
            says = "test first"
        else:
            says = "not told apart" if both else ""
        rows.append((f"{level:g}", str(both), str(never), found.show(), says))
    return rows


def table(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Rows under HEADER, of the runs that generalise."""
    rows = []
    for name, words in FALLS.items():
        both = _both(records, name)
        if not both:
            continue
        factor = _exp(_interval(leads(records, name)[:, None], _median))
        general_steps = [(generalisation_onset(record), below_onset(record, name)) for record in records]
        halved = np.array([math.log(g.step / max(h.step, 1)) for g, h in general_steps if g and h])
        pairs = np.array([[math.log(general.step), math.log(fall.step)] for _, general, fall in both])
        decays = np.array([decay_of(record) for record, _, _ in both])
        within = np.column_stack([pairs, decays])
        along = [along_run(record, name) for record, _, _ in both]
        rows.append(
            (
                words,
                str(len(both)),
                factor.show(),
                _exp(_interval(halved[:, None], _median)).show() if len(halved) else "",
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
    return float(_rank_correlation(np.column_stack([record.column(name)[least:], accuracy[least:]])[None])[0])


def _both(records: Sequence[Record], name: str) -> list[tuple[Record, Passing, Passing]]:
    found = [(record, generalisation_onset(record), fall_onset(record, name)) for record in records]
    return [(record, general, fall) for record, general, fall in found if general and fall]


def _exp(found: Interval) -> Interval:
    return Interval(*(math.exp(each) for each in (found.value, found.low, found.high)))


Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Of samples (B, n, k), rows of k numbers, one number each (B,)."""


def _median(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.median(samples[..., 0], axis=1))


def _rank_correlation(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's, of the first two numbers; NaN where either is the same throughout or there are fewer than three."""
    if samples.shape[1] < 3:
        return np.full(len(samples), math.nan)
    ranks = rankdata(samples[..., :2], axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    squares = (centred**2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        found: NDArray[np.float64] = centred.prod(axis=2).sum(axis=1) / np.sqrt(squares.prod(axis=1))
    return found


def _rank_correlation_within(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (a, b, decay): each number less the median of its decay."""
    apart = samples[..., :2].copy()
    for decay in np.unique(samples[..., 2]):
        own = samples[..., 2:] == decay
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a draw without this decay
            middle = np.nanmedian(np.where(own, samples[..., :2], math.nan), axis=1, keepdims=True)
        apart = np.where(own, apart - middle, apart)
    return _rank_correlation(apart)


def _interval(rows: NDArray[np.float64], statistic: Statistic) -> Interval:
    """A statistic of runs and its percentile interval over draws of the runs."""
    drawn = statistic(rows[np.random.default_rng(0).integers(len(rows), size=(BOOTSTRAPS, len(rows)))])
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (math.nan, math.nan)
    return Interval(float(statistic(rows[None])[0]), float(low), float(high))
