"""The spectrum of the head's Hessian at collapse, as numbers: predicted with multiplicities, and measured (B5).

No computer algebra here: experiments import this file alone. The proof is in :mod:`theory.spectrum`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from theory.formulas import levels
from theory.numeric.configurations import Head
from theory.numeric.oracle import head_hessian


def softmax_curvatures(gap: float, num_classes: int) -> tuple[float, float]:
    """b_o and c of diag(p) - p p^T = b_o P + c u u^T at one logit `gap` >= 0 above K - 1 equal ones, u = P e."""
    q = math.exp(-gap)
    p_true = 1 / (1 + (num_classes - 1) * q)
    # c = K b_o (1 - K b_o), and 1 - K b_o = (1 - q) p_true without cancellation.
    return q * p_true, -num_classes * q * p_true**2 * math.expm1(-gap)


def spectrum_at_collapse(
    gap: float, num_classes: int, num_features: int, *, radius: float = 1.0, mean_norm: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Eigenvalues of the Hessian of the mean cross-entropy in W at balanced collapse, with multiplicities (B5).

    Args:
        gap: the logit gap Delta >= 0, nats.
        num_classes: K >= 2.
        num_features: m >= K - 1, and m >= K where `mean_norm` > 0.
        radius: M, the norm of the centred class means.
        mean_norm: G = ||mu_G||, mu_G orthogonal to the centred means.

    Returns:
        (values, multiplicities), both of shape (r,), zero last; the multiplicities sum to K m. Two of the values
        may coincide. K = 2 has the first line and (G^2/2)(2 b_o + c) alone. Nothing cancels, however large the gap.
    """
    k, m = num_classes, num_features
    if gap < 0 or k < 2 or m < k - (mean_norm == 0):
        raise ValueError(f"no collapse with gap {gap}, {k} classes, {m} features and ||mu_G|| = {mean_norm}")
    return values_and_counts(gap, k, m, radius, mean_norm, 1 - 2 / k)


def values_and_counts(
    gap: float, k: int, m: int, radius: float, mean_norm: float, theta: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """:func:`spectrum_at_collapse` with theta = 1 - 2/K as an argument, so that a wrong one can be tried."""
    b, c = softmax_curvatures(gap, k)
    found = levels(k, b, c, radius**2 * k / (k - 1), mean_norm**2, theta)
    if k == 2:
        values, counts = [found.top, mean_norm**2 * (2 * b + c)], [1, 1]
    else:
        larger = (found.pair_sum + math.sqrt(max(found.pair_sum**2 - 4 * found.pair_product, 0.0))) / 2
        values = [found.top, larger, found.bulk, found.pair_product / larger]
        counts = [1, k - 1, k * k - 3 * k + 1, k - 1]
    if mean_norm == 0:
        values, counts = values[:-1], counts[:-1]
    return np.array([*values, 0.0]) / k, np.array([*counts, k * m - sum(counts)], dtype=np.int64)


def hessian_spectrum(head: Head) -> NDArray[np.float64]:
    """All K m eigenvalues of the exact Hessian in W, descending; automatic differentiation and eigvalsh."""
    size = head.weight.numel()
    found: NDArray[np.float64] = torch.linalg.eigvalsh(head_hessian(head).reshape(size, size)).flip(0).numpy()
    return found


def aligned_head(means: Tensor, gap: float, counts: list[int] | None = None) -> Head:
    """NC1, NC3, NC4 at any class means (K, m): lam = gap (K-1)/(K M^2), M^2 the mean of ||mu_c - mu_G||^2."""
    classes = len(means)
    centred = means - means.mean(dim=0)
    weight = gap * (classes - 1) / float(centred.square().sum()) * centred
    labels = torch.arange(classes).repeat_interleave(torch.tensor(counts or [1] * classes))
    return Head(means[labels], weight, -weight @ means.mean(dim=0), labels)


def sorted_spectrum(
    gap: float, num_classes: int, num_features: int, *, radius: float = 1.0, mean_norm: float = 0.0
) -> NDArray[np.float64]:
    """The K m predicted eigenvalues, descending, shape (K m,); arguments of :func:`spectrum_at_collapse`."""
    return repeated(*spectrum_at_collapse(gap, num_classes, num_features, radius=radius, mean_norm=mean_norm))


def repeated(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each value as often as counted, descending."""
    return np.sort(np.repeat(values, counts))[::-1]
