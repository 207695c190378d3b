"""The collapsed head for every K at once: its outputs, its impurity, and kappa from two matrices (B1).

The softmax Hessian of a collapsed sample and the Gram matrix of a simplex are matrices that single out one class
(:mod:`theory.algebra.class_symmetry`).
"""

from __future__ import annotations

from typing import Any

import sympy

from theory.algebra.class_symmetry import CENTRING, K, outer, softmax_hessian
from theory.proof import Proof

q, M, lam, gamma = sympy.symbols("q M lambda gamma", positive=True)
"""e^-Delta, the radius of the centred means, the head's factor of NC3, and ||mu_G||/M."""

p_true = 1 / (1 + (K - 1) * q)
p_other = q * p_true

IMPURITY = (K - 1) * q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2
"""U = 1 - ||p||^2 as a function of q."""


def averaged(polynomial: Any, centred: Any, noise: Any) -> Any:
    """The average over all samples, classes balanced, of a polynomial in one coordinate of h = mu_G + centred + noise.

    `centred` averages to zero over the classes, and `noise` within each class, where `centred` is a constant: the
    monomials of first degree in either are dropped. Every other monomial stands for its own average, and a sum over
    coordinates turns squares into squared norms, so no K and no m enters.
    """
    terms = sympy.Poly(polynomial, centred, noise).terms()
    kept = [(powers, factor) for powers, factor in terms if powers[1] != 1 and powers != (1, 0)]
    return sum(factor * centred ** powers[0] * noise ** powers[1] for powers, factor in kept)


def derive(proof: Proof, factor: Any) -> None:
    """From the softmax Hessian and the simplex Gram matrix to `factor` Delta^2 U, K a symbol."""
    gram = M**2 * K / (K - 1) * CENTRING
    e, one = (1, 0), (0, 1)
    proof.identity("NC2: the Gram matrix of the centred means is M^2 K/(K-1) P: diagonal M^2", gram.form(e, e), M**2)
    other = (gram.form(e, one) - gram.form(e, e)) / (K - 1)
    proof.identity("... and off-diagonal -M^2/(K-1)", other, -(M**2) / (K - 1))
    gap = lam * M**2 * K / (K - 1)
    proof.identity("NC3, NC4: true minus other logit is lambda (M^2 + M^2/(K-1)) = Delta", lam * (M**2 - other), gap)
    proof.identity("softmax: p_true + (K-1) p_other = 1", p_true + (K - 1) * p_other, 1)
    proof.identity("softmax: p_other/p_true = q = e^-Delta", p_other / p_true, q)
    hessian = softmax_hessian(p_true, p_other)
    proof.identity(
        "A1: each row of diag(p) - p p^T sums to zero", (hessian @ outer(one, one)).corner, sympy.zeros(2, 2)
    )
    variance = (hessian @ (lam**2 * gram)).trace()
    proof.identity("Tr(A_c W W^T) = lambda^2 M^2 (K/(K-1)) U", variance, lam**2 * M**2 * K / (K - 1) * IMPURITY)
    proof.identity("the centred means sum to zero: P 1 = 0", (CENTRING @ outer(one, one)).corner, sympy.zeros(2, 2))
    centred, mean, noise = sympy.symbols("m g v")
    mean_square = averaged((centred + mean) ** 2, centred, noise)
    proof.identity("so mean ||mu_c||^2 = M^2 + ||mu_G||^2, each coordinate", mean_square, centred**2 + mean**2)
    mean_norm = mean_square.subs({centred: M, mean: gamma * M})
    proof.identity(
        "kappa = mean ||mu_c||^2 Tr(A_c W W^T), with lambda eliminated",
        mean_norm * variance,
        factor * gap**2 * IMPURITY,
    )
