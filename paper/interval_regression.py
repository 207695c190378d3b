"""A line through numbers known to lie in intervals: y = a + b x + s N(0, 1), by maximum likelihood, many at once.

With gamma = 1/s and delta = gamma (b, a) the log likelihood, a sum of log(Phi(gamma high - delta X) - Phi(gamma low -
delta X)), is concave (Burridge 1981), so that Newton steps, halved where they overshoot, find its maximum; a bound on
gamma keeps s from 0. All samples of a bootstrap are arrays of one shape, and take their steps together.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr  # type: ignore[import-untyped]

Values = NDArray[np.float64]
_LOG_ROOT = math.log(2 * math.pi) / 2
_STEPS, _HALVINGS, _TOLERANCE = 100, 40, 1e-12


def fit(x: Values, low: Values, high: Values, least_spread: float) -> tuple[Values, Values, Values]:
    """Slope, intercept and spread of each sample, shape (B,).

    Args:
        x: where, (B, n).
        low, high: the interval of y, (B, n); `high` may be infinite.
        least_spread: what s is at least.
    """
    design = np.stack([x, np.ones_like(x)], axis=2)
    point = _start(design, low, high, least_spread)
    value = _log_likelihood(point, design, low, high)
    for _ in range(_STEPS):
        step = _newton(point, design, low, high, 1 / least_spread)
        # Half where it does not rise; where nothing rises any more the step is none.
        factor = np.ones(len(point))
        for _ in range(_HALVINGS):
            tried = point + factor[:, None] * step
            tried[:, 0] = np.clip(tried[:, 0], 1e-6, 1 / least_spread)
            found = _log_likelihood(tried, design, low, high)
            worse = ~(found >= value)
            if not worse.any():
                break
            factor[worse] /= 2
        tried[worse], found[worse] = point[worse], value[worse]
        moved = np.abs(tried - point).max(axis=1) > 1e-10 * np.abs(point).max(axis=1)
        gained = found - value > _TOLERANCE * np.maximum(np.abs(value), 1)
        point, value = tried, found
        if not (moved & gained).any():
            break
    gamma = point[:, 0]
    return point[:, 1] / gamma, point[:, 2] / gamma, 1 / gamma


def log_between(a: Values, b: Values) -> Values:
    """log(Phi(b) - Phi(a)) for a < b, b may be infinite, with its digits in both tails."""
    flip = a > 0  # Phi(b) - Phi(a) = Phi(-a) - Phi(-b)
    lower, upper = np.where(flip, -b, a), np.where(flip, -a, b)
    smaller, larger = log_ndtr(lower), log_ndtr(upper)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.isneginf(smaller), 0.0, np.exp(np.minimum(smaller - larger, -1e-15)))
    found: Values = larger + np.log1p(-ratio)
    return found


def _start(design: Values, low: Values, high: Values, least_spread: float) -> Values:
    """Least squares through the ends that are finite, and the spread about it."""
    seen = np.isfinite(high)
    y = np.where(seen, high, low)
    gram = np.einsum("bni,bnj->bij", design, design) + 1e-9 * np.eye(2)
    line = np.linalg.solve(gram, np.einsum("bni,bn->bi", design, y)[..., None])[..., 0]
    spread = np.maximum(np.sqrt(np.mean((y - np.einsum("bni,bi->bn", design, line)) ** 2, axis=1)), 10 * least_spread)
    return np.column_stack([1 / spread, line / spread[:, None]])


def _ends(point: Values, design: Values, low: Values, high: Values) -> tuple[Values, Values]:
    middle, gamma = np.einsum("bni,bi->bn", design, point[:, 1:]), point[:, :1]
    return gamma * low - middle, gamma * high - middle


def _log_likelihood(point: Values, design: Values, low: Values, high: Values) -> Values:
    found: Values = log_between(*_ends(point, design, low, high)).sum(axis=1)
    return found


def _newton(point: Values, design: Values, low: Values, high: Values, bound: float) -> Values:
    below, above = _ends(point, design, low, high)
    logs = log_between(below, above)
    # The densities at the ends over the probability between them.
    at_low, at_high = (np.exp(np.minimum(-(end**2) / 2 - _LOG_ROOT - logs, 700)) for end in (below, above))
    infinite = np.isinf(above)
    with np.errstate(invalid="ignore"):
        second_high = np.where(infinite, 0.0, -above * at_high) - at_high**2
        ends_high = np.where(infinite, 0.0, high)
    second_low, crossed = below * at_low - at_low**2, at_low * at_high
    # d above / d(gamma, delta) = (high, -X), d below = (low, -X).
    to_high = np.concatenate([ends_high[..., None], -design], axis=2)
    to_low = np.concatenate([low[..., None], -design], axis=2)
    gradient = np.einsum("bn,bni->bi", at_high, to_high) - np.einsum("bn,bni->bi", at_low, to_low)
    both = np.einsum("bn,bni,bnj->bij", crossed, to_high, to_low)
    hessian = (
        np.einsum("bn,bni,bnj->bij", second_high, to_high, to_high)
        + np.einsum("bn,bni,bnj->bij", second_low, to_low, to_low)
        + both
        + both.transpose(0, 2, 1)
    )
    # At its bound gamma stays where it would go on.
    held = (point[:, 0] >= bound) & (gradient[:, 0] > 0)
    gradient[held, 0] = 0
    hessian[held, 0, :] = hessian[held, :, 0] = 0
    hessian[held, 0, 0] = -1
    scale = np.abs(np.diagonal(hessian, axis1=1, axis2=2)).max(axis=1)
    damped = -hessian + 1e-12 * scale[:, None, None] * np.eye(3)
    step: Values = np.linalg.solve(damped, gradient[..., None])[..., 0]
    return step
