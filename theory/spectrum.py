"""The spectrum of the head's Hessian at collapse, with every multiplicity (B5).

H = (1/K) sum_c A_c (x) h_c h_c^T with A_c = diag(p_c) - p_c p_c^T = b_o P + c u_c u_c^T. Everything follows from
the Gram matrices of u_c (x) h'_c and u_c (x) ghat, where h'_c are the centred means and ghat is the direction of
the global mean: K is a symbol throughout. The list itself is :func:`theory.collapse_spectrum.spectrum_at_collapse`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor

from theory.class_symmetry import CENTRING, IDENTITY, K, OneClass, outer, softmax_hessian
from theory.collapse_spectrum import (
    Levels,
    aligned_head,
    hessian_spectrum,
    levels,
    repeated,
    softmax_curvatures,
    sorted_spectrum,
    values_and_counts,
)
from theory.configurations import Head, collapsed, generator_of, normal, simplex
from theory.proof import Proof
from theory.statement import Statement

SPECTRUM = Statement(
    "spectrum",
    label="B5",
    claim=(
        "At collapse with a global mean orthogonal to the centred means (or zero) the Hessian in W has at most five "
        "different eigenvalues, known with their multiplicities. For any global mean the j-th eigenvalue of K H is "
        "from b_o to b_o + c(1-1/K) times the j-th of P (x) Sigma, and at most b_o times the (j-K)-th."
    ),
    latex=(
        r"\mathrm{spec}(H) = \tfrac gK\big(b_o + c\tfrac{K-1}{K}\big)^{(1)},\ \tfrac gK b_o^{\,(K^2-3K+1)},\ "
        r"\tfrac{1}{2K}\big(s \pm \sqrt{s^2 - 4 b_o g G^2 (K b_o + (K-1)c)}\big)^{(K-1)},\ 0^{(Km - K(K-1))},\quad "
        r"s = (b_o + c\tfrac{K-2}{K})g + (K b_o + c)G^2 \quad (K \ge 3)"
    ),
    assumptions={
        "NC1": "every feature is its class mean",
        "NC2": "the centred class means form a simplex ETF of radius M",
        "NC3": "w_j = lam (mu_j - mu_G) with lam > 0",
        "NC4": "b_j + w_j . mu_G is the same for every j",
        "balanced": "every class has the same number of samples",
        "orthogonal": "mu_G is orthogonal to the centred means (for the eigenvalues; the bounds need it not)",
    },
    source="new",
    kind="equality",
)

_UPPER = 1 - 1 / K
_THETA = 1 - 2 / K


# Every K, symbolically.


def _same(proof: Proof, text: str, left: OneClass, right: OneClass) -> None:
    both = [sympy.Matrix([x.identity, *x.corner]) for x in (left, right)]
    proof.identity(text, both[0], both[1])


def _curvature_of_outputs(proof: Proof) -> None:
    q = sympy.Symbol("q", positive=True)
    p_true = 1 / (1 + (K - 1) * q)
    b = q * p_true
    u = (1, -1 / K)
    claimed = b * CENTRING + (K * b * (1 - K * b)) * outer(u, u)
    _same(proof, "A_c = b_o P + c u_c u_c^T with c = K b_o (1 - K b_o)", softmax_hessian(p_true, b), claimed)
    for classes in (2, 3):
        p = sympy.Matrix([p_true, *[b] * (classes - 1)]).subs(K, classes)
        written = sympy.diag(*p) - p * p.T
        proof.identity(f"the same, written out for K = {classes}", written, claimed.explicit(classes))
    r = sympy.Symbol("r", positive=True)
    c_of_r = (K * b * (1 - K * b)).subs(q, 1 / (1 + r)).subs(K, 2 + sympy.Symbol("t", positive=True))
    proof.nonnegative("c > 0 for q in (0, 1), K > 2 (K = 2 + t)", c_of_r, strictly=True)
    proof.nonnegative("c > 0 at K = 2", (K * b * (1 - K * b)).subs({q: 1 / (1 + r), K: 2}), strictly=True)


def _squared_gram() -> OneClass:
    """<u_c, u_d>^2 over pairs: the entrywise square of P = a I + s J."""
    a, s = CENTRING.identity, CENTRING.corner[1, 1]
    return OneClass((a + s) ** 2 - s**2, sympy.diag(0, s**2))


def _eigenvalues(proof: Proof, theta: Any) -> None:
    """X = [u_c (x) h'_c / sqrt g], Y = [u_c (x) ghat]: K H = b (g Pi_1 + K G^2 Pi_2) + c F F^T, F = sqrt g X + G Y."""
    b, c, r, G = sympy.symbols("b c r G", positive=True)
    gram, ones = _squared_gram(), outer((0, 1), (0, 1))
    _same(proof, "X^T X = theta on vectors that sum to zero", gram @ CENTRING, theta * CENTRING)
    _same(proof, "X^T X = 1 - 1/K on the vector of ones", gram @ ones, _UPPER * ones)
    # F^T X = sqrt g X^T X and F^T Y = G P, for X is orthogonal to Y, so K H [X Y] = [X Y] blocks.
    blocks = (
        (b * r**2 * IDENTITY + c * r**2 * gram, c * r * G * CENTRING),
        (c * r * G * gram, b * K * G**2 * IDENTITY + c * G**2 * CENTRING),
    )
    claimed = levels(K, b, c, r**2, G**2, theta)
    _same(proof, "X 1 is an eigenvector with the first eigenvalue", blocks[0][0] @ ones, claimed.top * ones)
    _same(proof, "up to Y (X^T X) 1, a multiple of Y 1 = 0", CENTRING @ blocks[1][0] @ ones, 0 * ones)
    scalars = sympy.Matrix([[b * r**2 + c * r**2 * theta, c * r * G], [c * r * G * theta, b * K * G**2 + c * G**2]])
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        text = f"block {i + 1}{j + 1} is a number on the vectors that sum to zero"
        _same(proof, text, blocks[i][j] @ CENTRING, scalars[i, j] * CENTRING)
    proof.identity("its trace is the sum of the pair", scalars.trace(), claimed.pair_sum)
    proof.identity("its determinant is the product of the pair", scalars.det(), claimed.pair_product)
    square = ((b + c * theta) * r**2 - (b * K + c) * G**2) ** 2 + 4 * c**2 * theta * r**2 * G**2
    proof.identity("its discriminant", claimed.pair_sum**2 - 4 * claimed.pair_product, square)
    # What is orthogonal to X in the range of Pi_1, dimension (K-1)^2 - rank X, sees b g alone.
    t = sympy.Symbol("t", nonnegative=True)
    proof.nonnegative("theta > 0 for K >= 3: X has rank K", (1 - 2 / (3 + t)), strictly=True)
    proof.identity("the bulk counts (K-1)^2 - K", (K - 1) ** 2 - K, K**2 - 3 * K + 1)
    proof.identity(
        "the rest of the range of P (x) Sigma counts 1 + 2(K-1)", (K - 1) * K - (K**2 - 3 * K + 1), 2 * K - 1
    )
    _moments(proof, claimed, b, c, r, G)
    two = [value.subs(K, 2) for value in (gram.identity, claimed.bulk, claimed.pair_sum, claimed.pair_product)]
    other = (2 * b + c) * G**2
    proof.identity("K = 2: X has rank 1", two[0], 0)
    proof.identity("K = 2: the pair is the bulk, which X no longer holds, and (2 b + c) G^2", two[2], two[1] + other)
    proof.identity("K = 2: by its product too", two[3], two[1] * other)


def _moments(proof: Proof, claimed: Levels, b: Any, c: Any, r: Any, G: Any) -> None:
    """Tr and Tr of the square, from A_c and <h_c, h_d> alone."""
    inner = {True: 1 - 1 / K, False: -1 / K}
    bulk = K**2 - 3 * K + 1
    first = claimed.top + bulk * claimed.bulk + (K - 1) * claimed.pair_sum
    squares = (K - 1) * (claimed.pair_sum**2 - 2 * claimed.pair_product)
    second = claimed.top**2 + bulk * claimed.bulk**2 + squares
    norm = r**2 * inner[True] + G**2
    impurity = b * (K - 1) + c * inner[True]
    proof.identity("the eigenvalues sum to K Tr H = sum_c ||h_c||^2 Tr A_c", first, K * norm * impurity)
    pairs = 0
    for same, number in ((True, K), (False, K * (K - 1))):
        product = b**2 * (K - 1) + 2 * b * c * inner[True] + c**2 * inner[same] ** 2
        pairs += number * product * (r**2 * inner[same] + G**2) ** 2
    proof.identity("their squares sum to sum_cd Tr(A_c A_d) <h_c, h_d>^2", second, pairs)
    on_curve = impurity.subs(c, K * b * (1 - K * b))
    proof.identity("Tr A_c = U, so kappa = lam^2 g Tr H is the collapse curve", on_curve, (K - 1) * b * (2 - K * b))


def _written_out(proof: Proof, theta: Any) -> None:
    """The invariant blocks on the whole matrix K H, m = K + 1, for small K."""
    b, c, r, G = sympy.symbols("b c r G", positive=True)
    for k in range(2, 3 + proof.cases(1, 2)):
        centring = sympy.eye(k) - sympy.ones(k, k) / k
        last = sympy.Matrix([0] * k + [1])
        units = [sympy.Matrix([*centring[:, s], 0]) for s in range(k)]
        terms = []
        for s in range(k):
            u, h = centring[:, s], r * units[s] + G * last
            terms.append(sympy.kronecker_product(b * centring + c * u * u.T, h * h.T))
        hessian = sum(terms[1:], terms[0])
        X = sympy.Matrix.hstack(*[sympy.kronecker_product(centring[:, s], units[s]) for s in range(k)])
        Y = sympy.Matrix.hstack(*[sympy.kronecker_product(centring[:, s], last) for s in range(k)])
        claimed = levels(sympy.Integer(k), b, c, r**2, G**2, theta.subs(K, k))
        proof.identity(f"K = {k}: K H X 1", hessian * X * sympy.ones(k, 1), claimed.top * X * sympy.ones(k, 1))
        alpha = sympy.Matrix([1, -1] + [0] * (k - 2))
        block = X if k > 2 else Y
        once = hessian * block * alpha
        zero = hessian * once - claimed.pair_sum * once + claimed.pair_product * block * alpha
        proof.identity(f"K = {k}: K H is a root of the pair's polynomial", zero, 0 * zero)
        proof.require(f"K = {k}: X has rank {k if k > 2 else 1}", X.rank() == (k if k > 2 else 1))
        if k > 2:
            outside = sympy.Matrix.hstack(*X.row_join(Y).T.nullspace())
            inside = sympy.kronecker_product(centring, sympy.diag(centring, 0)) * outside
            proof.require(f"K = {k}: the bulk's dimension", inside.rank() == k**2 - 3 * k + 1)
            proof.identity(f"K = {k}: the bulk", hessian * inside, claimed.bulk * inside)


def _bounds(proof: Proof, upper: Any) -> None:
    """b_o P <= A_c <= (b_o + c upper) P, then Weyl."""
    u = (1, -1 / K)
    gap = upper * CENTRING + (-1) * outer(u, u)
    _same(proof, "upper P - u u^T is upper times a projection, hence >= 0", gap @ gap, upper * gap)
    _same(proof, "and it lives in the range of P", CENTRING @ gap, gap)
    b, c = sympy.symbols("b c", positive=True)
    for k, m in ((2, 1), (2, 3), (3, 2)):
        H = sympy.Matrix(m, k, lambda i, j: sympy.Symbol(f"h{i}{j}"))
        centring = sympy.eye(k) - sympy.ones(k, k) / k
        F = sympy.Matrix.hstack(*[sympy.kronecker_product(centring[:, s], H[:, s]) for s in range(k)])
        whole = sympy.zeros(k * m, k * m)
        for s in range(k):
            A = b * centring + c * centring[:, s] * centring[:, s].T
            whole += sympy.kronecker_product(A, H[:, s] * H[:, s].T)
        excess = whole - b * sympy.kronecker_product(centring, H * H.T)
        # A sum of K squares: >= 0, and by Weyl's inequality at most K eigenvalues pass those of b P (x) Sigma.
        proof.identity(f"K H - b P (x) Sigma = c F F^T with K columns, any features ({k}, {m})", excess, c * F * F.T)


@SPECTRUM.certificate("symbolic", covers="every K >= 2, Delta > 0, M, mu_G, m", relies_on="sympy", whole=True)
def _symbolic(proof: Proof) -> None:
    """Invariant subspaces by Gram matrices with K a symbol; Loewner bounds and Weyl's inequality for any mean."""
    _curvature_of_outputs(proof)
    _eigenvalues(proof, _THETA)
    _bounds(proof, _UPPER)


@SPECTRUM.certificate("symbolic", covers="K = 2, 3 (thorough: 4), m = K + 1", relies_on="sympy")
def _small(proof: Proof) -> None:
    """The whole matrix K H written out with symbols, applied to its claimed eigenvectors."""
    _written_out(proof, _THETA)


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
            proof.at_most(f"K = {k}, m = {m}: b_o lambda_(j-{past})", found[past:], ahead[: k * m - past] + rounding)


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
    _eigenvalues(proof, _UPPER)
    _written_out(proof, _UPPER)
    _spectra(proof, lambda k: 1 - 1 / k)


@SPECTRUM.sibling
def _smaller_factor(proof: Proof) -> None:
    """The upper bound holds with 1 - 2/K in place of 1 - 1/K."""
    _bounds(proof, _THETA)
    _weyl(proof, lambda k: 1 - 2 / k, lambda k: k)


@SPECTRUM.sibling
def _fewer_outliers(proof: Proof) -> None:
    """At most K - 1 eigenvalues of K H pass those of b_o P (x) Sigma."""
    _weyl(proof, lambda k: 1 - 1 / k, lambda k: k - 1)
