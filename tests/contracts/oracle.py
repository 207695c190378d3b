"""Every metric from the words of its definition: slow loops over samples, classes and pairs.

The same words run in two arithmetics: plain float64, and 40 digits, where no cancellation is left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np

from tests.contracts.clouds import Cloud

EPS = 2.0**-52


@dataclass(frozen=True)
class Arithmetic:
    """Numbers with their elementary functions; `eigh` gives eigenvalues and eigenvectors (columns)."""

    number: Callable[[float], Any]
    sqrt: Callable[[Any], Any]
    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    eigh: Callable[[Any], tuple[Any, Any]]


def _eigh_of_digits(matrix: Any) -> tuple[Any, Any]:
    values, vectors = mpmath.mp.eigsy(mpmath.matrix(matrix.tolist()))
    return np.array(list(values)), np.array(vectors.tolist())


FLOAT64 = Arithmetic(float, math.sqrt, math.exp, math.log, np.linalg.eigh)
DIGITS = Arithmetic(mpmath.mpf, mpmath.sqrt, mpmath.exp, mpmath.log, _eigh_of_digits)


def all_values(cloud: Cloud, reference: Cloud, arithmetic: Arithmetic = DIGITS) -> dict[str, float]:
    """Every metric of a cloud by name; `reference` gives the class means of the metrics "about a reference"."""
    with mpmath.workdps(40):
        found = _of_features(cloud, arithmetic) | _of_head(cloud, reference, arithmetic)
        return {name: float(value) for name, value in found.items()}


def feature_values(cloud: Cloud, arithmetic: Arithmetic = DIGITS) -> dict[str, float]:
    """The metrics of CollapseReport only."""
    with mpmath.workdps(40):
        return {name: float(value) for name, value in _of_features(cloud, arithmetic).items()}


def _exact(tensor: Any, arithmetic: Arithmetic) -> Any:
    dtype = float if arithmetic is FLOAT64 else object
    rows = [[arithmetic.number(x) for x in row] for row in np.atleast_2d(tensor.double().numpy()).tolist()]
    return np.array(rows, dtype=dtype).reshape(tensor.shape)


def _square(vector: Any) -> Any:
    return np.ravel(vector) @ np.ravel(vector)


def _mean(values: list[Any]) -> Any:
    return sum(values) / len(values)


def _class_means(h: Any, y: list[int], K: int) -> list[Any]:
    return [_mean([row for row, c in zip(h, y, strict=True) if c == k]) for k in range(K)]


def _of_features(cloud: Cloud, a: Arithmetic) -> dict[str, Any]:
    h, y, w, K = _exact(cloud.features, a), cloud.labels.tolist(), _exact(cloud.weight, a), cloud.K
    mu = _class_means(h, y, K)
    mu_global = _mean(mu)
    centred = [row - mu_global for row in mu]
    variance = [_mean([_square(row - mu[k]) for row, c in zip(h, y, strict=True) if c == k]) for k in range(K)]
    trace_within = _mean([_square(row - mu[c]) for row, c in zip(h, y, strict=True)])
    trace_between = _mean([_square(row) for row in centred])
    norms = [a.sqrt(_square(row)) for row in h]
    radii = [a.sqrt(_square(row)) for row in centred]
    ordered = list(itertools.permutations(range(K), 2))
    found = {
        "nc1_papyan": _papyan(h, y, mu, centred, a),
        "nc1_trace_ratio": trace_within / trace_between,
        "rnc1_sup": trace_within / max(norms) ** 2,
        "rnc1_mean": trace_within / _mean(norms) ** 2,
        "nc2_equinorm": a.sqrt(_mean([(r - _mean(radii)) ** 2 for r in radii])) / _mean(radii),
        "cdnv": _mean([(variance[i] + variance[j]) / (2 * _square(mu[i] - mu[j])) for i, j in ordered]),
        "within_class_variance": _mean(variance),
        "squared_mean_distance": _mean([_square(mu[i] - mu[j]) for i, j in ordered]),
        "global_mean_ratio": a.sqrt(_square(mu_global)) / a.sqrt(trace_between),
    }
    if h.shape[1] < K - 1:
        return found | dict.fromkeys(("nc2_equiangle", "nc2_etf", "nc3_duality"), math.nan)
    one = a.number(1.0)
    gram = [[centred[i] @ centred[j] for j in range(K)] for i in range(K)]
    gram_norm = a.sqrt(_square(gram))
    simplex = [[((i == j) - one / K) / a.sqrt(one * (K - 1)) for j in range(K)] for i in range(K)]
    cosines = [gram[i][j] / (radii[i] * radii[j]) for i, j in ordered]
    w_norm, mc_norm = a.sqrt(_square(w)), a.sqrt(_square(centred))
    return found | {
        "nc2_equiangle": _mean([abs(cosine + one / (K - 1)) for cosine in cosines]),
        "nc2_etf": a.sqrt(sum((gram[i][j] / gram_norm - simplex[i][j]) ** 2 for i in range(K) for j in range(K))),
        "nc3_duality": a.sqrt(sum(_square(w[k] / w_norm - centred[k] / mc_norm) for k in range(K))),
    }


def _papyan(h: Any, y: list[int], mu: list[Any], centred: list[Any], a: Arithmetic) -> Any:
    """Tr(Sigma_W Sigma_B^+) / K; kept are the directions in which Mc exceeds eps max(K, m) of its largest."""
    K, m = len(mu), h.shape[1]
    eigenvalues, vectors = a.eigh(sum(np.outer(row, row) for row in centred) / K)
    order = sorted(range(m), key=lambda j: eigenvalues[j], reverse=True)[: K - 1]
    kept = [j for j in order if eigenvalues[j] > (EPS * max(K, m)) ** 2 * eigenvalues[order[0]]]
    total = a.number(0.0)
    for row, c in zip(h, y, strict=True):
        total += sum(((row - mu[c]) @ vectors[:, j]) ** 2 / eigenvalues[j] for j in kept)
    return total / len(y) / K


def _of_head(cloud: Cloud, reference: Cloud, a: Arithmetic) -> dict[str, Any]:
    h, y, K = _exact(cloud.features, a), cloud.labels.tolist(), cloud.K
    w, b = _exact(cloud.weight, a), _exact(cloud.bias, a)
    own = _class_means(h, y, K)
    other = _class_means(_exact(reference.features, a), reference.labels.tolist(), K)
    losses, kappas, surrogates, gaps, predicted = [], [], [], [], []
    for row, c in zip(h, y, strict=True):
        z = [w[k] @ row + b[k] for k in range(K)]
        weights = [a.exp(x - max(z)) for x in z]
        p = [x / sum(weights) for x in weights]
        losses.append(a.log(sum(weights)) + max(z) - z[c])
        mean_row = sum(p[k] * w[k] for k in range(K))
        kappas.append(_square(row) * sum(p[k] * _square(w[k] - mean_row) for k in range(K)))
        # 1 - ||p||^2 as a sum over pairs: float64 has no cancellation in it either.
        impurity = sum(p[i] * p[j] for i, j in itertools.permutations(range(K), 2))
        surrogates.append(_square(w) * impurity * _square(row))
        gaps.append(z[c] - _mean([z[k] for k in range(K) if k != c]))
        predicted.append(max(range(K), key=lambda k: z[k]))
    return {
        "loss": _mean(losses),
        "accuracy": _mean([a.number(float(p == c)) for p, c in zip(predicted, y, strict=True)]),
        "kappa": _mean(kappas),
        "frobenius_surrogate": _mean(surrogates),
        "logit_gap": _mean(gaps),
        "head_norm": a.sqrt(_square(w)),
        "nc4": _agreement(h, predicted, own, a),
        "nc4_about_reference": _agreement(h, predicted, other, a),
        "variance_ratio": _variance_ratio(h, y, own),
        "variance_ratio_about_reference": _variance_ratio(h, y, other),
    }


def _agreement(h: Any, predicted: list[int], mu: list[Any], a: Arithmetic) -> Any:
    nearest = [min(range(len(mu)), key=lambda k: _square(row - mu[k])) for row in h]
    return _mean([a.number(float(s == t)) for s, t in zip(nearest, predicted, strict=True)])


def _variance_ratio(h: Any, y: list[int], mu: list[Any]) -> Any:
    spread = _mean([_square(row - mu[c]) for row, c in zip(h, y, strict=True)])
    return spread / _mean([_square(row - _mean(mu)) for row in mu])
