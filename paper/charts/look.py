"""How the paper's figures look: widths of a two-column venue, legible at print size, told apart in grey too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from grokcore.style import BLUE, GREEN, ORANGE, PINK, SKY, STYLE
from grokcore.training.record import Record

COLUMN, PAGE = 3.35, 6.9
"""Widths in inches: one column, and the page."""
SMALL: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "legend.fontsize": 7,
    "legend.handlelength": 2.3,
    "savefig.dpi": 220,
    "pdf.fonttype": 42,
    "mathtext.fontset": "dejavusans",
}
VENUE: dict[Any, Any] = STYLE | SMALL

ARMS: dict[str, tuple[str, Any]] = {
    "baseline": ("black", "-"),
    "ncc_encourage": (BLUE, "--"),
    "ncc_prevent": (ORANGE, "-"),
    "flatness_encourage": (SKY, "--"),
    "flatness_prevent": (PINK, "-"),
    "flatness_prevent_exact": (GREEN, (0, (5, 1.2, 1, 1.2))),
    "flatness_release": (GREEN, "-"),
    "control_confidence": (SKY, ":"),
    "control_norm": (ORANGE, "-."),
    "control_schedule": (BLUE, "-."),
}
"""Colour and dashes of an arm, the same in every figure."""


def arm_look(arm: str) -> dict[str, Any]:
    """How the line of an arm, whatever its variants, is drawn."""
    colour, dashes = ARMS[arm.split("+")[0]]
    return {"color": colour, "ls": dashes}


def band(axes: Axes, at: NDArray[np.float64], curves: Sequence[NDArray[np.float64]], **look: Any) -> None:
    """The median over seeds, with their range shaded."""
    stack = np.stack(curves)
    axes.plot(at, np.median(stack, axis=0), **look)
    if len(stack) > 1:
        axes.fill_between(at, stack.min(axis=0), stack.max(axis=0), color=look["color"], alpha=0.15, lw=0)


def seeds_of(records: Sequence[Record]) -> str:
    """``seeds 0, 1, 2``."""
    seeds = sorted({record.config["seed"] for record in records})
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
