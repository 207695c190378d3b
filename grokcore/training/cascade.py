"""What a run says of the cascade of collapse through its layers (paper C): its summary, and the table of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from grokcore.training.record import Record
from grokcore.training.table import arms_in_order, short, spread

HEADER = (
    "run", "seeds", "layer", "train V: first to last measured step", "test V (train means)", "train CDNV",
    "nearest train mean, train (%)", "nearest train mean, test (%)",
)  # fmt: skip


def layers_of(columns: Sequence[str]) -> tuple[str, ...]:
    """The layers that a row's columns name, first to last."""
    start = "train_variance_ratio/"
    return tuple(name.removeprefix(start) for name in columns if name.startswith(start))


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary of a finished run's rows: ``final`` and ``words``."""
    first, last = rows[0], rows[-1]
    layers = layers_of(list(last))
    ratios = [last[f"train_variance_ratio/{layer}"] for layer in layers]
    falls = sum(later < earlier for earlier, later in pairwise(ratios))
    return {
        "final": dict(last),
        "words": [
            "train V of the layers, first to last, at the start: "
            + ", ".join(f"{first[f'train_variance_ratio/{layer}']:.3g}" for layer in layers),
            "at the end: " + ", ".join(f"{ratio:.3g}" for ratio in ratios)
            + f"; {falls} of {len(layers) - 1} layers have less than the one before",
            "nearest train mean, test set: "
            + ", ".join(f"{100 * last[f'test_nearest_mean_accuracy/{layer}']:.0f} %" for layer in layers),
        ],
    }  # fmt: skip


def comparison(
    records: Sequence[Record] | Mapping[str, list[Record]], order: Sequence[str] = ()
) -> list[tuple[str, ...]]:
    """Rows under :data:`HEADER`, one a layer: median and [least, greatest] over the seeds, at the end."""
    rows = []
    for arm, runs in arms_in_order(records, order):
        for layer in layers_of(runs[0].columns):
            first = spread([float(r.column(f"train_variance_ratio/{layer}")[0]) for r in runs], short)
            last = spread([r.final(f"train_variance_ratio/{layer}") for r in runs], short)
            accuracies = [
                [100 * r.final(f"{split}_nearest_mean_accuracy/{layer}") for r in runs] for split in ("train", "test")
            ]
            rows.append(
                (
                    arm,
                    " ".join(str(r.config["seed"]) for r in runs),
                    layer,
                    f"{first} to {last}",
                    spread([r.final(f"test_variance_ratio/{layer}") for r in runs], short),
                    spread([r.final(f"train_cdnv/{layer}") for r in runs], short),
                    *(spread(values, lambda v: f"{v:.1f}") for values in accuracies),
                )
            )
    return rows
