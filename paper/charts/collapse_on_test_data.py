"""Test collapse: paper C's V along training, of train data and of test data about three kinds of means; its floor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from grokcore.style import BLUE, GREEN, ORANGE, PINK
from grokcore.training.collapse_verdict import FLOOR, STRONG, THRESHOLDS, WEAK, verdict
from grokcore.training.record import Record
from paper.charts.look import PAGE, VENUE

DRAWN = {
    "train_nc1_trace_ratio": ("train", BLUE, "-"),
    "test_nc1_trace_ratio": ("test, about the test means", GREEN, "-."),
    STRONG: ("test, about the train means", ORANGE, "-"),
    WEAK: ("test, about the train means of the predicted class", PINK, "--"),
}
"""Words, colour and line."""
ACROSS = 3


def collapse_on_test_data_figure(runs: Mapping[str, Sequence[Record]]) -> Figure:
    """A panel for each data set and model: medians over the seeds, each seed faint behind."""
    down = math.ceil(len(runs) / ACROSS)
    across = min(ACROSS, len(runs))
    with rc_context(VENUE):
        spare = down * across - len(runs)
        figure = Figure(figsize=(PAGE, 2.1 * down + 0.9 * (spare < 2)))
        panels = figure.subplots(down, across, squeeze=False).flatten()
        for axes, (name, records) in zip(panels, runs.items(), strict=False):
            _panel(axes, records)
            axes.set_title(f"{name}\n{_verdict(records)}", fontsize=7.5)
        for axes in panels[len(runs) :]:
            axes.set_axis_off()
        for row in range(down):
            panels[row * across].set_ylabel("V")
        handles, labels = panels[0].get_legend_handles_labels()
        if spare < 2:
            figure.legend(handles, labels, loc="outside lower center", ncols=2)
        else:  # room for it between the panels
            panels[-1].legend(handles, labels, loc="center right").set_in_layout(False)
    return figure


def _panel(axes: Axes, records: Sequence[Record]) -> None:
    steps = records[0].column("step")
    seen = steps > 0
    for name, (words, colour, line) in DRAWN.items():
        curves = np.array([record.column(name)[seen] for record in records])
        if len(curves) > 1:
            axes.plot(steps[seen], curves.T, color=colour, ls=line, lw=0.5, alpha=0.35)
        axes.plot(steps[seen], np.median(curves, axis=0), color=colour, ls=line, lw=1.5, label=words)
    floor = np.median([record.column(FLOOR)[seen] for record in records], axis=0)
    axes.fill_between(steps[seen], floor, 1e-9, color="0.85", lw=0, label="floor: what errors alone cost (F2)")
    axes.axhline(THRESHOLDS.below, color="0.4", lw=0.8, ls=":", label=f"threshold of the verdict, {THRESHOLDS.below:g}")
    values = np.concatenate([record.column(name)[seen] for record in records for name in DRAWN])
    values = values[np.isfinite(values) & (values > 0)]
    least = max(min(values.min(), THRESHOLDS.below) / 2, 1e-6)
    axes.set(xscale="log", yscale="log", xlabel="optimiser step", ylim=(least, values.max() * 2))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _verdict(records: Sequence[Record]) -> str:
    found = verdict(records)
    if found.word == "undecided":
        return f"{len(records)} seed{'s' * (len(records) > 1)}: no verdict"
    return f"test collapse: {found.word}"
