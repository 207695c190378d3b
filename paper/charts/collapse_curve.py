"""The theorem as a curve: kappa at collapse (theory B1), the published bound, what that loses, and measured runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokcore.style import BLUE, GREEN, ORANGE
from grokcore.training.record import Record
from paper.charts.look import PAGE, VENUE
from theory.formulas import kappa_at_collapse, loss_of_published_bound

CLASSES = {2: (GREEN, ":"), 10: (BLUE, "-"), 97: (ORANGE, "--")}
"""Numbers of classes, how they are drawn: two, CIFAR-10's and the modular task's."""
MARKS = {"baseline": "o", "ncc_encourage": "v", "ncc_prevent": "^"}
GAPS = (0.2, 30.0)


def collapse_curve_chart(records: Sequence[Record]) -> Figure:
    """Left: kappa / (1 + gamma^2) against the logit gap, curves of B1 and the published bound, and each run's last row
    on the train set. Right: how many times the published bound is the value, and the runs' kappa over the curve's value
    at their own gap and gamma, against CDNV.

    Args:
        records: runs with the column ``train_kappa_collapse_curve``.
    """
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 2.6))
        curve, factor, off = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
        gaps = np.geomspace(*GAPS, 400)
        for k, (colour, dashes) in CLASSES.items():
            value, loss = kappa_at_collapse(gaps, k), loss_of_published_bound(gaps, k)
            curve.plot(gaps, value, color=colour, ls=dashes, lw=1.4, label=f"K = {k}")
            curve.plot(gaps, value * loss, color=colour, ls=dashes, lw=0.7, alpha=0.6)
            factor.plot(gaps, loss, color=colour, ls=dashes, lw=1.4, label=f"K = {k}")
        curve.plot([], [], color="0.4", lw=0.7, label="thin: published bound")
        for arm, mark in MARKS.items():
            runs = [record for record in records if record.arm == arm]
            for run in runs:
                colour = CLASSES[classes_of(run)][0]
                gap, scaled, ratio = last_of(run)
                look = {"color": colour, "marker": mark, "ls": "", "ms": 4.5, "mec": "black", "mew": 0.5}
                curve.plot([gap], [scaled], **look)
                off.plot([run.final("train_cdnv")], [ratio], **look)
            if runs:
                off.plot([], [], color="0.7", marker=mark, ls="", mec="black", mew=0.5, ms=4.5, label=arm)
        _axes(curve, factor, off)
    return figure


def classes_of(record: Record) -> int:
    """K of a run's data."""
    return int(record.config["data"].get("p", 10))


def last_of(record: Record) -> tuple[float, float, float]:
    """Of the last row on the train set: the logit gap, kappa / (1 + gamma^2), kappa over the curve."""
    kappa, gamma = record.final("train_kappa"), record.final("train_global_mean_ratio")
    return record.final("train_logit_gap"), kappa / (1 + gamma**2), kappa / record.final("train_kappa_collapse_curve")


def _axes(curve: Axes, factor: Axes, off: Axes) -> None:
    curve.set(xscale="log", yscale="log", xlim=GAPS, ylim=(1e-5, 1e5), xlabel="logit gap $\\Delta$ (nats)",
              ylabel="$\\kappa\\,/\\,(1+\\gamma^2)$")  # fmt: skip
    curve.set_title("value at collapse; runs (marks)")
    curve.legend(loc="lower left")
    factor.set(xscale="log", yscale="log", xlim=GAPS, xlabel="logit gap $\\Delta$ (nats)", ylabel="bound / value")
    factor.set_title("what the published bound loses")
    factor.legend(loc="upper left")
    off.axhline(1, color="0.5", lw=1.2)
    off.set(xscale="log", yscale="log", xlabel="CDNV, train (low: collapsed)",
            ylabel="$\\kappa$ / curve at its $\\Delta$, $\\gamma$")  # fmt: skip
    off.set_title("runs over the curve")
    low, high = off.get_ylim()
    off.set_ylim(low, 100 * high)  # room for the legend
    off.legend(loc="upper left")
    for axes in (curve, off):
        axes.minorticks_off()
