"""The published measurement beside ours: figure, table and verdict by the rules of `paper.timing`, over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from grokcore.style import BLUE, GREEN, ORANGE, STYLE
from grokcore.training.record import Record
from grokcore.training.table import short, spread
from paper.timing import (
    FIT,
    FIT_AND_GENERALISATION,
    FLOOR,
    HALFWAY,
    QUANTITIES,
    STARTED,
    Fall,
    Timing,
    agreed,
    curve,
    events,
    timing,
)  # fmt: skip

HEADER = (
    "set-up", "quantity (train, if nothing else is said)", "falls (log scale)", "half of it at step",
    "falls (linear scale)", "below half its maximum at step", "steepest by step", "left at the fit",
    "as generalisation starts", "at test 99 %", "at the end",
)  # fmt: skip
PANELS = (
    {"train_kappa": "exact kappa", "train_published_product": "published", "test_kappa": "kappa, test"},
    {"train_frobenius_surrogate": "surrogate", "train_published_product_variance": "published curve, variance form"},
    {"train_cdnv": "CDNV", "train_within_class_variance": "within-class", "train_inverse_distance": "1 / distance²"},
    {"train_rnc1_sup": "RNC1, sup norm", "train_rnc1_mean": "RNC1, mean norm"},
    {"train_loss": "train loss"},
)
"""The quantities of each panel after the accuracies', and what they are called there."""
SAID = (
    "train_kappa", "test_kappa", "train_published_product", "train_cdnv", "train_within_class_variance",
    "train_inverse_distance", "train_rnc1_mean",
)  # fmt: skip
"""The quantities of which the verdict speaks one by one."""
LINES = ((BLUE, "-"), (ORANGE, (0, (4, 1.6))), (GREEN, (0, (5, 1.2, 1, 1.2))))
FIRST_STEP = 10
SMALL = {"font.size": 8, "legend.handlelength": 2.3, "legend.fontsize": 7.5, "savefig.dpi": 220}


def timing_figure(name: str, runs: Sequence[Record]) -> Figure:
    """Accuracy, and each quantity on the train set as a share of its maximum, against log step.

    Args:
        name: the set-up.
        runs: its runs, measured at the same steps; each seed is a thin line, their median a bold one. The fit is a
            dotted line and the time from test accuracy STARTED to 99 % a shade, for every seed.
    """
    with rc_context(STYLE | SMALL):
        figure = Figure(figsize=(7.2, 6.6))
        accuracy, *others = figure.subplots(3, 2, sharex=True).flat
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
            axes.set_ylabel("share of its maximum")
        for axes in (accuracy, *others):
            _mark(axes, runs)
            axes.set_xscale("log")
            axes.set_xlim(FIRST_STEP, runs[0].config["training"]["steps"])
            axes.set_title(" ")  # room for the legend
            legend = axes.legend(
                loc="lower left", bbox_to_anchor=(-0.02, 0.98), ncols=3, handlelength=2.3, columnspacing=1
            )
            legend.set_in_layout(False)
        for axes in others[-2:]:
            axes.set_xlabel("optimiser step")
        seeds = ", ".join(str(run.config["seed"]) for run in runs)
        shade = f"shaded: test accuracy {100 * STARTED:g} to 99 %"
        figure.suptitle(
            f"{name}; seed{'s' * (len(runs) > 1)} {seeds}; train set but where said; dotted: the fit; {shade}",
            fontsize=9,
        )
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


def table(setups: Mapping[str, Sequence[Record]]) -> list[tuple[str, ...]]:
    """Rows under HEADER: the events of each set-up, then each quantity; median [least, greatest] over seeds."""
    rows: list[tuple[str, ...]] = []
    for name, runs in setups.items():
        for words, step in _events(runs).items():
            rows.append((name, words, "", step, *[""] * 7))
        for quantity, words in QUANTITIES.items():
            timings = [timing(run, quantity) for run in runs]
            logs, linears = [t.log for t in timings], [t.linear for t in timings]
            steepest = _steps([t.steepest for t in timings])
            halves = (agreed(logs), _steps([f.step for f in logs]), agreed(linears), _steps([f.step for f in linears]))
            rows.append((name, words, *halves, steepest, *_levels(timings)))
    return rows


def verdict(setups: Mapping[str, Sequence[Record]]) -> str:
    """What each quantity does, and in how many runs paper A's claim holds: Markdown, a list for each set-up."""
    return "\n\n".join(f"**{name}**\n\n" + "\n".join(_sentences(runs)) for name, runs in setups.items())


def _sentences(runs: Sequence[Record]) -> list[str]:
    of = {quantity: [timing(run, quantity) for run in runs] for quantity in QUANTITIES}
    logs, linears = ({q: [getattr(t, scale) for t in of[q]] for q in of} for scale in ("log", "linear"))
    accuracy = spread([100 * _test_accuracy_at_fit(run) for run in runs], lambda v: f"{v:.0f}")
    said = [
        f"seeds {' '.join(str(run.config['seed']) for run in runs)}; test accuracy at the fit: {accuracy} %; steps of "
        + "; ".join(f"{words}: {step}" for words, step in _events(runs).items())
    ]
    for quantity in SAID:
        left = _levels(of[quantity])
        said.append(
            f"{QUANTITIES[quantity]}: log scale: {_when(logs[quantity])}; linear scale: {_when(linears[quantity])}; "
            f"left of its maximum: {left[0]} at the fit, {left[1]} as generalisation starts, {left[2]} at test 99 %, "
            f"{left[3]} at the end"
        )
    pairs = [(k.step, p.step) for k, p in zip(logs["train_kappa"], logs["train_published_product"], strict=True)]
    # Two falls that never come are not in one interval; comparisons with NaN are false.
    order = (sum(k < p for k, p in pairs), sum(k == p < math.inf for k, p in pairs), sum(k > p for k, p in pairs))
    of_runs = f"of {len(runs)} run{'s' * (len(runs) > 1)}"
    said.append(
        f"{of_runs}, the exact kappa falls (train, log scale) before the published curve in {order[0]}, in one "
        f"interval with it in {order[1]}, after it in {order[2]}"
    )

    def claimed(quantity: str, test: Callable[[Fall], bool]) -> str:
        log, linear = (sum(map(test, falls[quantity])) for falls in (logs, linears))
        return f"{QUANTITIES[quantity]}: {log} on a log scale, {linear} on a linear one"

    flatness = ("train_kappa", "test_kappa", "train_published_product", "test_published_product")
    start = f"test accuracy {100 * STARTED:g} to {100 * HALFWAY:g} %"
    said.append(
        f'"flatness falls exactly when generalisation starts" ({start}), {of_runs}: '
        + "; ".join(claimed(quantity, lambda f: f.exactly) for quantity in flatness)
    )
    early = claimed("train_cdnv", lambda f: f.phase in (FIT, FIT_AND_GENERALISATION))
    said.append(f'"CDNV falls early, during the fit", {of_runs}: {early}')
    return [f"- {sentence}" for sentence in said]


def _when(falls: Sequence[Fall]) -> str:
    steps = _steps([f.step for f in falls])
    return agreed(falls) if steps in ("never", "undefined") else f"{agreed(falls)}, at step {steps}"


def _events(runs: Sequence[Record]) -> dict[str, str]:
    seen = [events(run) for run in runs]
    named = {
        "train accuracy 99 % (the fit)": [e.fit for e in seen],
        f"test accuracy {100 * STARTED:g} %": [e.starts for e in seen],
        f"test accuracy {100 * HALFWAY:g} %": [e.halfway for e in seen],
        "test accuracy 99 %": [e.done for e in seen],
    }
    return {words: _steps([math.inf if e is None else float(e.step) for e in found]) for words, found in named.items()}


def _levels(timings: Sequence[Timing]) -> list[str]:
    return [spread(level, short) for level in zip(*(t.levels for t in timings), strict=True)]


def _test_accuracy_at_fit(record: Record) -> float:
    fit, test = events(record).fit, record.column("test_accuracy")
    return math.nan if fit is None else float(test[record.column("step").tolist().index(fit.step)])


def _steps(values: Sequence[float]) -> str:
    return spread(values, lambda v: f"{v:,.0f}")
