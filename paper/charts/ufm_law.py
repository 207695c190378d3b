"""The flatness of the unconstrained-features model: the laws D1, D4 and D5, and what an optimiser finds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from grokcore.style import BLUE, GREEN, ORANGE
from paper.charts.look import COLUMN, VENUE
from theory.formulas import kappa_of_ufm
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.ufm import FreeFeatures, balanced
from theory.squared_loss import kappa_of_rank

CLASSES, SAMPLES, SMOOTHING = 4, 2, 0.1
DECAYS = (1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 4e-2, 8e-2, 0.12, 0.16, 0.2)
"""L = sqrt(n l_W l_H) where the optimiser is run; 1/K = 0.25."""
DIGITS = 6
"""Of an optimised number are drawn: the rest differs from one processor to the next."""


def ufm_law_chart() -> Figure:
    """kappa of global minimisers against L: curves by formula, marks from random starts and the exact Hessian."""
    edge = 1 / CLASSES
    grid = np.concatenate([np.geomspace(DECAYS[0] / 2, 0.9 * edge, 300), np.linspace(0.9 * edge, edge, 50)])
    smoothed = f"cross-entropy, smoothing {SMOOTHING:g} (D4)"
    with rc_context(VENUE):
        figure = Figure(figsize=(COLUMN, 2.9))
        axes = figure.subplots()
        for words, colour, dashes, mark, curve in (
            ("cross-entropy (D1)", BLUE, "-", "o", kappa_of_ufm(grid, CLASSES)),
            (smoothed, ORANGE, "--", "^", kappa_of_ufm(grid, CLASSES, SMOOTHING)),
            ("squared loss (D5)", GREEN, "-.", "s", kappa_of_rank(grid, CLASSES, CLASSES)),
        ):
            axes.plot(grid, curve, color=colour, ls=dashes, lw=1.4, label=words)
            axes.plot(DECAYS, [_optimised(L, words) for L in DECAYS], color=colour, marker=mark, ls="", ms=4)
        axes.plot([], [], color="0.4", marker="o", ls="", ms=4, label="minimised, exact Hessian")
        axes.axvline(edge, color="0.5", lw=0.8, ls=":")
        axes.annotate("1/K", (edge, 0.72), (-2, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                      ha="right", fontsize=7, color="0.3")  # fmt: skip
        axes.set(xscale="log", xlabel="$L=\\sqrt{n\\,\\lambda_W\\lambda_H}$", ylabel="$\\kappa$ at the minimiser",
                 ylim=(-0.1, CLASSES * 1.45))  # fmt: skip
        axes.set_title(f"K = {CLASSES}, n = {SAMPLES}, m = {CLASSES}")
        axes.legend(loc="upper left")
    return figure


def _optimised(L: float, words: str) -> float:
    squared = words.startswith("squared")
    model = _model(L, smoothing=SMOOTHING if "smoothing" in words else 0.0)
    if squared:
        model = dataclasses.replace(model, loss="squared")
    found = kappa_by_hessian(model.head(model.minimise(0)), "squared" if squared else "cross_entropy")
    return float(f"{found:.{DIGITS}g}")


def _model(L: float, *, smoothing: float) -> FreeFeatures:
    l_H = L / math.sqrt(4 * SAMPLES)
    return balanced(CLASSES, SAMPLES, CLASSES, 4 * l_H, l_H, smoothing=smoothing)
