"""The spectrum of the head's Hessian at collapse, with every multiplicity (B5).

The list itself is :func:`theory.numeric.collapse_spectrum.spectrum_at_collapse`, its derivation for every K
:mod:`theory.algebra.collapse_hessian`; here are the statement, the exact Hessians and what goes wrong without
an assumption.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from theory.algebra.collapse_hessian import THETA, UPPER, bounds, curvature_of_outputs, eigenvalues, written_out
from theory.numeric.broken_collapse import COLLAPSE
from theory.numeric.collapse_spectrum import (
    aligned_head,
    hessian_spectrum,
    repeated,
    softmax_curvatures,
    sorted_spectrum,
    values_and_counts,
)
from theory.numeric.configurations import Head, collapsed, generator_of, normal, simplex
from theory.proof import Proof
from theory.statement import Statement

SPECTRUM = Statement(
    "spectrum",
    label="B5",
    claim=(
        "At collapse with a global mean of norm G orthogonal to the centred means (or zero) the Hessian in W has the "
        "eigenvalues (g/K)(b_o + c(1-1/K)) once, (g/K) b_o K^2-3K+1 times, "
        "(s +- sqrt(s^2 - 4 b_o g G^2 (K b_o + (K-1)c)))/(2K) K-1 times each with "
        "s = (b_o + c(1-2/K)) g + (K b_o + c) G^2, and 0 as often as is left (K >= 3; K = 2 has "
        "the first, (G^2/2)(2b_o + c) once and 0). For any global mean the j-th eigenvalue of K H is from b_o to "
        "b_o + c(1-1/K) times the j-th of P (x) Sigma, Sigma = sum h_c h_c^T, and at most b_o times the (j-K)-th."
    ),
    latex=(
        r"\mathrm{spec}(H) = \tfrac gK\big(b_o + c\tfrac{K-1}{K}\big)^{(1)},\ \tfrac gK b_o^{\,(K^2-3K+1)},\ "
        r"\tfrac{1}{2K}\big(s \pm \sqrt{s^2 - 4 b_o g G^2 (K b_o + (K-1)c)}\big)^{(K-1)},\ 0^{(Km - K(K-1))},\quad "
        r"s = (b_o + c\tfrac{K-2}{K})g + (K b_o + c)G^2 \quad (K \ge 3)"
    ),
    assumptions=COLLAPSE
    | {
        "orthogonal": "mu_G is orthogonal to the centred means (for the eigenvalues; the bounds need it not)",
    },
    source="new",
    kind="equality",
)


@SPECTRUM.certificate("symbolic", covers="every K >= 2, Delta > 0, M, mu_G, m", relies_on="sympy", whole=True)
def _symbolic(proof: Proof) -> None:
    """Invariant subspaces by Gram matrices with K a symbol; Loewner bounds and Weyl's inequality for any mean."""
    curvature_of_outputs(proof)
    eigenvalues(proof, THETA)
    bounds(proof, UPPER)


@SPECTRUM.certificate("symbolic", covers="K = 2, 3 (thorough: 4), m = K + 1", relies_on="sympy")
def _small(proof: Proof) -> None:
    """The whole matrix K H written out with symbols, applied to its claimed eigenvectors."""
    written_out(proof, THETA)


# The exact Hessian.


def _spectra(proof: Proof, theta: Callable[[int], float]) -> None:
    for k in range(2, 2 + proof.cases(5, 8)):
        for m, gamma, gap in ((k - 1, 0.0, 3.0), (k + 2, 0.0, 9.0), (k, 0.4, 1.0), (k + 1, 2.0, 5.0)):
            head = collapsed(k, K=k, m=m, gap=gap, radius=1.3, gamma=gamma, counts=2)
            claimed = repeated(*values_and_counts(gap, k, m, 1.3, gamma * 1.3, theta(k)))
            proof.close(f"K = {k}, m = {m}, gamma = {gamma}", hessian_spectrum(head), claimed, rel=1e-11)


@SPECTRUM.certificate("numeric", covers="K = 2..6, four (m, gamma, Delta) each", relies_on="exact Hessians, eigvalsh")
def _numeric(proof: Proof) -> None:
    """Every eigenvalue of the exact Hessian, sorted, against the predicted list with its multiplicities."""
    _spectra(proof, lambda k: 1 - 2 / k)


def _weyl(proof: Proof, upper: Callable[[int], float], outliers: Callable[[int], int]) -> None:
    for k in range(2, 2 + proof.cases(5, 8)):
        for m, size in ((k - 1, 0.0), (k - 1, 0.5), (k, 3.0), (k + 1, 1.0)):
            means = simplex(k, m, 1.2, seed=k) + size * normal(generator_of(k), 1, m)
            found, (low, high, ahead) = k * hessian_spectrum(aligned_head(means, 3.0)), _weyl_bounds(means, 3.0, upper)
            # Zero eigenvalues come out as rounding of either sign.
            rounding = 1e-12 * found[0]
            proof.at_most(f"K = {k}, m = {m}, ||mu_G|| ~ {size}: b_o lambda_j below", low, found + rounding)
            proof.at_most(f"K = {k}, m = {m}, ||mu_G|| ~ {size}: the upper bound", found, high + rounding)
            past = outliers(k)
            if k * m > past:  # K = 2, m = 1 has no more eigenvalues than outliers.
                proof.at_most(
                    f"K = {k}, m = {m}: b_o lambda_(j-{past})", found[past:], ahead[: k * m - past] + rounding
                )


def _weyl_bounds(means: Tensor, gap: float, upper: Callable[[int], float]) -> tuple[NDArray[np.float64], ...]:
    k, m = means.shape
    b, c = softmax_curvatures(gap, k)
    eigenvalues = np.linalg.eigvalsh((means.T @ means).numpy())[::-1].clip(min=0)
    sigma = np.concatenate([np.repeat(eigenvalues, k - 1), np.zeros(m)])
    return b * sigma, (b + c * upper(k)) * sigma, b * sigma


@SPECTRUM.certificate("numeric", covers="K = 2..6, four (m, mu_G) each", relies_on="exact Hessians, eigvalsh")
def _numeric_bounds(proof: Proof) -> None:
    """Every eigenvalue of the exact Hessian against the bounds from Sigma, for global means in any direction."""
    _weyl(proof, lambda k: 1 - 1 / k, lambda k: k)


# Without each assumption, and slightly more.


def _differs(proof: Proof, head: Head, gap: float, radius: float, mean_norm: float) -> None:
    found = hessian_spectrum(head)
    claimed = sorted_spectrum(gap, *head.weight.shape, radius=radius, mean_norm=mean_norm)
    worst = int(np.abs(found - claimed).argmax())
    proof.differ(
        f"eigenvalue {worst + 1} of {len(found)} against the prediction", found[worst], claimed[worst], by=0.01
    )


@SPECTRUM.without("NC1")
def _spread(proof: Proof) -> None:
    """K = 3, m = 4, features scattered about their means by +- e, e orthogonal to the simplex."""
    head = collapsed(0, K=3, m=4, gap=3.0, radius=1.0, counts=2)
    away = torch.linalg.svd(head.weight).Vh[-1] * torch.tensor([1.0, -1.0] * 3, dtype=torch.float64)[:, None]
    _differs(proof, head._replace(features=head.features + away), 3.0, 1.0, 0.0)


@SPECTRUM.without("NC2")
def _not_a_simplex(proof: Proof) -> None:
    """K = 3, means (2, 0), (-1, 1/2), (-1, -1/2): centred, aligned head, no simplex."""
    means = torch.tensor([[2.0, 0.0], [-1.0, 0.5], [-1.0, -0.5]], dtype=torch.float64)
    _differs(proof, aligned_head(means, 3.0), 3.0, math.sqrt(float(means.square().sum()) / 3), 0.0)


@SPECTRUM.without("NC3")
def _turned(proof: Proof) -> None:
    """K = 3, m = 2, the head turned by a right angle against the means."""
    head = collapsed(0, K=3, m=2, gap=3.0, radius=1.0)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    _differs(proof, head._replace(weight=head.weight @ turn), 3.0, 1.0, 0.0)


@SPECTRUM.without("NC3")
def _opposed(proof: Proof) -> None:
    """K = 3, lam < 0: c is negative and the two bounds change places."""
    head = collapsed(0, K=3, m=2, gap=-2.0, radius=1.0)
    true, other = head.probabilities[0, :2].tolist()
    upper = other + (true - other) * (1 - true + other) * 2 / 3
    proof.exceeds("K H against the upper bound, lambda_1 = 3/2", 3 * hessian_spectrum(head)[0], 1.5 * upper)


@SPECTRUM.without("NC4")
def _biased(proof: Proof) -> None:
    """K = 3, a bias of 2 on one class."""
    head = collapsed(0, K=3, m=3, gap=3.0, radius=1.0, gamma=1.0)
    bias = head.bias + torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
    _differs(proof, head._replace(bias=bias), 3.0, 1.0, 1.0)


@SPECTRUM.without("balanced")
def _imbalanced(proof: Proof) -> None:
    """K = 3, classes with 4, 1 and 1 samples."""
    _differs(proof, collapsed(0, K=3, m=3, gap=3.0, radius=1.0, counts=[4, 1, 1]), 3.0, 1.0, 0.0)


@SPECTRUM.without("orthogonal")
def _leaning_mean(proof: Proof) -> None:
    """K = 3, m = 3, a global mean of norm 1 inside the span of the simplex."""
    centred = simplex(3, 3, 1.0)
    _differs(proof, aligned_head(centred + centred[0], 3.0), 3.0, 1.0, 1.0)


@SPECTRUM.sibling
def _degenerate(proof: Proof) -> None:
    """theta = 1 - 1/K: with a mean of zero the largest eigenvalue comes K times."""
    eigenvalues(proof, UPPER)
    written_out(proof, UPPER)
    _spectra(proof, lambda k: 1 - 1 / k)


@SPECTRUM.sibling
def _smaller_factor(proof: Proof) -> None:
    """The upper bound holds with 1 - 2/K in place of 1 - 1/K."""
    bounds(proof, THETA)
    _weyl(proof, lambda k: 1 - 2 / k, lambda k: k)


@SPECTRUM.sibling
def _fewer_outliers(proof: Proof) -> None:
    """At most K - 1 eigenvalues of K H pass those of b_o P (x) Sigma."""
    _weyl(proof, lambda k: 1 - 1 / k, lambda k: k - 1)
