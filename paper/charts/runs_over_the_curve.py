"""The theorem met by data: measured (gap, kappa) of runs over the collapse curve of theory B1 at their measured gamma.

B1 says kappa = (1 + gamma^2) ((K-1)/K) Delta^2 U(Delta) under exact collapse. Without it kappa is its own number, so
the curve is a prediction only as far as CDNV is small: the second panel shows how far off it is against that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from grokcore.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY
from grokcore.training.record import Record, by_arm
from paper.charts.look import VENUE
from theory.formulas import kappa_at_collapse

CLASSES = 10
LOOKS = {
    "baseline": ("black", "o"), "ncc_encourage": (BLUE, "v"), "ncc_prevent": (ORANGE, "^"),
    "flatness_encourage": (SKY, "<"), "flatness_prevent": (PINK, ">"), "flatness_release": (GREEN, "s"),
    "control_confidence": ("0.45", "P"), "control_norm": ("0.45", "X"), "control_schedule": ("0.45", "D"),
}  # fmt: skip
"""Colour and mark by an arm's beginning; a cell of the factorial has the mark of its collapse half and the colour of
its flatness half. Augmented runs are ringed, those released elsewhere than at the half half filled, those of other
coefficients hollow."""
PATHS = {"control_confidence": ":", "control_norm": "--", "control_schedule": "-."}
"""How the paths of arms of one colour are told apart."""
COLUMNS = 3


def collapse_curve_figure(records: Sequence[Record], *, split: str = "train") -> Figure:
    """Each run's path (thin, from its second row on) and last point (mark), train or test set; numbers that are not
    positive are left out.

    Left: kappa / (1 + gamma^2) against the mean logit gap, so that one curve stands for every measured gamma. Right:
    kappa over the curve's value at the run's gap and gamma against CDNV.

    Args:
        records: runs of ten classes with the column ``<split>_kappa_collapse_curve``.
        split: ``train`` or ``test``.
    """
    with rc_context(VENUE):
        labels = {look(run.arm)["label"] for run in records}
        figure = Figure(figsize=(7.2, 3.1 + 0.16 * math.ceil((len(labels) + 1) / COLUMNS)))
        over_gap, over_cdnv = figure.subplots(1, 2)
        for axes in (over_gap, over_cdnv):
            axes.set(xscale="log", yscale="log")
        for arm, runs in sorted(by_arm(records).items(), key=lambda item: (_rank(item[0]), item[0])):
            style = look(arm)
            for run in runs:
                scaled, ratio = curves(run, split)
                gap, cdnv = (_positive(run.column(f"{split}_{name}")) for name in ("logit_gap", "cdnv"))
                for axes, x, y in ((over_gap, gap, scaled), (over_cdnv, cdnv, ratio)):
                    axes.plot(
                        x[1:],
                        y[1:],
                        color=style["color"],
                        ls=PATHS.get(arm.split("+")[0], "-"),
                        lw=0.6,
                        alpha=0.4,
                        zorder=1,
                    )
                    axes.plot(x[-1:], y[-1:], **style, ms=5, ls="", mew=1, zorder=3)
        _limits(over_gap, records, split)
        grid = np.geomspace(*over_gap.get_xlim(), 500)
        over_gap.plot(grid, kappa_at_collapse(grid, CLASSES), color=GREY, lw=2, zorder=0, label="collapse (theory B1)")
        over_gap.set_xlabel(f"mean logit gap, {split} (nats)")
        over_gap.set_ylabel(r"$\kappa\,/\,(1+\gamma^2)$")
        over_cdnv.axhline(1.0, color=GREY, lw=2, zorder=0)
        over_cdnv.set_xlabel(f"CDNV, {split} (low: collapsed)")
        for axes in (over_gap, over_cdnv):
            _ticks(axes)
        over_cdnv.set_ylabel(r"$\kappa$ / curve at its gap and $\gamma$")
        named = {label: line for line, label in zip(*over_gap.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=COLUMNS)
        config = records[0].config
        seeds = sorted({r.config["seed"] for r in records})
        words = f"{config['data'].get('images', config['experiment'])}, {config['preset']}, {split} set"
        of_seeds = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
        figure.suptitle(f"{words}; {of_seeds}; mark: end of a run, line: its path", fontsize=9)
    return figure


def curves(run: Record, split: str) -> tuple[np.ndarray, np.ndarray]:
    """kappa / (1 + gamma^2), and kappa over the collapse curve at the run's own gap and gamma."""
    kappa, predicted = (_positive(run.column(f"{split}_{name}")) for name in ("kappa", "kappa_collapse_curve"))
    return kappa / (1 + run.column(f"{split}_global_mean_ratio") ** 2), kappa / predicted


def look(arm: str) -> dict[str, Any]:
    """How an arm's mark is drawn, and its name in the legend."""
    collapse, *others = arm.split("+")
    colour, mark = LOOKS.get(collapse, ("0.2", "d"))
    flatness = next((token for token in others if token in LOOKS), None)
    if flatness is not None:
        colour = LOOKS[flatness][0]
    label = collapse if flatness is None else f"{collapse}+{flatness}"
    rest = [token for token in others if token not in ("fork", flatness)]
    named = ["other lambda" if token.startswith("lambda") else token for token in rest]
    style: dict[str, Any] = {"color": colour, "marker": mark, "label": ", ".join([label, *named])}
    if "augment" in rest:
        style |= {"mec": SKY if colour == "black" else "black"}
    if any(token.startswith("at") for token in rest):
        return style | {"fillstyle": "left"}
    return style | {"mfc": "none"} if set(rest) - {"augment"} else style


def _rank(arm: str) -> int:
    return next((i for i, name in enumerate(LOOKS) if arm.startswith(name)), len(LOOKS))


def _ticks(axes: Axes) -> None:
    """Plain numbers along the abscissa, few enough to be read."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 300 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _limits(axes: Axes, records: Sequence[Record], split: str) -> None:
    """Log axes about the measured points: the curve goes far below them."""
    gaps = np.concatenate([_positive(r.column(f"{split}_logit_gap")[1:]) for r in records])
    values = np.concatenate([curves(r, split)[0][1:] for r in records])
    drawn = np.isfinite(gaps) & np.isfinite(values)
    if drawn.any():
        highest = gaps[drawn].max() * 1.2
        axes.set_xlim(min(max(gaps[drawn].min() / 1.2, 0.3), highest / 2), highest)
        axes.set_ylim(values[drawn].min() / 5, values[drawn].max() * 3)


def _positive(values: np.ndarray) -> np.ndarray:
    """NaN for what has no place on a log axis."""
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)
