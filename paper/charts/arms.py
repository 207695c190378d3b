"""The arms and their controls: accuracy, CDNV, exact kappa and the published surrogate along training."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from grokcore.training.record import Record
from paper.charts.look import PAGE, VENUE, arm_look, band, seeds_of
from paper.recorded import by_full_name

QUANTITIES = {
    "test_accuracy": "test accuracy",
    "train_cdnv": "CDNV, train",
    "train_kappa": "exact $\\kappa$, train",
    "train_frobenius_surrogate": "surrogate, train",
}
FAMILIES = {"ncc": "collapse", "flatness": "flatness", "control": "controls"}
"""Rows, by how the names of their arms begin."""
DEEPEST = 1e-8
"""Of the greatest value: a saturated head's kappa goes further down, and says no more there."""


def arms_chart(records: Sequence[Record], *, words: str) -> Figure:
    """A row for each family of arms, the baseline in black in each: median and range over seeds.

    Against log step for grokking, the epoch for CIFAR-10.

    Args:
        records: runs of one preset.
        words: the set-up, for the title.
    """
    runs = by_full_name(records)
    epochs = "epoch" in records[0].columns
    families = {start: name for start, name in FAMILIES.items() if any(arm.startswith(start) for arm in runs)}
    with rc_context(VENUE | {"font.size": 7.5}):
        figure = Figure(figsize=(PAGE, 1.35 * max(len(families), 1) + 0.95))
        grid = figure.subplots(max(len(families), 1), len(QUANTITIES), sharex=True, sharey="col", squeeze=False)
        for row, (start, family) in zip(grid, (families or {"baseline": ""}).items(), strict=True):
            shown = [arm for arm in runs if arm.split("+")[0] == "baseline" or arm.startswith(start)]
            for axes, name in zip(row, QUANTITIES, strict=True):
                for arm in shown:
                    _arm(axes, arm, runs[arm], name, epochs=epochs)
            row[0].set_ylabel(family)
        for axes, (name, title) in zip(grid[0], QUANTITIES.items(), strict=True):
            axes.set_title(title)
            if name.endswith("accuracy"):
                axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            else:
                axes.set_yscale("log")
                low, high = axes.get_ylim()
                axes.set_ylim(max(low, DEEPEST * high), high)
        end = records[0].config["training"]["epochs" if epochs else "steps"]
        for axes in grid[-1]:
            axes.set_xlabel("epoch" if epochs else "optimiser step")
            axes.set(xscale="linear" if epochs else "log", xlim=(0 if epochs else end / 100, end))
        named = {
            label: line for axes in grid[:, 0] for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5, columnspacing=1.2)
        figure.suptitle(f"{words}; {seeds_of(records)}: median and range", fontsize=8.5)
    return figure


def _arm(axes: Axes, arm: str, runs: Sequence[Record], name: str, *, epochs: bool) -> None:
    at = runs[0].column("epoch" if epochs else "step")
    seen = (at > 0) | epochs
    band(axes, at[seen], [run.column(name)[seen] for run in runs], lw=1.2, label=arm, **arm_look(arm))
