"""The published measurement of kappa beside the exact one, and the quantities that papers A and B time, in one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from grokcore.style import BLUE, GREEN, ORANGE
from grokcore.training.record import Record
from paper.charts.look import PAGE, VENUE, seeds_of
from paper.timing import FLOOR, STARTED, curve, events

PANELS = (
    {"train_kappa": "kappa", "train_published_product": "published", "test_kappa": "kappa, test"},
    {"train_frobenius_surrogate": "surrogate", "train_published_product_variance": "its variance form"},
    {"train_cdnv": "CDNV", "train_within_class_variance": "within", "train_inverse_distance": "1 / distance²"},
    {"train_rnc1_sup": "RNC1, sup", "train_rnc1_mean": "mean norm"},
    {"train_loss": "train loss"},
)
"""The quantities of each panel after the accuracies', and what they are called there."""
LINES = ((BLUE, "-"), (ORANGE, (0, (4, 1.6))), (GREEN, (0, (5, 1.2, 1, 1.2))))
FIRST_STEP = 10


def timing_figure(name: str, runs: Sequence[Record]) -> Figure:
    """Accuracy, and each quantity on the train set as a share of its maximum, against log step.

    Args:
        name: the set-up.
        runs: its runs, measured at the same steps; each seed is a thin line, their median a bold one. The fit is a
            dotted line and the time from test accuracy STARTED to 99 % a shade, for every seed.
    """
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 4.1))
        accuracy, *others = figure.subplots(2, 3, sharex=True).flat
        for index, split in enumerate(("train", "test")):
            _curves(accuracy, runs, f"{split} accuracy", [run.column(f"{split}_accuracy") for run in runs], index)
        accuracy.set_ylim(-0.02, 1.03)
        accuracy.yaxis.set_major_formatter(PercentFormatter(1.0))
        for axes, quantities in zip(others, PANELS, strict=True):
            for index, (quantity, label) in enumerate(quantities.items()):
                found = [curve(run, quantity) for run in runs]
                shares = [values / np.nanmax(values) for values in found if np.isfinite(values).any()]
                _curves(axes, runs, label, shares, index)
            axes.set_yscale("log")
            axes.set_ylim(FLOOR / 2, 2)
        for axes in (accuracy, *others):
            _mark(axes, runs)
            axes.set_xscale("log")
            axes.set_xlim(FIRST_STEP, runs[0].config["training"]["steps"])
            axes.set_title(" ")  # room for the legend
            legend = axes.legend(
                loc="lower left",
                bbox_to_anchor=(-0.04, 0.97),
                ncols=3,
                handlelength=1.6,
                columnspacing=0.7,
                handletextpad=0.4,
                fontsize=6.5,
            )
            legend.set_in_layout(False)
        for axes in (others[0], others[2]):
            axes.set_ylabel("share of its maximum")
        for axes in others[-3:]:
            axes.set_xlabel("optimiser step")
        shade = f"shaded: test accuracy {100 * STARTED:g} to 99 %"
        figure.suptitle(f"{name}; {seeds_of(runs)}; train set but where said\ndotted: the fit; {shade}", fontsize=8.5)
    return figure


def _curves(axes: Axes, runs: Sequence[Record], label: str, curves: Sequence[np.ndarray], line: int) -> None:
    colour, dashes = LINES[line]
    shown = (steps := runs[0].column("step")) >= FIRST_STEP
    for values in curves if len(curves) > 1 else ():
        axes.plot(steps[shown], values[shown], color=colour, lw=0.6, ls=dashes, alpha=0.6)
    if curves:
        median = np.median(np.stack(curves), axis=0)
        axes.plot(steps[shown], median[shown], color=colour, lw=1.7, ls=dashes, label=label)


def _mark(axes: Axes, runs: Sequence[Record]) -> None:
    for run in runs:
        seen = events(run)
        if seen.fit is not None:
            axes.axvline(seen.fit.step, color="0.35", lw=0.9, ls=":")
        if seen.starts is not None:
            end = seen.done.step if seen.done else run.config["training"]["steps"]
            axes.axvspan(seen.starts.after, end, color="0.5", alpha=0.3 / len(runs), lw=0)
