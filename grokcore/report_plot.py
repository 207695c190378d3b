"""The figure of a Report: the class means' cosines, the metrics, and their course over the layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from grokcore.collapse import class_mean_cosines
from grokcore.distances import coincide
from grokcore.report_text import short_names
from grokcore.style import BLUE, GREEN, GREY, ORANGE, PINK, STYLE

if TYPE_CHECKING:
    from grokcore.report import Report

SHOWN = (
    "loss", "kappa", "frobenius_surrogate", "variance_ratio", "nc1_papyan", "nc1_trace_ratio", "rnc1_mean", "rnc1_sup",
    "nc2_equinorm", "nc2_equiangle", "nc2_etf", "nc3_duality", "cdnv",
)  # fmt: skip
"""Metrics on the log axis; low is collapsed or flat."""
CURVES = {"nc1_papyan": BLUE, "nc1_trace_ratio": ORANGE, "cdnv": GREEN, "nc2_etf": PINK}
MARKERS = ("o", "s", "^", "D")
COSINES = "cosines of the centred class means"
ROUNDING = 1e-12
"""What is not above it is written, not drawn: 0 has no place on a log axis, and rounding would set its scale."""
FEW_CLASSES = 20
"""Up to so many, each pair of classes has a point of its own; beyond, a histogram."""
WIDTH = 8.2
"""Inches."""
NAME_WIDTH = 22
MOST_TICKS = 20
SMALL = 7.5
"""Points; a character of this size is about half as wide."""


def report_figure(report: Report) -> Figure:
    """The panels beside each other, the layers below where any were measured; no global state is touched."""
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 6.6 if report.layers else 3.5))
        grid = figure.add_gridspec(2 if report.layers else 1, 2, width_ratios=(1, 1.15))
        _cosines(figure.add_subplot(grid[0, 0]), report)
        _metrics(figure.add_subplot(grid[0, 1]), report)
        if report.layers:
            _layers(figure.add_subplot(grid[1, :]), report)
        figure.suptitle(
            f"{report.samples:,} samples: accuracy {_percent(report.accuracy)}, NC4 {_percent(report.nc4)}, "
            f"logit gap {report.logit_gap:.3g} nats",
            fontsize=11,
        )
    return figure


def _cosines(axes: Axes, report: Report) -> None:
    """Cosine of each pair of centred class means, and the simplex's."""
    moments = report.moments
    if moments is None or moments.absent:
        axes.set_title(COSINES)
        _nothing(axes, "not kept in a Monitor's history" if moments is None else report.collapse.reasons["cdnv"])
        return
    count, cosines = moments.num_classes, class_mean_cosines(moments).cpu().numpy()
    if np.isnan(cosines).any():
        together = coincide(moments.means, float(moments.norm_sum) / moments.total)
        axes.set_title(COSINES)
        _nothing(axes, "all class means coincide" if together else "a class mean equals the global mean")
        return
    rows, columns = np.triu_indices(count, 1)
    simplex = -1 / (count - 1)
    span = 1.2 * max(float(np.abs(cosines - simplex).max()), 0.02)
    limits = (simplex - span, simplex + span)
    absent = " (not reachable here)" if moments.num_features < count - 1 else ""
    axes.set_title(f"{COSINES}\ndashed: simplex{absent}, {simplex:.3g}")
    if count > FEW_CLASSES:
        axes.hist(cosines, bins=30, color=BLUE, alpha=0.75)
        axes.axvline(simplex, color=ORANGE, lw=1.4, ls="--")
        axes.set(xlabel="cosine", ylabel=f"pairs of classes, of {len(cosines):,}", xlim=limits)
        return
    order = np.argsort(cosines)
    axes.plot(np.arange(len(order)), cosines[order], "o", color=BLUE, ms=5 if count < 12 else 3)
    axes.axhline(simplex, color=ORANGE, lw=1.4, ls="--", zorder=1)
    named = [*range(len(order))] if len(order) <= 6 else [0, len(order) - 1]
    axes.set_xticks(named, [f"{rows[order[i]]}, {columns[order[i]]}" for i in named])
    axes.set(xlabel=f"pair of classes{'' if len(order) <= 6 else ', the two ends named'}", ylabel="cosine", ylim=limits)
    axes.margins(x=0.12)


def _metrics(axes: Axes, report: Report) -> None:
    """Each metric as a point on a log axis; what has no place there is written out."""
    axes.set_title("low: collapsed, or flat")
    values = report.scalars()
    reasons = report.collapse.reasons | report.reasons
    drawn = [values[name] for name in SHOWN if values[name] > ROUNDING]
    low, high = (min(drawn), max(drawn)) if drawn else (0.1, 1.0)
    # On white, so that no grid line crosses what is written.
    written: dict[str, Any] = {"va": "center", "fontsize": SMALL, "bbox": {"fc": "white", "ec": "none", "pad": 0.6}}
    # Wide enough for a labelled tick, with room for the written values.
    decades = max(3.0, math.log10(high / low))
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(low / 10 ** (0.08 * decades), high * 10 ** (0.42 * decades))
    for place, name in enumerate(SHOWN):
        value = values[name]
        if value > ROUNDING:
            axes.plot(value, place, "o", color=BLUE, ms=5)
            axes.annotate(f"{value:.3g}", (value, place), (6, 0), textcoords="offset points", **written)
        else:
            text = f"no number: {reasons[name]}" if math.isnan(value) else f"{value:.1g}"
            axes.annotate(text, (0.02, place), xycoords=("axes fraction", "data"), color="0.3", **written)
    axes.set_yticks(range(len(SHOWN)), SHOWN, fontsize=8)
    axes.set_ylim(len(SHOWN) - 0.4, -0.6)


def _layers(axes: Axes, report: Report) -> None:
    """The collapse metrics over the layers, in the order in which they ran, and apart from them at the head's input."""
    axes.set_title("over the layers", loc="left")
    names = [*short_names(list(report.layers), NAME_WIDTH), "head's input"]
    # It ran before the head, and whether the head is one of the layers is not known here: hence apart.
    last = len(report.layers) - 1
    places = np.append(np.arange(last + 1), last + 1.3 + last / 30)
    missing = []
    for (metric, colour), marker in zip(CURVES.items(), MARKERS, strict=True):
        values = np.array([getattr(found, metric) for found in (*report.layers.values(), report.collapse)])
        values[~(values > ROUNDING)] = np.nan
        if np.isfinite(values).any():
            style: dict[str, Any] = {"marker": marker, "ms": 4, "lw": 1.4, "color": colour}
            axes.plot(places[:-1], values[:-1], label=metric, **style)
            axes.plot(places[-1], values[-1], **style)
        else:
            missing.append(metric)
    if not axes.lines:
        _nothing(axes, next(iter(report.collapse.reasons.values()), "nothing above 0"))
        return
    if missing:
        axes.set_xlabel(f"not drawn, no number above {ROUNDING:.0e}: {', '.join(missing)}", fontsize=SMALL, color="0.3")
    axes.axvline((last + places[-1]) / 2, color=GREY, lw=0.8)
    axes.set_xlim(-0.4, places[-1] + 0.4)
    _name_places(axes, places, names)
    axes.set_yscale("log")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(CURVES), borderpad=0)


def _name_places(axes: Axes, places: np.ndarray[Any, np.dtype[np.float64]], names: list[str]) -> None:
    """At most MOST_TICKS labels, the last one always, turned where they would touch."""
    every = math.ceil(len(names) / MOST_TICKS)
    shown = [*range(0, len(names) - every, every), len(names) - 1]
    slot = 0.85 * 72 * WIDTH / (places[-1] + 0.8)
    widths = [0.55 * SMALL * len(names[i]) + 6 for i in shown]
    touch = any(
        (widths[k] + widths[k + 1]) / 2 > slot * (places[shown[k + 1]] - places[shown[k]])
        for k in range(len(shown) - 1)
    )
    turned: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if touch else {}
    axes.set_xticks(places[shown], [names[i] for i in shown], fontsize=SMALL, **turned)


def _nothing(axes: Axes, reason: str) -> None:
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color="0.3", wrap=True)
    axes.set_axis_off()


def _percent(share: float) -> str:
    return "no number" if math.isnan(share) else f"{100 * share:.4g} %"
