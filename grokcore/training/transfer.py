"""What a run that learns super-classes says of transfer to the fine ones (paper C): its summary, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grokcore.training.record import Record
from grokcore.training.table import arms_in_order, percent, short, spread

HEAD = "head_input"
"""The place of the features that enter the head, beside layers."""
HEADER = (
    "run", "seeds", "super-classes: test accuracy (%)", "train V", "test V", "train CDNV",
    "probe on the train images (%)", "ceiling at collapse (F3, %)", "transfer to test images (%)",
    "probe on fresh images (%)", "best earlier layer: transfer (%)", "I(Z;Y|S) at most, train (nats)",
)  # fmt: skip


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a finished run's rows: ``best``, the row's step and accuracy where transfer from the head's input
    is greatest; ``final`` and ``words``."""
    last, column = rows[-1], f"probe_transfer/{HEAD}"
    best = max(rows, key=lambda row: row[column])
    name, earlier = best_earlier(last)
    return {
        "best": {"step": best["step"], "accuracy": best[column]},
        "final": dict(last),
        "words": [
            f"super-classes: train accuracy ends at {percent(last['train_accuracy'])}, test accuracy at "
            f"{percent(last['test_accuracy'])}; V at {last['train_variance_ratio']:.3g} (train) and "
            f"{last['test_variance_ratio']:.3g} (test)",
            f"a probe of the fine classes reads {percent(last[f'probe_train/{HEAD}'])} off the train images' last "
            f"features (at exact collapse at most {percent(last['ceiling'])}), {percent(last[column])} of the test "
            f"images right, {percent(last[f'probe_fresh/{HEAD}'])} fitted on images that the model has not seen",
            f"transfer was greatest, {percent(best[column])}, at step {best['step']:,}; at the end {name} gives "
            f"{percent(earlier)}",
        ],
    }


def best_earlier(row: Mapping[str, Any]) -> tuple[str, float]:
    """The layer before the head's input with the best transfer in a row, and its accuracy."""
    start = "probe_transfer/"
    found = {
        name.removeprefix(start): value
        for name, value in row.items()
        if name.startswith(start) and not name.endswith(f"/{HEAD}") and value is not None
    }
    name = max(found, key=lambda each: found[each])
    return name, float(found[name])


def comparison(
    records: Sequence[Record] | Mapping[str, list[Record]], order: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`: median and [least, greatest] over the seeds of each arm, at the end."""
    rows = []
    for arm, runs in arms_in_order(records, order):
        finals = [{name: r.final(name) for name in r.columns} for r in runs]
        percents = [
            [100 * final[name] for final in finals]
            for name in (f"probe_train/{HEAD}", "ceiling", f"probe_transfer/{HEAD}", f"probe_fresh/{HEAD}")
        ]
        percents.append([100 * best_earlier(final)[1] for final in finals])
        rows.append(
            (
                arm,
                " ".join(str(r.config["seed"]) for r in runs),
                spread([100 * r.final("test_accuracy") for r in runs], lambda v: f"{v:.1f}"),
                *(
                    spread([r.final(name) for r in runs], short)
                    for name in ("train_variance_ratio", "test_variance_ratio", "train_cdnv")
                ),
                *(spread(values, lambda v: f"{v:.1f}") for values in percents),
                spread([r.final("train_information_logdet_1") for r in runs], short),
            )
        )
    return rows
