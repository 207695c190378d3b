"""The two clocks against weight decay: every run's events, censored ones as arrows, the law fitted and predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from grokcore.style import BLUE, GREY, ORANGE, PINK
from grokcore.training.record import Record
from paper.charts.look import VENUE
from paper.clock_law import PREDICTED, decay_of, event_of, everywhere_reached, fitted, law
from paper.law_table import CLOCK_WORDS

CLOCKS = {"tau_1": (GREY, "o", 0.94), "tau_2": (BLUE, "s", 1.0), "tau_2_test": (ORANGE, "^", 1.06)}
"""Colour, mark, and the factor by which marks are set beside each other."""


def clocks_figure(groups: dict[str, Sequence[Record]]) -> Figure:
    """A panel a group of runs that differ in seed and weight decay alone, by its title."""
    with rc_context(VENUE):
        figure = Figure(figsize=(3.5 * len(groups), 3.6))
        panels = figure.subplots(1, len(groups), squeeze=False)[0]
        for axes, (title, records) in zip(panels, groups.items(), strict=True):
            _panel(axes, records)
            axes.set_title(title)
        panels[0].set_ylabel("optimiser step")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _panel(axes: Axes, records: Sequence[Record]) -> None:
    decays = sorted({decay_of(record) for record in records} - {0.0})
    without = decays[0] / 3  # where runs without decay are drawn
    end = max(r.final("step") for r in records)
    for name, (colour, mark, beside) in CLOCKS.items():
        events = [event_of(record, name) for record in records]
        came = [((event.decay or without) * beside, max(event.step, 1)) for event in events if not event.censored]
        axes.plot(
            [x for x, _ in came], [y for _, y in came], color=colour, marker=mark, ls="", ms=4, alpha=0.8,
            label=CLOCK_WORDS[name],
        )  # fmt: skip
        censored = [(event.decay or without) * beside for event in events if event.censored]
        # Counts of two events at one decay stand side by side.
        aside, points = ("left", 1.5) if beside > 1 else ("right", -1.5)
        for x in sorted(set(censored)):
            axes.annotate(
                "", (x, end * 1.9), (x, end * 1.25), annotation_clip=False,
                arrowprops={"arrowstyle": "->", "color": colour, "lw": 1, "shrinkA": 0},
            )  # fmt: skip
            axes.annotate(
                f"{censored.count(x)}", (x, end * 1.25), (points, 0), textcoords="offset points",
                ha=aside, va="bottom", fontsize=6.5, color=colour, annotation_clip=False,
            )  # fmt: skip
    _lines(axes, records)
    left = decays[0]
    if any(decay_of(record) == 0 for record in records):
        left = without
        axes.axvline(math.sqrt(without * decays[0]), color="0.7", lw=0.8)
        axes.text(without, 0.5, "no decay", rotation=90, ha="center", va="top", fontsize=6.5, color="0.3",
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.axhline(end, color="0.5", lw=0.8, ls=":")
    earliest = min(max(event_of(record, name).step, 1) for name in CLOCKS for record in records)
    axes.set(
        xscale="log", yscale="log", xlabel="weight decay", xlim=(left / 1.6, decays[-1] * 1.6),
        ylim=(min(earliest, end) / 4, end * 3),
    )  # fmt: skip
    axes.xaxis.set_minor_formatter(NullFormatter())


def _lines(axes: Axes, records: Sequence[Record]) -> None:
    """The fit over its decays, if they are enough for one, and the predicted slope through its middle: to the decays at
    which tau_2 came in every run, if they are three or more."""
    chosen = fitted(records)
    reached = everywhere_reached(chosen)
    if len({decay_of(record) for record in reached}) >= 3:
        chosen = reached
    try:
        found = law([event_of(record) for record in chosen])
    except ValueError:
        return
    over = sorted({decay_of(record) for record in chosen} - {0.0})
    grid = np.geomspace(over[0] / 1.2, over[-1] * 1.2, 50)
    axes.plot(grid, found.tau(grid), color=BLUE, lw=1.3, label="fit of train RNC1")
    axes.text(0.04, 0.05, f"slope {found.words}", transform=axes.transAxes, color=BLUE)
    middle = math.sqrt(over[0] * over[-1])
    predicted = found.tau(middle) * (grid / middle) ** PREDICTED
    axes.plot(grid, predicted, color=PINK, lw=1.1, ls="--", label=f"slope {PREDICTED:g} (predicted)")
