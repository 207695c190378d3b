"""Tables over runs: a row an arm, each number with its spread over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

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
    rows: list[tuple[str, ...]] = []
    for arm, runs in arms_in_order(records, order):
        rows.append(
            (
                arm,
                " ".join(str(r.config["seed"]) for r in runs),
                spread([event_step(r, "train_99") for r in runs], lambda v: f"{v:,.0f}"),
                spread([event_step(r, "test_99") for r in runs], lambda v: f"{v:,.0f}"),
                spread([value_at_event(r, "test_99", "train_kappa") for r in runs], short),
                spread([100 * r.final("test_accuracy") for r in runs], lambda v: f"{v:.1f}"),
                spread([r.final("train_kappa") for r in runs], short),
                spread([r.final("train_cdnv") for r in runs], short),
            )
        )
    return rows


def arms_in_order(
    records: Sequence[Record] | Mapping[str, list[Record]], order: Sequence[str]
) -> list[tuple[str, list[Record]]]:
    """Each arm with its runs (:func:`~grokcore.training.record.by_arm`, or as given), in the given order; others follow
    by name."""
    runs = records if isinstance(records, Mapping) else by_arm(records)
    return sorted(runs.items(), key=lambda item: (_rank(item[0], order), item[0]))


def by_setting(records: Sequence[Record]) -> dict[str, list[Record]]:
    """Records that can stand in one table: of the same data, model and training.

    Returns:
        The preset's own setting first, under ""; every other one under what it has otherwise, like
        ``headvocabulary+steps35000``. Where no record has the preset's own, the largest takes its place.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(json.dumps(_settings(record), sort_keys=True), []).append(record)
    ordered = sorted(groups.values(), key=lambda g: (all(r.config["variant"] for r in g), -len(g), g[0].path))
    return {_label(group[0], ordered[0][0]): group for group in ordered}


def _settings(record: Record) -> dict[str, Any]:
    """What is equal in one table, by its field's name; what stands in the arm's name need not be: the weight decay, and
    in the studies of limits the network."""
    found = {f"{part} {k}": v for part in ("data", "model", "training") for k, v in record.config[part].items()}
    experiment = record.config["experiment"]
    if experiment == "dynamics" or experiment.startswith("limits-"):
        del found["training weight_decay"]
    if experiment.startswith("limits-"):
        found.pop("model network", None)
    return found


def _label(record: Record, own: Record) -> str:
    mine, theirs = _settings(record), _settings(own)
    names = {k: k.split()[1].replace("_", "") for k in mine}
    return "+".join(names[k] if v is True else f"{names[k]}{v}" for k, v in mine.items() if theirs.get(k) != v)


def shared_variants(records: Sequence[Record]) -> list[str]:
    """The variants that all records have, in the order of the first."""
    return [t for t in records[0].config["variant"] if all(t in r.config["variant"] for r in records)]


def spread(values: Sequence[float], show: Callable[[float], str]) -> str:
    """``median [least, greatest]``; infinite reads "never", NaN is counted apart."""
    known = [v for v in values if not math.isnan(v)]
    missing = f" ({len(values) - len(known)} undefined)" if len(known) < len(values) else ""
    if not known:
        return "undefined"
    low, middle, high = ("never" if math.isinf(v) else show(v) for v in (min(known), median(known), max(known)))
    return (middle if low == high else f"{middle} [{low}, {high}]") + missing


def event_step(record: Record, name: str) -> float:
    """The step of an event of the summary, infinite where it did not come."""
    event = record.summary.get(name)
    return math.inf if event is None else float(event["step"])


def value_at_event(record: Record, name: str, column: str) -> float:
    """A column at the step of an event of the summary, NaN where it did not come."""
    event = record.summary.get(name)
    if event is None:
        return math.nan
    return float(record.column(column)[record.column("step").tolist().index(event["step"])])


def _rank(arm: str, order: Sequence[str]) -> int:
    """The place of the longest name in the order that `arm` is or begins with."""
    known = [name for name in order if f"{arm}+".startswith(f"{name}+")]
    return order.index(max(known, key=len)) if known else len(order)


def short(value: float) -> str:
    """Three digits; from a thousand on whole numbers."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def percent(share: float) -> str:
    """With one decimal."""
    return f"{100 * share:.1f} %"
