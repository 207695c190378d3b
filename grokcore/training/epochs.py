"""What a run of so many epochs says: its summary, and the table of several; its rows have the column ``epoch``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from grokcore.training.milestones import LEVEL, passes
from grokcore.training.record import Record
from grokcore.training.table import arms_in_order, percent, short, spread

HEADER = (
    "arm",
    "seeds",
    "fit: train 99 % at epoch",
    "final train accuracy (%)",
    "final test accuracy (%)",
    "best test accuracy (%)",
    "final train kappa",
    "final train surrogate",
    "final train CDNV",
    "final test CDNV",
)


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a finished run's rows.

    Keys: ``train_99``: the measured step at which train accuracy passes 99 % and the one before it, or None; ``best``:
    the row's step, epoch and test accuracy where that is greatest; ``final``: the last row; ``words``: sentences.
    """
    steps = np.array([row["step"] for row in rows])
    fit = passes(steps, np.array([row["train_accuracy"] for row in rows]), LEVEL)
    best = max(rows, key=lambda row: row["test_accuracy"])
    return {
        "train_99": None if fit is None else {"step": fit.step, "after": fit.after},
        "best": {name: best[name] for name in ("step", "epoch", "test_accuracy")},
        "final": dict(rows[-1]),
        "words": _words(rows, None if fit is None else _epoch_of(rows, fit.step), best),
    }


def comparison(records: Sequence[Record], order: Sequence[str] = ()) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`: median and [least, greatest] over the seeds of each arm.

    Args:
        records: finished runs of one preset.
        order: arms in the order wanted; others follow by name.
    """
    rows: list[tuple[str, ...]] = []
    for arm, runs in arms_in_order(records, order):
        finals = [[r.final(name) for r in runs] for name in ("train_kappa", "train_frobenius_surrogate")]
        finals += [[r.final(f"{split}_cdnv") for r in runs] for split in ("train", "test")]
        rows.append(
            (
                arm,
                " ".join(str(r.config["seed"]) for r in runs),
                spread([_fit(r) for r in runs], lambda v: f"{v:g}"),
                spread([100 * r.final("train_accuracy") for r in runs], lambda v: f"{v:.1f}"),
                spread([100 * r.final("test_accuracy") for r in runs], lambda v: f"{v:.1f}"),
                spread([100 * float(np.nanmax(r.column("test_accuracy"))) for r in runs], lambda v: f"{v:.1f}"),
                *(spread(values, short) for values in finals),
            )
        )
    return rows


def _fit(record: Record) -> float:
    event = record.summary.get("train_99")
    if event is None:
        return math.inf
    return float(record.column("epoch")[record.column("step").tolist().index(event["step"])])


def _epoch_of(rows: Sequence[dict[str, Any]], step: int) -> float:
    return float(next(row["epoch"] for row in rows if row["step"] == step))


def _words(rows: Sequence[dict[str, Any]], fit: float | None, best: dict[str, Any]) -> list[str]:
    last = rows[-1]
    passed = "never passes 99 %" if fit is None else f"passes 99 % at epoch {fit:g}"
    kappa, surrogate = last["train_kappa"], last["train_frobenius_surrogate"]
    times = f", {surrogate / kappa:.3g} times as much" if kappa > 0 else ""
    return [
        f"train accuracy {passed} and ends at {percent(last['train_accuracy'])}; test accuracy ends at "
        f"{percent(last['test_accuracy'])} (its best: {percent(best['test_accuracy'])} at epoch {best['epoch']:g})",
        f"train kappa ends at {kappa:.3g}, the published surrogate at {surrogate:.3g}{times}; "
        f"test kappa at {last['test_kappa']:.3g}",
        f"train CDNV ends at {last['train_cdnv']:.3g}, test CDNV at {last['test_cdnv']:.3g}; the train class means' "
        f"angles lie between {last['train_angle_least']:.0f} and {last['train_angle_greatest']:.0f} degrees",
    ]
