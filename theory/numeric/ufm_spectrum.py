"""The spectra of the unconstrained-features model's joint Hessian, as numbers, and an explicit minimiser (D2)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from theory.formulas import ufm_gap
from theory.numeric.configurations import Head, simplex

Spectrum = NDArray[np.float64]


def spectrum_at_origin(K: int, n: int, m: int, l_W: float, l_H: float) -> Spectrum:
    """The eigenvalues of the joint Hessian at W = 0, H = 0, ascending, shape (Km + mnK,).

    Args:
        K: classes.
        n: samples in each.
        m: width, any.
        l_W, l_H: weight decays.
    """
    middle, half = (l_W + l_H) / 2, math.sqrt(((l_W - l_H) / 2) ** 2 + 1 / (K**2 * n))
    times = [(middle + half, m * (K - 1)), (middle - half, m * (K - 1)), (l_W, m), (l_H, m * (n * K - K + 1))]
    return _sorted(times)


def spectrum_at_minimum(K: int, n: int, m: int, l_W: float, l_H: float) -> Spectrum:
    """The eigenvalues of the joint Hessian at every global minimiser, ascending, shape (Km + mnK,).

    Args:
        K: classes.
        n: samples in each.
        m: width, at least K - 1.
        l_W, l_H: weight decays, positive. Where L = sqrt(n l_W l_H) >= 1/K the minimiser is the origin.

    Returns:
        With tau = Delta/K, psi = Delta (1-KL), theta = 1-2/K, s = sqrt(l_W l_H) and E(a, e) the eigenvalues of
        [[l_W (1+a), s e], [s e, l_H (1+a)]]:

        - features within a class, for each of K (n-1): l_H (1+Delta p_t) along the class mean, l_H (1+Delta/K)
          K-2 times across it, l_H m-K+1 times outside the span of the head;
        - class means and head outside the span: 0 and l_W + l_H (K-1)(m-K+1) times each, l_W and l_H m-K+1 times;
        - shift of all rows of W: l_W K-1 times;
        - class means and head inside the span: E(Delta p_t, Delta p_t - 1) once, E(tau, tau+1) (K-1)(K-2)/2 times
          (one 0 each), E(tau, tau-1) K(K-3)/2 times, and K-1 times the eigenvalues of the symmetric `triple` below
          (K = 2: instead of all but the first, l_H (1+tau+psi/2) once).

    Raises:
        ValueError: m < K - 1.
    """
    if m < K - 1:
        raise ValueError(f"{K} classes need a width of {K - 1}, got {m}")
    L = math.sqrt(n * l_W * l_H)
    if L >= 1 / K:
        return spectrum_at_origin(K, n, m, l_W, l_H)
    gap = float(ufm_gap(L, K))
    p, tau, psi, s, theta = 1 - (K - 1) * L, gap / K, gap * (1 - K * L), math.sqrt(l_W * l_H), 1 - 2 / K
    outside = m - K + 1
    times = [
        (l_H * (1 + gap * p), K * (n - 1)),
        (l_H * (1 + tau), K * (n - 1) * (K - 2)),
        (l_H, K * (n - 1) * outside + outside),
        (0.0, (K - 1) * outside),
        (l_W + l_H, (K - 1) * outside),
        (l_W, outside + K - 1),
    ]
    pairs = [
        (gap * p, gap * p - 1, 1),
        (tau, tau + 1, (K - 1) * (K - 2) // 2),
        (tau, tau - 1, max(K * (K - 3) // 2, 0)),
    ]
    for a, e, count in pairs:
        values = np.linalg.eigvalsh([[l_W * (1 + a), s * e], [s * e, l_H * (1 + a)]])
        times += [(float(value), count) for value in values]
    if K == 2:
        return _sorted([*times, (l_H * (1 + tau + psi / 2), 1)])
    cross = psi * math.sqrt(theta / K)
    triple = [
        [l_W * (1 + tau + psi * theta), s * (tau + psi * theta - 1), s * cross],
        [s * (tau + psi * theta - 1), l_H * (1 + tau + psi * theta), l_H * cross],
        [s * cross, l_H * cross, l_H * (1 + tau + psi / K)],
    ]
    return _sorted([*times, *((float(value), K - 1) for value in np.linalg.eigvalsh(triple))])


def _sorted(times: list[tuple[float, int]]) -> Spectrum:
    return np.sort(np.repeat([value for value, _ in times], [count for _, count in times]).astype(np.float64))


def minimiser(K: int, n: int, m: int, l_W: float, l_H: float, seed: int = 0) -> Head:
    """An explicit global minimiser for L < 1/K, in a random rotation: W W^T = sqrt(l_H/l_W) sqrt(n) Delta P."""
    gap = float(ufm_gap(math.sqrt(n * l_W * l_H), K))
    rows = simplex(K, m, math.sqrt((K - 1) / K), seed)
    size = math.sqrt(math.sqrt(n * l_H / l_W) * gap)
    labels = torch.arange(K).repeat_interleave(n)
    return Head(gap / size * rows[labels], size * rows, torch.zeros(K, dtype=torch.float64), labels)
