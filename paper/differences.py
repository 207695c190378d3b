"""Two arms compared over the seeds that both have: the difference, its interval, and what may be said of it.

"Equal" is a claim: it is made only where the interval lies within a margin that was fixed before the runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from grokcore.estimators import Estimate
from grokcore.training.record import Record
from grokcore.training.table import short, spread

MARGIN = 2.0
"""Points of accuracy within which two arms are called equal."""
HEADER = (
    "compared", "seeds", "test accuracy, points: mean [95 %]", "which says", "train kappa, ratio",
    "train surrogate, ratio", "train CDNV, ratio", "test CDNV, ratio",
)  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences over seeds and its interval by Student's t, 95 % each (not of all together)."""

    mean: float
    low: float
    high: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Difference:
        """Of one number a seed; a single seed has no interval."""
        found = Estimate.of_probes(torch.tensor(values, dtype=torch.float64), 0)
        return cls(found.value, found.value - 2 * found.stderr, found.value + 2 * found.stderr, len(values))

    def verdict(self, margin: float = MARGIN) -> str:
        """Equal within the margin, higher, lower, or not told apart."""
        if math.isnan(self.mean):
            return "undefined"
        if self.seeds == 1:
            return "one seed"
        if -margin < self.low and self.high < margin:
            return f"equal within {margin:g} points"
        if self.low > 0:
            return "higher"
        if self.high < 0:
            return "lower"
        return f"not told apart with {self.seeds} seeds"

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "undefined"
        interval = "" if math.isnan(self.low) else f" [{self.low:+.1f}, {self.high:+.1f}]"
        return f"{self.mean:+.1f}{interval}"


def pairs(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Runs of two arms with the same seed: the same initial weights and batches."""
    of_second = {record.config["seed"]: record for record in second}
    return [(r, of_second[r.config["seed"]]) for r in first if r.config["seed"] in of_second]


def accuracy_difference(first: Sequence[Record], second: Sequence[Record]) -> Difference:
    """Final test accuracy of the first less the second's, points."""
    found = pairs(first, second)
    return Difference.of([100 * (a.final("test_accuracy") - b.final("test_accuracy")) for a, b in found])


def table(runs: Mapping[str, Sequence[Record]], compared: Sequence[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Rows under HEADER for those pairs of arms that have a seed in common; ratios are medians [least, greatest]."""
    rows = []
    for first, second in compared:
        found = pairs(runs.get(first, []), runs.get(second, []))
        if not found:
            continue
        difference = accuracy_difference(runs[first], runs[second])
        columns = ("train_kappa", "train_frobenius_surrogate", "train_cdnv", "test_cdnv")
        ratios = [spread([ratio(a.final(name), b.final(name)) for a, b in found], short) for name in columns]
        seeds = " ".join(str(a.config["seed"]) for a, _ in found)
        rows.append((f"{first} against {second}", seeds, str(difference), difference.verdict(), *ratios))
    return rows


def ratio(first: float, second: float) -> float:
    """NaN where it has no value."""
    return first / second if second else math.nan
