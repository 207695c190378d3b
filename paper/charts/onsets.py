"""Papers A and B in one figure: a run's curves, and when each quantity sets in against when generalisation does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokcore.style import BLUE, GREEN, ORANGE, PINK
from grokcore.training.record import Record
from grokcore.training.table import event_step
from paper.charts.look import VENUE
from paper.onsets import fall_onset, generalisation_onset

DRAWN = {
    "train_rnc1_mean": ("train RNC1", BLUE, "s"),
    "test_rnc1_mean": ("test RNC1", ORANGE, "^"),
    "train_nc1_trace_ratio": ("train NC1", PINK, "D"),
    "train_kappa_squared": ("train kappa (squared loss)", GREEN, "o"),
}
"""Words, colour and mark."""


def onsets_figure(records: Sequence[Record], shown: Record) -> Figure:
    """The curves of one run, and the onsets of all."""
    with rc_context(VENUE):
        figure = Figure(figsize=(7.0, 3.4))
        left, right = figure.subplots(1, 2)
        _curves(left, shown)
        _onsets(right, records)
    return figure


def _curves(axes: Axes, record: Record) -> None:
    """Falling quantities over their greatest value, and test accuracy, from step 1 on."""
    steps = record.column("step")
    seen = steps > 0
    for name, (words, colour, _) in DRAWN.items():
        values = record.column(name)[seen]
        axes.plot(steps[seen], values / np.nanmax(values), color=colour, lw=1.4, label=f"{words} / its maximum")
    axes.plot(steps[seen], record.column("test_accuracy")[seen], color="black", lw=1.4, ls="--", label="test accuracy")
    fitted = event_step(record, "tau_1")
    if np.isfinite(fitted):
        axes.axvline(fitted, color="0.4", lw=0.8, ls=":")
        axes.annotate("fit", (fitted, 1.0), (3, 6), textcoords="offset points", fontsize=7, color="0.3")
    axes.set(xscale="log", yscale="log", xlabel="optimiser step", ylim=(None, 2))
    axes.legend(loc="lower left")
    axes.set_title(f"{record.arm}, seed {record.config['seed']}")


def _onsets(axes: Axes, records: Sequence[Record]) -> None:
    seen = list[int]()
    for name, (words, colour, mark) in DRAWN.items():
        both = [(generalisation_onset(record), fall_onset(record, name)) for record in records]
        points = [(general.step, fall.step) for general, fall in both if general and fall]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=colour, marker=mark, ls="", ms=4, alpha=0.7, label=f"{words} ({len(points)} runs)")
            seen += [*x, *y]
    ends = (min(seen, default=1), max(seen, default=10))
    axes.plot(ends, ends, color="0.5", lw=0.9, ls="--")
    axes.annotate(
        "together", (ends[1], ends[1]), (-2, 4), textcoords="offset points", ha="right", fontsize=7, color="0.3"
    )
    axes.set(xscale="log", yscale="log", xlabel="onset of generalisation (step)", ylabel="onset of the fall (step)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
    axes.set_title("below the line: falls before generalisation")
