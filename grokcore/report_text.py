"""A Report as two tables for the terminal: the head's numbers, and the layers' collapse metrics."""

from __future__ import annotations

import math
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
    "global_mean_ratio": "norm of the global mean / of the centred means; not 0 at collapse",
}
"""One line on each number of a Report, in the order in which they print."""
LAYER_COLUMNS = ("nc1_papyan", "nc1_trace_ratio", "cdnv", "nc2_equinorm", "nc2_equiangle", "nc2_etf")


def report_text(report: Report) -> str:
    """The tables; a number that is NaN has its reason beside it, or below the layers."""
    values, reasons = report.scalars(), report.collapse.reasons | report.reasons
    rows = [(name, _number(values[name]), reasons.get(name, text)) for name, text in MEANINGS.items()]
    tables = [plain(("metric", f"{'value':>12}", "what it is, or why it is not a number"), rows)]
    if report.layers:
        header = ("layer", *(f"{column:>15}" for column in LAYER_COLUMNS))
        cells = [
            (name, *(_number(getattr(layer, column), 15) for column in LAYER_COLUMNS))
            for name, layer in report.layers.items()
        ]
        tables.append("\n".join([plain(header, cells), *_layer_reasons(report)]))
    return "\n\n".join(tables)


def _number(value: float, width: int = 12) -> str:
    return f"{value:>{width}.6g}"


def _layer_reasons(report: Report) -> list[str]:
    """Each reason once, with the columns and the layers it holds for."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for name, layer in report.layers.items():
        for metric in LAYER_COLUMNS:
            if math.isnan(getattr(layer, metric)):
                columns, places = found.setdefault(layer.reasons[metric], ({}, {}))
                columns[metric], places[name] = None, None
    return [f"nan: {reason} ({_some(list(c))} of {_some(list(p))})" for reason, (c, p) in found.items()]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
