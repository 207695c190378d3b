"""I(Z;X|Y) and I(Z;Y|S) by Monte Carlo in any dimension, with standard errors, for features that are normal mixtures.

A point is a normal component without covariance, so finite distributions are covered. Densities are exact; only the
mean of their log ratio is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Component(NamedTuple):
    """Features that are N(mean, cov) given (y, s), with their probability; mean (m,), cov (m, m)."""

    share: float
    mean: Array
    cov: Array
    y: int
    s: int = 0


class Sampled(NamedTuple):
    """A mean of draws with its standard error, nats."""

    value: float
    stderr: float


def points(features: Array, labels: Sequence[int], superclasses: Sequence[int] | None = None) -> list[Component]:
    """Equally likely samples (n, m)."""
    n, m = features.shape
    upper = [0] * n if superclasses is None else superclasses
    nothing = np.zeros((m, m))
    return [Component(1 / n, h, nothing, y, s) for h, y, s in zip(features, labels, upper, strict=True)]


def sampled_information(
    parts: Sequence[Component], of: str, given: str, noise: float, *, draws: int, seed: int
) -> Sampled:
    """E log p(z|of, given)/p(z|given); `of` is "x" or "y", `given` "y" or "s"; x is the feature itself."""
    rng = np.random.default_rng(seed)
    shares = np.array([part.share for part in parts])
    counts = rng.multinomial(draws, shares / shares.sum())
    logs = []
    for part, count in zip(parts, counts, strict=True):
        if not count:
            continue
        m = len(part.mean)
        h = part.mean + rng.standard_normal((count, m)) @ _root(part.cov).T
        z = h + noise * rng.standard_normal((count, m))
        group = [other for other in parts if getattr(other, given) == getattr(part, given)]
        if of == "x":
            known = -((z - h) ** 2).sum(axis=1) / (2 * noise**2) - m * math.log(noise) - m * math.log(2 * math.pi) / 2
        else:
            known = _log_density(z, [other for other in group if other.y == part.y], noise)
        logs.append(known - _log_density(z, group, noise))
    values = np.concatenate(logs)
    return Sampled(float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values)))


def covariances(parts: Sequence[Component], given: str) -> list[tuple[float, Array]]:
    """The probability of each class and the covariance of its features."""
    found, total = [], sum(part.share for part in parts)
    for value in sorted({getattr(part, given) for part in parts}):
        own = [part for part in parts if getattr(part, given) == value]
        share = np.array([part.share for part in own])
        means = np.stack([part.mean for part in own])
        mean = share @ means / share.sum()
        second = sum(part.share * (part.cov + np.outer(part.mean - mean, part.mean - mean)) for part in own)
        found.append((float(share.sum()) / total, np.asarray(second / share.sum())))
    return found


def bounds_by_eigenvalues(parts: Sequence[Component], given: str, noise: float) -> tuple[float, float, float]:
    """(1/2) E log det(Cov/noise^2 + I), the same of the mean covariance, and the trace bound."""
    found = covariances(parts, given)
    mean = sum(share * cov for share, cov in found)
    log_det = sum(share * _half_log_det(cov, noise) for share, cov in found)
    return log_det, _half_log_det(mean, noise), float(np.trace(mean)) / (2 * noise**2)


def _half_log_det(cov: Any, noise: float) -> float:
    return float(np.linalg.slogdet(cov / noise**2 + np.eye(len(cov)))[1]) / 2


def _log_density(z: Array, mixture: Sequence[Component], noise: float) -> Array:
    whole = sum(part.share for part in mixture)
    logs = []
    for part in mixture:
        cov = part.cov + noise**2 * np.eye(z.shape[1])
        off = z - part.mean
        quadratic = (off * np.linalg.solve(cov, off.T).T).sum(axis=1)
        constant = np.linalg.slogdet(cov)[1] + z.shape[1] * math.log(2 * math.pi)
        logs.append(math.log(part.share / whole) - (quadratic + constant) / 2)
    stacked = np.stack(logs)
    top = stacked.max(axis=0)
    return np.asarray(top + np.log(np.exp(stacked - top).sum(axis=0)))


def _root(cov: Array) -> Array:
    values, vectors = np.linalg.eigh(cov)
    return np.asarray(vectors * np.sqrt(np.clip(values, 0, None)))
