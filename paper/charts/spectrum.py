"""The spectrum of the head's Hessian at collapse: the eigenvalues of B5 with multiplicities, and the computed ones."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from grokcore.style import BLUE, ORANGE
from paper.charts.look import PAGE, VENUE
from theory.numeric.collapse_spectrum import hessian_spectrum, spectrum_at_collapse
from theory.numeric.configurations import collapsed

CLASSES, WIDTH, GAPS = 6, 8, (1.0, 3.0, 6.0)
MEAN = 0.5
"""||mu_G|| of the lower row; M = 1."""
DIGITS = 6
"""Of a computed eigenvalue are drawn: the rest differs from one processor to the next."""


def spectrum_chart() -> Figure:
    """A panel for each gap and global mean: the K m computed eigenvalues by rank, and B5's as bars over their ranks."""
    with rc_context(VENUE):
        figure = Figure(figsize=(PAGE, 3.5))
        grid = figure.subplots(2, len(GAPS), sharex=True)
        for row, mean in zip(grid, (0.0, MEAN), strict=True):
            for axes, gap in zip(row, GAPS, strict=True):
                _panel(axes, gap, mean)
            row[0].set_ylabel(f"eigenvalue\n$\\|\\mu_G\\| = {mean:g}$")
        for axes in grid[-1]:
            axes.set_xlabel("rank")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        figure.suptitle(f"K = {CLASSES}, m = {WIDTH}, M = 1; numbers: multiplicities", fontsize=8.5)
    return figure


def _panel(axes: Axes, gap: float, mean: float) -> None:
    head = collapsed(0, K=CLASSES, m=WIDTH, gap=gap, radius=1.0, gamma=mean)
    values, counts = spectrum_at_collapse(gap, CLASSES, WIDTH, radius=1.0, mean_norm=mean)
    order = np.argsort(-values)
    ends = np.cumsum(counts[order])
    largest, zeros = float(values.max()), int(counts[-1])
    for value, count, end in zip(values[order], counts[order], ends, strict=True):
        if value > 0:
            low, high = end - count + 0.5, end + 0.5
            axes.plot([low, high], [value, value], color=ORANGE, lw=5, alpha=0.45, solid_capstyle="butt",
                      label="theory B5" if end == ends[0] else None)  # fmt: skip
            axes.annotate(f"{count}", ((low + high) / 2, value), (0, 5), textcoords="offset points", ha="center",
                          fontsize=7, color="0.25")  # fmt: skip
    found = np.array([float(f"{value:.{DIGITS}g}") for value in hessian_spectrum(head)])
    seen = found > 1e-12 * largest
    ranks = np.arange(1, len(found) + 1)
    axes.plot(ranks[seen], found[seen], color=BLUE, marker=".", ms=3.5, ls="", label="exact Hessian, eigenvalues")
    least = float(found[seen].min())
    axes.set(yscale="log", ylim=(least / 6, largest * 6))
    rest = int((~seen).sum())
    axes.annotate(f"{rest} zeros (B5: {zeros})", (0.97, 0.05), xycoords="axes fraction", ha="right", fontsize=7,
                  color="0.25")  # fmt: skip
    axes.set_title(f"$\\Delta = {gap:g}$")
    axes.minorticks_off()
