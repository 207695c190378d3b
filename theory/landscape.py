"""The landscape of the unconstrained-features model: no bad critical points, and the spectra that matter (D2).

F = mean cross-entropy over N = nK samples + (l_W/2)||W||_F^2 + (l_H/2)||H||_F^2 over free W (K x m) and H (m x N);
L = sqrt(n l_W l_H), Hessians are joint in (W, H).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
import torch

from theory.algebra import nuclear_norm
from theory.algebra.matrix_words import IDENTITY, letters
from theory.algebra.nuclear_norm import h, w
from theory.algebra.ufm_second_variation import at_the_minimiser, at_the_origin
from theory.numeric.configurations import Head
from theory.numeric.ufm import FreeFeatures, balanced
from theory.numeric.ufm_spectrum import Spectrum, minimiser, spectrum_at_minimum, spectrum_at_origin
from theory.proof import Proof
from theory.statement import Statement

UFM_LANDSCAPE = Statement(
    "ufm_landscape",
    label="D2",
    claim=(
        "With or without a head bias, every critical point is a global minimiser or has negative curvature. Without "
        "bias, the Hessian at the origin has the eigenvalues (l_W+l_H)/2 +- sqrt(((l_W-l_H)/2)^2 + 1/(K^2 n)) m(K-1) "
        "times each, l_W m times and l_H m(N-K+1) times, the least negative iff L < 1/K; at a global minimiser with "
        "L < 1/K it has the eigenvalues that `spectrum_at_minimum` lists, whose zeros number (K-1)(2m-K)/2: the "
        "rotations; at L = 1/K they number m(K-1)."
    ),
    latex=(
        r"\nabla F = 0 \implies F = \min F \ \text{or}\ \lambda_{\min}(\nabla^2 F) < 0;\qquad "
        r"\dim\ker\nabla^2 F(W_*,H_*) = \tfrac12(K-1)(2m-K)"
    ),
    assumptions={
        "width": "m >= K - 1",
        "balanced": "of the spectra: every class has n samples",
        "free": "the features are free variables",
    },
    source="new (critical points: Zhu et al. 2021, there for m > K; the spectra are new)",
    kind="equality",
)


def critical_points(proof: Proof) -> None:
    """-G at a critical point: norm at most mu (a global minimiser), a free direction, or norm mu after all.

    rank W <= K-1 <= m, as 1'W = 0: where ||G|| > mu, either rank W < m, case (ii), or rank W = m = K-1, case (iii).
    A head bias adds G1 = 0, under which case (i) minimises over Z and the bias together; the others do not use it.
    """
    nuclear_norm.balance_and_centring(proof)
    nuclear_norm.factors_pay_the_nuclear_norm(proof)
    W, H, G, a, u, v, R = letters("W H G a u v R")
    alpha, sigma, excess = sympy.symbols("alpha sigma rho", positive=True)
    critical = [(G @ H.T, -(w**2) * W), (W.T @ G, -(h**2) * H), (H.T @ W.T @ G, -(h**2) * (H.T @ H))]
    paid = (-1 * (H.T @ W.T @ G)).given(critical[1])
    text = "(i) ||G|| <= mu: <-G, Z> = l_H|H|^2 = l_W|W|^2, whose mean is >= mu||Z||_* >= <-G, Z>: equality, minimal"
    other = (-1 * (G @ H.T @ W.T)).given(critical[0])
    proof.require(text, paid.equals(h**2 * (H.T @ H)) and other.equals(w**2 * (W @ W.T)))
    # (ii) Wa = 0: |H'a|^2 l_H = a'(l_H HH')a = a'(l_W W'W)a = 0.
    gram = (a.T @ (H @ H.T) @ a).given((H @ H.T, w**2 / h**2 * (W.T @ W)), (W @ a, 0 * u))
    proof.require("(ii) rank W < m: Wa = 0 gives H'a = 0", gram.equals(0 * gram))
    beta = w * alpha / h  # l_W alpha^2 = l_H beta^2
    dW, dH = alpha * (u @ a.T), beta * (a @ v.T)
    unit = [(a.T @ a, IDENTITY), (u.T @ u, IDENTITY), (v.T @ v, IDENTITY), (W @ a, 0 * u), (a.T @ H, 0 * v.T)]
    first_order = (dW @ H + W @ dH).given(*unit)
    proof.require(
        "dW = alpha u a', dH = beta a v' moves Z to first order by nothing", first_order.equals(0 * first_order)
    )
    product = (dW @ dH).given(*unit)
    proof.require("and dW dH = alpha beta u v', with <G, uv'> = -sigma_1", product.equals(alpha * beta * (u @ v.T)))
    second = w**2 * alpha**2 + h**2 * beta**2 - 2 * alpha * beta * sigma
    below = -second.subs(sigma, w * h + excess)
    proof.nonnegative("second variation < 0 where sigma_1 > mu", below, strictly=True)
    rules = [*critical[:2], (W.T @ W @ R, IDENTITY), (H @ H.T, w**2 / h**2 * (W.T @ W)), (R.T, R)]
    projected = (W @ R @ W.T @ G).given(*rules)
    proof.require(
        "(iii) rank W = m = K-1, W (W'W)^-1 W' = P: G = PG = -l_H W (W'W)^-1 H", projected.equals(-(h**2) * (W @ R @ H))
    )
    square = (projected @ projected.T).given(*rules)
    proof.require("so GG' = mu^2 P: ||G|| = mu, case (i)", square.equals(w**2 * h**2 * (W @ R @ W.T)))


def _zeros(K: Any, m: Any) -> Any:
    return (K - 1) * (2 * m - K) / 2


@UFM_LANDSCAPE.certificate(
    "symbolic",
    covers="every critical point, both spectra: every K >= 2, n, m >= K - 1 and decay",
    relies_on="sympy, matrix words, class matrices, the minimisers of D1; duality of the nuclear norm by name",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """Critical points by matrix words; the spectra family by family of eigenvectors, K as a symbol."""
    critical_points(proof)
    at_the_origin(proof)
    at_the_minimiser(proof, _zeros)


SIZES = ((2, 1, 1), (2, 3, 3), (3, 1, 2), (3, 2, 5), (4, 2, 3), (4, 1, 5), (5, 1, 4), (5, 2, 5))
"""(K, n, m), among them m = K - 1."""


def spectra(
    proof: Proof,
    minimum: Callable[..., Spectrum],
    zeros: Callable[[int, int], float],
    sizes: tuple[tuple[int, int, int], ...],
) -> None:
    """Dense joint Hessians at the explicit minimiser and at the origin, against the claimed eigenvalues."""
    for K, n, m in sizes:
        l_W, l_H = 0.15 / (K * math.sqrt(n)), 0.4 / (K * math.sqrt(n))
        model, name = balanced(K, n, m, l_W, l_H), f"K = {K}, n = {n}, m = {m}"
        point = model.point(minimiser(K, n, m, l_W, l_H, seed=K + m))
        proof.close(f"critical, {name}", model.gradient(point).norm(), 0.0, scale=1.0, rel=1e-14)
        found = model.spectrum(point)
        proof.close(f"spectrum at the minimum, {name}", found, minimum(K, n, m, l_W, l_H), rel=1e-12)
        count = int((found.abs() < 1e-12).sum())
        proof.close(f"zero directions, {name}", count, zeros(K, m), scale=1.0)


def origins(proof: Proof, origin: Callable[..., Spectrum], sizes: tuple[tuple[int, int, int], ...]) -> None:
    """Dense joint Hessians at the origin below, at and above L = 1/K, against the claimed eigenvalues."""
    for (K, n, m), ratio in zip(sizes, (0.3, 1.0, 3.0) * 3, strict=False):
        l_W, l_H = 2 * ratio / (K * math.sqrt(n)), ratio / (2 * K * math.sqrt(n))
        model, name = balanced(K, n, m, l_W, l_H), f"K = {K}, n = {n}, m = {m}, KL = {ratio}"
        found = model.spectrum(torch.zeros(model.size, dtype=torch.float64))
        proof.close(f"spectrum at the origin, {name}", found, origin(K, n, m, l_W, l_H), rel=1e-12)
        sign = float(torch.sign(torch.where(found[0].abs() < 1e-12, 0.0, found[0])))
        proof.close(f"the least has the sign of KL - 1, {name}", sign, np.sign(ratio - 1.0), scale=1.0)
        if ratio == 1.0:
            proof.close(f"zeros, {name}", int((found.abs() < 1e-12).sum()), m * (K - 1), scale=1.0)


@UFM_LANDSCAPE.certificate(
    "numeric", covers="K = 2..5, n = 1..3, m = K-1..K+2", relies_on="joint Hessians by torch.func"
)
def _numeric(proof: Proof) -> None:
    """Every eigenvalue of the dense joint Hessian, at explicit minimisers and at the origin."""
    sizes = SIZES[: proof.cases(6, 8)]
    spectra(proof, spectrum_at_minimum, _zeros, sizes)
    origins(proof, spectrum_at_origin, sizes)


@UFM_LANDSCAPE.certificate(
    "sampled",
    covers="minimisers found from random starts; saddles of rank K - 2, with and without bias",
    relies_on="L-BFGS, joint Hessians",
)
def _critical_points_found(proof: Proof) -> None:
    """Critical points that an optimiser finds: in full width the minimum, in a subspace a saddle of known curvature."""
    for K, n, m, bias in ((3, 2, 2, False), (4, 1, 4, True), (5, 1, 5, False)):
        model = balanced(K, n, m, 0.03, 0.01, bias=bias)
        best = float(model.objective(model.point(minimiser(K, n, m, 0.03, 0.01))))
        for seed in range(proof.cases(2, 10)):
            proof.close("the least F", float(model.objective(model.minimise(seed))), best)
        narrow = balanced(K, n, K - 2, 0.03, 0.01, bias=bias)
        head = narrow.head(narrow.minimise(0))
        padded = [torch.nn.functional.pad(part, (0, m - K + 2)) for part in (head.features, head.weight)]
        point = model.point(Head(padded[0], padded[1], head.bias, head.labels))
        proof.close("critical in the wider model", model.gradient(point).norm(), 0.0, rel=1e-10, scale=1.0)
        errors = head.probabilities - torch.nn.functional.one_hot(head.labels, K)
        sigma = float(torch.linalg.matrix_norm(errors / len(errors), 2))
        curvature = 0.02 - math.hypot(0.01, sigma)
        proof.exceeds("||G|| > mu", sigma, math.sqrt(0.03 * 0.01))
        proof.at_most("and the least eigenvalue at most that of (u a', a v')", model.spectrum(point)[0], curvature)


@UFM_LANDSCAPE.sibling
def _all_rotations_of_the_width(proof: Proof) -> None:
    """The zero directions at the minimiser number m(m-1)/2, the dimension of O(m)."""
    at_the_minimiser(proof, lambda K, m: m * (m - 1) / 2)
    spectra(proof, spectrum_at_minimum, lambda K, m: m * (m - 1) / 2, ((3, 2, 5),))


@UFM_LANDSCAPE.sibling
def _isotropic_within_a_class(proof: Proof) -> None:
    """Within a class every direction of the span has the curvature l_H (1 + Delta p_t)."""

    def isotropic(K: int, n: int, m: int, l_W: float, l_H: float) -> Spectrum:
        L = math.sqrt(n * l_W * l_H)
        gap = math.log(1 / L - K + 1)
        values = spectrum_at_minimum(K, n, m, l_W, l_H)
        across = np.isclose(values, l_H * (1 + gap / K), rtol=1e-12)
        return np.sort(np.where(across, l_H * (1 + gap * (1 - (K - 1) * L)), values))

    spectra(proof, isotropic, _zeros, ((3, 2, 5),))


@UFM_LANDSCAPE.without("width")
def _spurious_minimum(proof: Proof) -> None:
    """K = 6, m = 4 = K - 2: a local minimum, strict but for the rotations, above the global one."""
    model = balanced(6, 1, 4, 0.03, 0.03)
    better, worse = model.minimise(0), model.minimise(4)
    values = model.spectrum(worse)
    proof.close("critical", model.gradient(worse).norm(), 0.0, scale=1.0)
    proof.close("six zero eigenvalues, the rotations of O(4)", values[:6], 0.0, scale=1.0, rel=1e-9)
    proof.exceeds("and the next is positive", float(values[6]), 1e-3)
    proof.exceeds("F there and elsewhere", float(model.objective(worse)), float(model.objective(better)))


@UFM_LANDSCAPE.without("balanced")
def _imbalanced(proof: Proof) -> None:
    """Counts 4, 1, 1 instead of 2, 2, 2: the least eigenvalue at the origin and the trace at the minimum."""
    model = FreeFeatures((4, 1, 1), 3, 0.03, 0.01)
    origin = model.spectrum(torch.zeros(model.size, dtype=torch.float64))
    proof.differ("least eigenvalue at the origin", float(origin[0]), spectrum_at_origin(3, 2, 3, 0.03, 0.01)[0])
    found = model.spectrum(model.minimise(0))
    proof.differ("trace at the minimum", float(found.sum()), float(spectrum_at_minimum(3, 2, 3, 0.03, 0.01).sum()))


@UFM_LANDSCAPE.without("free")
def _dead_features(proof: Proof) -> None:
    """Features relu(u) with every u < 0 and W = 0: critical, no negative curvature, F = log K."""
    model = FreeFeatures((2, 2, 2), 3, 0.03, 0.01, features=torch.relu)
    dead = torch.cat([torch.zeros(9, dtype=torch.float64), -torch.ones(18, dtype=torch.float64)])
    proof.close("critical", model.gradient(dead).norm(), 0.0, scale=1.0)
    proof.at_most("no negative eigenvalue", 0.0, model.spectrum(dead)[0])
    alive = model.point(minimiser(3, 2, 3, 0.03, 0.01))
    proof.exceeds("F against a point with live features", float(model.objective(dead)), float(model.objective(alive)))
