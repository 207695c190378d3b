"""The release beside its controls: what goes on from the same checkpoint with and without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from grokcore.training.record import Record
from paper.charts.look import PAGE, VENUE, arm_look, band, seeds_of
from paper.recorded import by_full_name

QUANTITIES = {
    "test_accuracy": "test accuracy",
    "train_kappa": "exact $\\kappa$, train",
    "train_cdnv": "CDNV, train",
}
WORDS = {
    "baseline": "baseline (trunk)",
    "control_schedule": "baseline, new schedule alone",
    "flatness_prevent": "flatness_prevent (trunk)",
    "flatness_release": "flatness_prevent, released",
}


def release_chart(groups: Mapping[str, Sequence[Record]]) -> Figure:
    """A row for each set-up: two trunks, and what is forked from each at the dotted line; median and range over seeds.

    Args:
        groups: runs by set-up, trunks and forks.
    """
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 1.75 * len(groups) + 0.6))
        grid = figure.subplots(len(groups), len(QUANTITIES), squeeze=False)
        for axes, title in zip(grid[0], QUANTITIES.values(), strict=True):
            axes.set_title(title)
        for (words, records), row in zip(groups.items(), grid, strict=True):
            for axes, name in zip(row, QUANTITIES, strict=True):
                _panel(axes, records, name)
            row[0].set_ylabel(f"{words}\n{seeds_of(records)}")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _panel(axes: Axes, records: Sequence[Record], name: str) -> None:
    against = "epoch" if "epoch" in records[0].columns else "step"
    lowest = list[float]()
    for arm, runs in by_full_name(records).items():
        fork = runs[0].config.get("fork")
        at, steps = runs[0].column(against), runs[0].column("step")
        # A fork's rows before its step are its trunk's; it is drawn from the last of them.
        seen = steps >= steps[steps <= fork["step"]].max() if fork else steps > 0
        curves = [run.column(name)[seen] for run in runs]
        band(axes, at[seen], curves, lw=1.3, label=WORDS[arm.split("+")[0]], **arm_look(arm))
        lowest += [float(np.median(curves, axis=0).min())]
        if fork:
            axes.axvline(np.interp(fork["step"], steps, at), color="0.4", lw=0.8, ls=":")
    axes.set(xlabel="optimiser step" if against == "step" else against, xlim=(0, None))
    if name.endswith("accuracy"):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    else:
        axes.set_yscale("log")
        axes.set_ylim(min(lowest) / 3, None)
