"""A Report as two tables for the terminal: the head's numbers, and the layers' collapse metrics."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from grokcore.documents import plain

if TYPE_CHECKING:
    from grokcore.report import Report

MEANINGS = {
    "loss": "cross-entropy, nats",
    "accuracy": "argmax(W h + b) is the label",
    "kappa": "relative flatness of the head, exact; low is flat",
    "frobenius_surrogate": "what published code logs as flatness",
    "nc4": "argmax(W h + b) is the nearest class mean",
    "logit_gap": "own logit less the mean of the others",
    "variance_ratio": "spread about the class means / spread of the means",
    "head_norm": "||W||_F",
    "samples": "measured",
    "nc1_papyan": "Tr(Sigma_W Sigma_B^+) / K; 0 at collapse, as all below",
    "nc1_trace_ratio": "Tr Sigma_W / Tr Sigma_B",
    "rnc1_sup": "Tr Sigma_W / max ||h||^2",
    "rnc1_mean": "Tr Sigma_W / (mean ||h||)^2",
    "nc2_equinorm": "centred class means: std / mean of their norms",
    "nc2_equiangle": "their cosines: mean distance to -1/(K-1)",
    "nc2_etf": "their Gram matrix: distance to the simplex's",
    "nc3_duality": "head and centred class means, each of norm 1: distance",
    "cdnv": "class-distance normalised variance",
    "within_class_variance": "mean over classes of the mean ||h - mu_c||^2",
    "squared_mean_distance": "mean over pairs of ||mu_c - mu_c'||^2; not 0 at collapse",
    "global_mean_ratio": "norm of the global mean / of the centred; not 0 at collapse",
}
"""One line on each number of a Report, in the order in which they print."""
WIDEST = 100
"""Columns of the terminal that the layers take at most."""
NAME_WIDTH = 18
"""So that they do."""
LAYER_COLUMNS = ("nc1_papyan", "nc1_trace_ratio", "cdnv", "nc2_equinorm", "nc2_equiangle", "nc2_etf")
ABOUT_REFERENCE = ("nc1_trace_ratio", "variance_ratio", "nearest_mean_accuracy", "cdnv", "nc2_etf")
"""The columns where layers were measured about a reference's means."""


def report_text(report: Report) -> str:
    """The tables; a number that is NaN has its reason beside it, or below the layers."""
    values, reasons = report.scalars(), report.collapse.reasons | report.reasons
    rows = [(name, _number(values[name]), reasons.get(name, text)) for name, text in MEANINGS.items()]
    tables = [plain(("metric", f"{'value':>12}", "what it is, or why it is not a number"), rows)]
    if report.layers:
        columns = layer_columns(report)
        header = ("layer", *(f"{column:>10}" for column in columns))
        names = short_names(list(report.layers), NAME_WIDTH)
        cells = [
            (name, *(f"{getattr(layer, column):>{max(10, len(column))}.4g}" for column in columns))
            for name, layer in zip(names, report.layers.values(), strict=True)
        ]
        tables.append("\n".join([plain(header, cells), *_layer_reasons(names, report)]))
    return "\n\n".join(tables)


def layer_columns(report: Report) -> tuple[str, ...]:
    """The metrics that the table of layers shows."""
    referred = any(not math.isnan(layer.nearest_mean_accuracy) for layer in report.layers.values())
    return ABOUT_REFERENCE if referred else LAYER_COLUMNS


def short_names(names: Sequence[str], width: int) -> list[str]:
    """Names of modules in at most `width` characters: where one is longer, their ends behind an ellipsis.

    The path that all share goes first. Names with the same end show where they begin to differ instead.
    """
    if max(map(len, names), default=0) <= width:
        return list(names)
    shared = names[0].rfind(".", 0, _shared(names)) + 1
    ends = [_end(name, shared, width) for name in names]
    return [
        end
        if ends.count(end) == 1
        else _difference(name, [n for n, e in zip(names, ends, strict=True) if e == end], width)
        for name, end in zip(names, ends, strict=True)
    ]


def _end(name: str, start: int, width: int) -> str:
    if start:
        return "…" + name[max(start, len(name) - width + 1) :]
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]


def _difference(name: str, alike: list[str], width: int) -> str:
    start = _shared(alike)
    # A number as a whole.
    while start and name[start - 1].isdigit():
        start -= 1
    return "…" + name[start : start + width - 2] + "…"


def _shared(names: Sequence[str]) -> int:
    """How many characters all begin with alike: the first and the last in the alphabet do."""
    first, last = min(names), max(names)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def _number(value: float) -> str:
    return f"{value:>12.6g}"


def _layer_reasons(names: Sequence[str], report: Report) -> list[str]:
    """Each reason once, with the columns and the layers it holds for."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for name, layer in zip(names, report.layers.values(), strict=True):
        for metric in layer_columns(report):
            if math.isnan(getattr(layer, metric)):
                columns, places = found.setdefault(layer.reasons[metric], ({}, {}))
                columns[metric], places[name] = None, None
    lines = [f"nan: {reason} ({_some(list(c))} of {_some(list(p))})" for reason, (c, p) in found.items()]
    return [line for long in lines for line in textwrap.wrap(long, WIDEST, subsequent_indent="  ")]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
