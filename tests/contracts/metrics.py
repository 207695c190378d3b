"""The contract of a metric: the laws it obeys, the laws it must break, its value at exact collapse, its definition.

Each metric is a row of METRICS. A check raises AssertionError with the metric's name, so that a wrong metric can be
handed to the very same checks (tests/contracts/wrong_metrics.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from grokcore import CollapseReport
from tests.contracts import oracle
from tests.contracts.clouds import Cloud, collapsed_cloud, nearly_collapsed_cloud
from tests.contracts.instruments import (
    STRETCH,
    Value,
    agreement,
    batch_cdnv,
    batch_flatness,
    batch_surrogate,
    measured,
    reference_of,
)
from tests.contracts.laws import LAWS
from theory.numeric.configurations import generator_of


@dataclass(frozen=True)
class Metric:
    """One row.

    Fields:
        name: its own; `definition` is its name in the oracle.
        value: of a cloud.
        at_collapse: its value at exact collapse from K, gap, radius, gamma; None where the test makes no claim.
        breaks: the laws that it does not obey; it obeys every other.
        degrees: its power of the factor under a law; 0 where absent.
    """

    name: str
    value: Value
    definition: str
    at_collapse: Callable[[int, float, float, float], float]
    breaks: frozenset[str]
    degrees: dict[str, int] = field(default_factory=dict)


def _zero(K: int, gap: float, radius: float, gamma: float) -> float:
    return 0.0


def _one(K: int, gap: float, radius: float, gamma: float) -> float:
    return 1.0


def _kappa(K: int, gap: float, radius: float, gamma: float) -> float:
    """theory B1."""
    q = math.exp(-gap)
    impurity = (K - 1) * q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2
    return (1 + gamma**2) * (K - 1) / K * gap**2 * impurity


def _head_norm(K: int, gap: float, radius: float, gamma: float) -> float:
    return gap * (K - 1) / (K * radius) * math.sqrt(K)


_LABELS = frozenset({"shuffle_labels"})
_SHARES = _LABELS | {"repeat_class"}  # a mean over samples, so the classes' shares enter
_LOGITS = _SHARES | {"scale_features"}
_SQUARED = {"scale_features": 2, "scale_both": 2}
_FLAT = frozenset({"repeat_class", "scale_features", "scale_head", "translate"})  # and never the labels

_ROWS: dict[str, tuple[Callable[[int, float, float, float], float], frozenset[str], dict[str, int]]] = {
    "nc1_papyan": (_zero, _SHARES, {}),
    "nc1_trace_ratio": (_zero, _SHARES, {}),
    "rnc1_sup": (_zero, _SHARES | {"translate"}, {}),
    "rnc1_mean": (_zero, _SHARES | {"translate"}, {}),
    "nc2_equinorm": (_zero, _LABELS, {}),
    "nc2_equiangle": (_zero, _LABELS, {}),
    "nc2_etf": (_zero, _LABELS, {}),
    "nc3_duality": (_zero, _LABELS | {"shift_rows"}, {}),
    "cdnv": (_zero, _LABELS, {}),
    "within_class_variance": (_zero, _LABELS, _SQUARED),
    "squared_mean_distance": (lambda K, gap, radius, gamma: 2 * radius**2 * K / (K - 1), _LABELS, _SQUARED),
    "global_mean_ratio": (lambda K, gap, radius, gamma: gamma, _LABELS | {"translate"}, {}),
    "loss": (lambda K, gap, radius, gamma: math.log1p((K - 1) * math.exp(-gap)), _LOGITS | {"scale_head"}, {}),
    "accuracy": (_one, _LOGITS, {}),
    "kappa": (_kappa, _FLAT, {}),
    "frobenius_surrogate": (
        lambda K, gap, radius, gamma: (K - 1) * _kappa(K, gap, radius, gamma),  # theory C2
        _FLAT | {"shift_rows"},
        {},
    ),
    "logit_gap": (lambda K, gap, radius, gamma: gap, _LOGITS, {"scale_head": 1}),
    "head_norm": (_head_norm, frozenset({"shift_rows"}), {"scale_head": 1, "scale_both": -1}),
    "nc4": (_one, _LOGITS, {}),
    "nc4_about_reference": (_one, _LOGITS, {}),
    "variance_ratio": (_zero, _SHARES, {}),
    # The samples lie at their own class means, 1 / STRETCH of the way out to the reference's.
    "variance_ratio_about_reference": (lambda K, gap, radius, gamma: (1 - 1 / STRETCH) ** 2, _SHARES, {}),
}


def row(name: str, value: Value, like: str) -> Metric:
    """A metric that must behave like the row `like`."""
    at_collapse, breaks, degrees = _ROWS[like]
    return Metric(name, value, like, at_collapse, breaks, degrees)


def _field(name: str) -> Value:
    return lambda cloud: measured(cloud)[name]


FUNCTIONS = (
    row("cdnv()", batch_cdnv, "cdnv"),
    row("nearest_mean_agreement()", agreement, "nc4"),
    row("relative_flatness()", batch_flatness, "kappa"),
    row("frobenius_surrogate()", batch_surrogate, "frobenius_surrogate"),
)
COLLAPSE = tuple(name for name in _ROWS if name in CollapseReport.__dataclass_fields__)
METRICS = (
    *(row(name, _field(name), name) for name in _ROWS),
    *(row(f"measure.{name}", _field(f"measure.{name}"), name) for name in COLLAPSE),
    *FUNCTIONS,
)


def same(found: float, expected: float, rel: float = 1e-8, tiny: float = 1e-12) -> bool:
    """Equal to a relative `rel` or an absolute `tiny`, or both NaN."""
    if math.isnan(found) or math.isnan(expected):
        return math.isnan(found) and math.isnan(expected)
    return abs(found - expected) <= max(rel * abs(expected), tiny)


@lru_cache(maxsize=32)
def changed(law: str, cloud: Cloud, seed: int) -> tuple[Cloud, float]:
    """The cloud after the law, made once for all metrics."""
    return LAWS[law](cloud, generator_of(seed))


def check_law(metric: Metric, law: str, cloud: Cloud, seed: int) -> None:
    """The metric answers the law by its power of the factor."""
    after, factor = changed(law, cloud, seed)
    expected = metric.value(cloud) * factor ** metric.degrees.get(law, 0)
    found = metric.value(after)
    assert same(found, expected), f"{metric.name} under {law}: {found}, not {expected}"


def check_definition(metric: Metric, cloud: Cloud, expected: dict[str, float], rel: float = 1e-8) -> None:
    """The metric is the oracle's; `expected` are the oracle's values of this cloud."""
    found, wanted = metric.value(cloud), expected[metric.definition]
    assert same(found, wanted, rel, tiny=1e-14), f"{metric.name}: {found}, by definition {wanted}"


def check_collapse(metric: Metric, *, K: int, m: int, gap: float, radius: float, gamma: float) -> None:
    """The metric has its closed form at exact collapse."""
    cloud = collapsed_cloud(K=K, m=m, gap=gap, radius=radius, gamma=gamma)
    found, expected = metric.value(cloud), metric.at_collapse(K, gap, radius, gamma)
    assert same(found, expected, 1e-9, tiny=1e-12), f"{metric.name} at collapse: {found}, not {expected}"


def check_off_collapse(metric: Metric, *, K: int, m: int, noise: float) -> None:
    """Noise of a relative size `noise` on everything moves the metric off its closed form."""
    found, expected = metric.value(nearly_collapsed_cloud(K=K, m=m, noise=noise)), metric.at_collapse(K, 4.0, 1.3, 0.0)
    moved = abs(found - expected)
    assert noise**2 / 100 < moved < 100 * noise * max(expected, 1), f"{metric.name} off collapse: {found}"


@lru_cache(maxsize=32)
def definition_of(cloud: Cloud) -> dict[str, float]:
    """The oracle's values of a cloud, in 40 digits."""
    return oracle.all_values(cloud, reference_of(cloud))
