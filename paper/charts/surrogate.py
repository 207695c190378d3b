"""The published surrogate against the exact kappa, over all runs that log both: K - 1 times, and where it is more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from grokcore.style import BLUE, GREEN, ORANGE
from grokcore.training.record import Record
from paper.charts.collapse_curve import classes_of
from paper.charts.look import PAGE, VENUE

KINDS = {
    "x + y mod 97, MLP": (ORANGE, "o", lambda r: r.config["preset"] == "quick"),
    "x + y mod 97, transformer": (GREEN, "^", lambda r: r.config["preset"] in ("transformer", "paper")),
    "CIFAR-10, ResNet-18": (BLUE, "s", lambda r: r.config["experiment"] == "cifar10"),
}
SHOWN = 1e-8
"""Below this kappa is a saturated head's, and left out."""


def surrogate_chart(records: Sequence[Record]) -> Figure:
    """Every measured row of every run (train set, from the second on), each run's last one with an edge. Left: one
    against the other. Right: their ratio over K - 1, against CDNV."""
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 2.9))
        left, right = figure.subplots(1, 2)
        times = list[NDArray[np.float64]]()
        for words, (colour, mark, belongs) in KINDS.items():
            runs = [record for record in records if belongs(record)]
            times += [_points(left, right, run, colour, mark) for run in runs]
            left.plot([], [], color=colour, marker=mark, ls="", ms=4, label=f"{words} ({len(runs)} runs)")
        span = np.array([SHOWN, 1e5])
        for k, dashes in ((10, "-"), (97, "--")):
            left.plot(span, (k - 1) * span, color="black", ls=dashes, lw=0.9, label=f"K - 1 = {k - 1} times")
        left.plot(span, span, color="0.5", ls=":", lw=0.9, label="equal (C1: never below)")
        left.set(xscale="log", yscale="log", xlabel="exact $\\kappa$, train", ylabel="published surrogate, train")
        left.legend(loc="upper left", fontsize=6.5)
        low, high = (float(end(np.concatenate(times))) for end in (np.min, np.max))
        right.axhline(1, color="black", lw=0.9)
        right.set(xscale="log", yscale="log", xlabel="CDNV, train (low: collapsed)",
                  ylabel="surrogate / $((K-1)\\,\\kappa)$")  # fmt: skip
        ticks = [tick for tick in (0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100) if 0.9 * low < tick < high]
        right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        right.set_ylim(0.9 * low, 1.05 * high)
        right.minorticks_off()
        for axes in (left, right):
            axes.set_rasterization_zorder(1)
    return figure


def _points(left: Axes, right: Axes, run: Record, colour: str, mark: str) -> NDArray[np.float64]:
    """Returns surrogate / ((K-1) kappa) of the rows."""
    kappa, surrogate, cdnv = (run.column(f"train_{n}")[1:] for n in ("kappa", "frobenius_surrogate", "cdnv"))
    seen = kappa > SHOWN
    times = surrogate[seen] / kappa[seen] / (classes_of(run) - 1)
    for axes, x, y in ((left, kappa[seen], surrogate[seen]), (right, cdnv[seen], times)):
        axes.plot(x, y, color=colour, marker=mark, ms=2, ls="", alpha=0.25, mew=0, zorder=0)
        axes.plot(x[-1:], y[-1:], color=colour, marker=mark, ms=4, ls="", mec="black", mew=0.4, zorder=2)
    return times
