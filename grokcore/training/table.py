"""Tables over runs: a row an arm, each number with its spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from grokcore.training.record import Record, by_arm

HEADER = (
    "arm",
    "seeds",
    "fit: train 99 % at step",
    "grokking: test 99 % at step",
    "train kappa at that step",
    "final test accuracy (%)",
    "final train kappa",
    "final train CDNV",
)


def comparison(records: Sequence[Record], order: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`: median and [least, greatest] over the seeds of each arm.

    Args:
        records: finished runs of one preset.
        order: arms in the order wanted; others follow by name.
    """
    groups = by_arm(records)
    rows: list[tuple[str, ...]] = []
    for arm in sorted(groups, key=lambda a: (_rank(a, order), a)):
        runs = groups[arm]
        rows.append(
            (
                arm,
                " ".join(str(r.config["seed"]) for r in runs),
                spread([_event(r, "train_99") for r in runs], lambda v: f"{v:,.0f}"),
                spread([_event(r, "test_99") for r in runs], lambda v: f"{v:,.0f}"),
                spread([_at_event(r, "test_99", "train_kappa") for r in runs], _short),
                spread([100 * r.final("test_accuracy") for r in runs], lambda v: f"{v:.1f}"),
                spread([r.final("train_kappa") for r in runs], _short),
                spread([r.final("train_cdnv") for r in runs], _short),
            )
        )
    return rows


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """``median [least, greatest]``; infinite reads "never", NaN is counted apart."""
    known = [v for v in values if not math.isnan(v)]
    missing = f" ({len(values) - len(known)} undefined)" if len(known) < len(values) else ""
    if not known:
        return "undefined"
    low, middle, high = ("never" if math.isinf(v) else show(v) for v in (min(known), median(known), max(known)))
    return (middle if low == high else f"{middle} [{low}, {high}]") + missing


def _event(record: Record, name: str) -> float:
    event = record.summary.get(name)
    return math.inf if event is None else float(event["step"])


def _at_event(record: Record, name: str, column: str) -> float:
    event = record.summary.get(name)
    if event is None:
        return math.nan
    return float(record.column(column)[record.column("step").tolist().index(event["step"])])


def _rank(arm: str, order: Sequence[str]) -> int:
    base = arm.split("+")[0]
    return order.index(base) if base in order else len(order)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
