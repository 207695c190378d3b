"""What a run says of test collapse (paper C): the variance ratios on train and test data, the floor that errors cost,
and a verdict over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from grokcore.estimators import Estimate
from grokcore.training.record import Record
from grokcore.training.table import arms_in_order, short, spread

STRONG = "test_variance_ratio"
"""V of the test set about the train means of the true class."""
FLOOR = "test_floor_train_means_least_distance"
"""Theory F2's floor of it, divided by V's own denominator: the error rates times the least vertex distance squared."""
WEAK = "test_variance_ratio_predicted"
"""V of the test set about the train means of the predicted class."""
HEADER = (
    "run", "seeds", "test error (%)", "train V", "test V, test means", "test V, train means", "its floor (F2)",
    "test V, predicted class", "V less floor: upper end", "verdict",
)  # fmt: skip


@dataclass(frozen=True)
class Thresholds:
    """Fixed before the runs, and recorded with each."""

    below: float = 0.05
    """What an upper end must lie below."""
    seeds: int = 3
    """How many the upper end is of."""


THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class Verdict:
    """Whether features of test data collapse too.

    Fields:
        word: "strong": the upper end of V about the train means of the true class, less its floor, lies below the
            threshold; "weak": only that of V about the train means of the predicted class does; "none"; or
            "undecided", with fewer seeds than the thresholds ask for.
        excess, predicted: the upper ends, 95 % by Student's t over seeds; NaN with one seed.
    """

    word: str
    excess: float
    predicted: float


def verdict(records: Sequence[Record], thresholds: Thresholds = THRESHOLDS) -> Verdict:
    """The verdict of runs that differ in their seeds alone, at their ends.

    "strong" allows for errors: it says that what variance there is about the true class's mean is what wrong answers on
    other vertices cost. Collapse onto the Bayes classes would leave no excess risk either (theory F1).
    """
    excess = _upper([record.final(STRONG) - record.final(FLOOR) for record in records])
    predicted = _upper([record.final(WEAK) for record in records])
    if len(records) < thresholds.seeds:
        return Verdict("undecided", excess, predicted)
    if excess < thresholds.below:
        return Verdict("strong", excess, predicted)
    return Verdict("weak" if predicted < thresholds.below else "none", excess, predicted)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a finished run's rows: ``final``, ``thresholds`` and ``words``."""
    last = rows[-1]
    return {
        "thresholds": asdict(THRESHOLDS),
        "final": dict(last),
        "words": [
            f"train accuracy ends at {100 * last['train_accuracy']:.1f} %, test accuracy at "
            f"{100 * last['test_accuracy']:.1f} %",
            f"V: train {last['train_nc1_trace_ratio']:.3g}; test {last['test_nc1_trace_ratio']:.3g} about the test "
            f"means, {last[STRONG]:.3g} about the train means (floor {last[FLOOR]:.3g}), {last[WEAK]:.3g} about the "
            f"train means of the predicted class",
            f"strong test collapse asks that V less its floor, {last[STRONG] - last[FLOOR]:.3g} here, has its upper "
            f"end over {THRESHOLDS.seeds} seeds below {THRESHOLDS.below:g}; weak, that the last V has",
        ],
    }


def comparison(
    records: Sequence[Record] | Mapping[str, list[Record]], order: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`: median and [least, greatest] over the seeds of each arm, at the end, and a verdict."""
    columns = ("train_nc1_trace_ratio", "test_nc1_trace_ratio", STRONG, FLOOR, WEAK)
    rows = []
    for arm, runs in arms_in_order(records, order):
        found = verdict(runs)
        rows.append(
            (
                arm,
                " ".join(str(r.config["seed"]) for r in runs),
                spread([100 * (1 - r.final("test_accuracy")) for r in runs], lambda v: f"{v:.1f}"),
                *(spread([r.final(name) for r in runs], short) for name in columns),
                "" if math.isnan(found.excess) else short(found.excess),
                found.word,
            )
        )
    return rows


def _upper(values: Sequence[float]) -> float:
    found = Estimate.of_probes(torch.tensor(values, dtype=torch.float64), 0)
    return found.value + 2 * found.stderr
