"""Information along a run: estimates with their errors, E2's bounds above them, and the null beside each.

Where an estimate lies within twice its error of its null, nothing was told apart, and the figure shades it.
"""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from grokcore.style import BLUE, GREEN, GREY, ORANGE, PINK
from grokcore.training.record import Record
from grokcore.training.table import event_step
from paper.charts.look import VENUE

NOISE = "1"
"""The noise shown, in units of the features' root mean square norm."""


def information_figure(record: Record, *, split: str = "test") -> Figure:
    """Four panels of one run logged with its information."""
    with rc_context(VENUE):
        figure = Figure(figsize=(7.0, 5.4))
        panels = figure.subplots(2, 2, sharex=True).flatten()
        _channel(panels[0], record, split)
        _labels(panels[1], record, split)
        _hsic(panels[2], record, split)
        _published(panels[3], record, split)
        for axes in panels:
            for name, words in (("tau_1", "fit"), ("tau_2", "RNC1 < 0.1")):
                step = event_step(record, name)
                if np.isfinite(step) and step > 0:
                    axes.axvline(step, color="0.35", lw=0.8, ls=":")
                    if axes in panels[:2]:
                        axes.annotate(
                            words, (step, 1), (2, -7), xycoords=("data", "axes fraction"), textcoords="offset points",
                            fontsize=6.5, color="0.3",
                        )  # fmt: skip
            axes.set_xscale("log")
        for axes in panels[2:]:
            axes.set_xlabel("optimiser step")
        figure.suptitle(f"{record.arm}, seed {record.config['seed']}, {split} set", fontsize=10)
    return figure


def _channel(axes: Axes, record: Record, split: str) -> None:
    steps, value, error, null = _estimate(record, f"{split}_information_given_label_{NOISE}")
    seen = record.column("step") > 0
    for name, words, style in (("trace", "bound by the variance", "--"), ("logdet", "bound by the log det", ":")):
        bound = record.column(f"{split}_information_{name}_{NOISE}")[seen]
        axes.plot(steps, bound, color=ORANGE, ls=style, lw=1.2, label=words)
    _errorbar(axes, steps, value, error, BLUE, "estimate")
    axes.plot(steps, np.clip(null, 0, None), color="0.45", lw=1.0, label="null (shuffled pairs), drawn at 0 if below")
    _shade(axes, steps, value, error, null)
    axes.set_title(f"I(Z;X|Y) in nats, noise {NOISE} B")
    axes.legend()


def _labels(axes: Axes, record: Record, split: str) -> None:
    steps, value, error, null = _estimate(record, f"{split}_information_label_{NOISE}")
    _errorbar(axes, steps, value, error, BLUE, "estimate")
    axes.plot(steps, null, color="0.45", lw=1.0, label="null (shuffled labels)")
    _shade(axes, steps, value, error, null)
    axes.set_title(f"I(Z;Y) in nats, noise {NOISE} B")
    axes.legend()


def _hsic(axes: Axes, record: Record, split: str) -> None:
    seen = record.column("step") > 0
    steps = record.column("step")[seen]
    for name, colour in (("inputs", BLUE), ("labels", GREEN)):
        value, null, spread = (
            record.column(f"{split}_nhsic_{name}{word}")[seen] for word in ("", "_null", "_null_std")
        )
        axes.plot(steps, value, color=colour, lw=1.4, label=f"features and {name}")
        axes.plot(steps, null, color=colour, lw=0.9, ls="--", label="its null (shuffled pairs)")
        _shade(axes, steps, value, spread, null)
    axes.set_title("nHSIC")
    axes.set_ylim(0, None)
    axes.legend(loc="center left", bbox_to_anchor=(0, 0.7), fontsize=6.5)


def _published(axes: Axes, record: Record, split: str) -> None:
    seen = record.column("step") > 0
    steps = record.column("step")[seen]
    for name, colour, style, words in (
        ("entropies_information", PINK, "-", "entropies, 8 + 8 dimensions, paired"),
        ("entropies_information_unpaired", PINK, ":", "the same, two shuffles (truth: 0)"),
    ):
        axes.plot(steps, record.column(f"{split}_{name}")[seen], color=colour, ls=style, lw=1.1, label=words)
    _, value, error, null = _estimate(record, f"{split}_ksg_information")
    _errorbar(axes, steps, value, error, BLUE, "KSG, 4 + 4 dimensions, paired")
    axes.plot(steps, null, color="0.45", lw=1.0, label="its null (shuffled pairs)")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_title("pairs alone, nats (public code: entropies)")
    axes.legend(fontsize=6, loc="lower left", frameon=True, framealpha=0.85, edgecolor="none")


def _estimate(
    record: Record, name: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Steps from 1 on, an estimate there, its error and its null."""
    seen = record.column("step") > 0
    return (
        record.column("step")[seen],
        record.column(name)[seen],
        record.column(f"{name}_error")[seen],
        record.column(f"{name}_null")[seen],
    )


def _errorbar(
    axes: Axes, steps: NDArray[np.float64], value: NDArray[np.float64], error: NDArray[np.float64], colour: str,
    words: str,
) -> None:  # fmt: skip
    axes.plot(steps, value, color=colour, lw=1.3, label=words)
    axes.fill_between(steps, value - 2 * error, value + 2 * error, color=colour, alpha=0.2, lw=0)


def _shade(
    axes: Axes,
    steps: NDArray[np.float64],
    value: NDArray[np.float64],
    error: NDArray[np.float64],
    null: NDArray[np.float64],
) -> None:
    """Steps at which the value is not told from its null."""
    lost = ~(np.abs(value - null) > 2 * error)
    if lost.any():
        edges = np.concatenate([[steps[0]], np.sqrt(steps[1:] * steps[:-1]), [steps[-1]]])
        for index in np.flatnonzero(lost):
            axes.axvspan(edges[index], edges[index + 1], color=GREY, alpha=0.5, lw=0)
        axes.plot([], [], color=GREY, lw=6, alpha=0.5, label="not told from the null")
