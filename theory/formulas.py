"""The closed forms of B1, B2, B5, D1 and D4: what experiments draw, without the proofs.

Under neural collapse (NC1-NC4, balanced classes) the head's relative flatness depends on three numbers
alone: the classes K, the logit gap Delta and the ratio gamma = ||mu_G|| / M of the global mean's norm to
the radius of the centred class means. Sources: B1 and B2 sharpen the published inequality of "Flatness is
Necessary, Neural Collapse is Not" (NeurIPS 2025) to an equality.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = float | NDArray[np.float64]


def softmax_impurity(gap: Values, num_classes: int) -> NDArray[np.float64]:
    """U(Delta) = 1 - ||p||^2 where one logit stands Delta above K - 1 equal ones.

    Args:
        gap: Delta, any shape, in nats.
        num_classes: K >= 2.

    Returns:
        (K-1) q (2 + (K-2) q) / (1 + (K-1) q)^2 with q = exp(-Delta), the shape of `gap`.
    """
    k = num_classes
    # Scaled by e^{-|Delta|} so that neither sign of the gap overflows.
    delta = np.asarray(gap, dtype=np.float64)
    q = np.exp(-np.abs(delta))
    above = (k - 1) * q * (2 + (k - 2) * q) / (1 + (k - 1) * q) ** 2
    below = (k - 1) * (2 * q + (k - 2)) / (q + (k - 1)) ** 2
    return np.asarray(np.where(delta >= 0, above, below))


def kappa_at_collapse(gap: Values, num_classes: int, gamma: Values = 0.0) -> NDArray[np.float64]:
    """B1: kappa = (1 + gamma^2) ((K-1)/K) Delta^2 U(Delta).

    Args:
        gap: the logit gap Delta, in nats.
        num_classes: K >= 2.
        gamma: ||mu_G|| / M; broadcast against `gap`.
    """
    k, delta = num_classes, np.asarray(gap, dtype=np.float64)
    factor = (1 + np.asarray(gamma, dtype=np.float64) ** 2) * (k - 1) / k
    impurity = softmax_impurity(delta, k)
    # An infinite gap has impurity 0 exactly, and the exponential beats the square.
    return np.asarray(factor * np.where(impurity > 0, delta, 0.0) ** 2 * impurity)


def loss_of_published_bound(gap: Values, num_classes: int) -> NDArray[np.float64]:
    """B3: how many times kappa at collapse with mu_G = 0 the published bound is, K^2 / (2 + (K-2) exp(-Delta)).

    Args:
        gap: the logit gap Delta, in nats.
        num_classes: K >= 2.
    """
    return np.asarray(num_classes**2 / (2 + (num_classes - 2) * np.exp(-np.asarray(gap, dtype=np.float64))))


def gap_of_loss(loss: Values, num_classes: int) -> NDArray[np.float64]:
    """Delta = log((K-1) / (e^eps - 1)): the gap at which collapse has mean cross-entropy eps (nats)."""
    eps = np.asarray(loss, dtype=np.float64)
    # log(e^eps - 1) = eps + log(1 - e^-eps), which overflows at no loss.
    return np.asarray(np.log(num_classes - 1) - eps - np.log(-np.expm1(-eps)))


def ufm_gap(decay: Values, num_classes: int, smoothing: float = 0.0) -> NDArray[np.float64]:
    """D1, D4: the logit gap at the global minimisers of the unconstrained-features model.

    Args:
        decay: L = sqrt(n l_W l_H) > 0, any shape; n samples in each class, l_W and l_H the weight decays.
        num_classes: K >= 2.
        smoothing: a in [0, 1], targets (1 - a) e_y + a/K. L may be 0 where a > 0.

    Returns:
        log(1/b - K + 1) with b = L + a/K, in nats, the shape of `decay`; 0 where b >= 1/K.
    """
    k = num_classes
    off = np.minimum(np.asarray(decay, dtype=np.float64) + smoothing / k, 1 / k)
    # 1/b - K + 1 = 1 + (1 - Kb)/b keeps the digits of a small gap.
    return np.asarray(np.log1p((1 - k * off) / off))


def kappa_of_ufm(decay: Values, num_classes: int, smoothing: float = 0.0) -> NDArray[np.float64]:
    """D1, D4: kappa = ((K-1)^2/K) b (2 - Kb) Delta^2 at those minimisers, b = L + a/K; 0 where b >= 1/K.

    Args:
        decay: L = sqrt(n l_W l_H) > 0, any shape.
        num_classes: K >= 2.
        smoothing: a in [0, 1]; as L -> 0 kappa tends to its value at b = a/K.
    """
    k = num_classes
    off = np.minimum(np.asarray(decay, dtype=np.float64) + smoothing / k, 1 / k)
    return np.asarray((k - 1) ** 2 / k * off * (2 - k * off) * ufm_gap(decay, k, smoothing) ** 2)


class Levels(NamedTuple):
    """Eigenvalues of K H for K >= 3: `top` once, `bulk` K^2-3K+1 times, a pair of given sum and product K-1 times."""

    top: Any
    bulk: Any
    pair_sum: Any
    pair_product: Any


def levels(K: Any, b: Any, c: Any, g: Any, G2: Any, theta: Any) -> Levels:
    """The claim, for numbers or symbols: g = M^2 K/(K-1), G2 = ||mu_G||^2, theta = 1 - 2/K."""
    pair_sum = (b + c * theta) * g + (K * b + c) * G2
    return Levels(g * (b + c * (1 - 1 / K)), g * b, pair_sum, b * g * G2 * (K * b + c * (1 + K * theta)))
