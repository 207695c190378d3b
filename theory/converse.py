"""Flat heads with low loss need no collapse: noise that the head does not see, and noise that it does (B7).

The heads that show it are built in :mod:`theory.numeric.noncollapsed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.algebra.class_pairs import lagrange
from theory.algebra.class_symmetry import CENTRING, K, OneClass, softmax_hessian
from theory.algebra.collapse import IMPURITY, averaged, p_other, p_true, q
from theory.formulas import kappa_at_collapse
from theory.numeric.configurations import Head, collapsed
from theory.numeric.noncollapsed import collapse_of, with_noise_in_span, with_silent_noise
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free
from theory.proof import Proof
from theory.statement import Statement

CONVERSE_FAILS = Statement(
    "converse_fails",
    label="B7",
    claim=(
        "Flat heads with vanishing loss need no collapse: noise of size sigma M that the head does not see leaves "
        "kappa = (1+sigma^2+gamma^2) ((K-1)/K) Delta^2 U -> 0 with Tr Sigma_W/Tr Sigma_B = sigma^2; noise inside the "
        "span, sigma < sqrt(K/(2(K-1))), lets kappa -> 0 with every NC1 metric fixed."
    ),
    latex=(
        r"\kappa = (1+\sigma^2+\gamma^2)\tfrac{K-1}{K}\Delta^2 U(\Delta) \quad\text{and}\quad "
        r"\kappa \le 2(1+\sigma^2+\gamma^2)\tfrac{(K-1)^2}{K}\Delta^2 e^{-(1-\eta)\Delta},\ "
        r"\eta = \sigma\sqrt{2(K-1)/K}"
    ),
    assumptions={
        "mean_zero": "the noise has mean zero within each class",
        "silent": "first part: the noise is orthogonal to the rows of W",
        "wide": "first part: m >= K, so that there is such a direction",
        "small": "second part: every noise vector has norm sigma M with sigma < sqrt(K/(2(K-1)))",
    },
    source="new",
    kind="existence",
)

# Every K.

_SIGMA, _M, _G, _LAM = sympy.symbols("sigma M G lam", positive=True)
_g = _M**2 * K / (K - 1)
_GRAM: OneClass = _g * CENTRING
"""C^T C of the centred class means, the columns of C (m x K); W = lam C^T."""


def _mean_norm(proof: Proof) -> Any:
    """mean ||h||^2 of h = mu_c + v, whatever the directions of mu_G and of the noise."""
    centred, mean, noise = sympy.symbols("m g v")
    found = averaged((mean + centred + noise) ** 2, centred, noise)
    text = "no cross term is left in mean ||h||^2, each coordinate, any mu_G"
    proof.identity(text, found, centred**2 + mean**2 + noise**2)
    return found.subs({centred: _M, mean: _G, noise: _SIGMA * _M})


def _papyan(proof: Proof, heard: Any, claimed: Any) -> None:
    """Papyan's NC1 = Tr(Sigma_W Sigma_B^+)/K of noise v with mean ||C^T v||^2 = `heard`."""
    square, line = _GRAM @ _GRAM, _g * _GRAM
    # So Sigma_B = C C^T/K has the one eigenvalue g/K off its kernel, and Sigma_B^+ = (K/g) C C^T/g.
    proof.identity("(C^T C)^2 = g C^T C: the identity", square.identity, line.identity)
    proof.identity("... and the corner", square.corner, line.corner)
    found = K / _g * heard / _g / K
    proof.identity("Papyan's NC1 = mean v^T Sigma_B^+ v/K = mean ||C^T v||^2/g^2", found, claimed)


def _metrics(proof: Proof) -> None:
    """The metrics that see the amount of the noise alone: none of them holds Delta."""
    within, between = (_SIGMA * _M) ** 2, _GRAM.trace() / K
    proof.identity("Tr Sigma_W / Tr Sigma_B = sigma^2, whatever Delta", within / between, _SIGMA**2)
    pairs = within / _squared_distance(_GRAM)
    proof.identity("CDNV = V/||mu_c - mu_d||^2 = sigma^2 (K-1)/(2K)", pairs, _SIGMA**2 * (K - 1) / (2 * K))


def _squared_distance(gram: OneClass) -> Any:
    """||x_c - x_d||^2 for c != d from the Gram matrix of the x, which is the same for every pair."""
    same = gram.form((1, 0), (1, 0))
    other = (gram.form((1, 0), (0, 1)) - same) / (K - 1)
    return 2 * (same - other)


def _silent_noise(proof: Proof, papyan: Any) -> None:
    """First part: norms and logits by inner products, Var_p(w) by the one-class algebra."""
    variance = (softmax_hessian(p_true, p_other) @ (_LAM**2 * _GRAM)).trace()
    gap = _LAM * _g
    claimed = (1 + _SIGMA**2 + _G**2 / _M**2) * (K - 1) / K * gap**2 * IMPURITY
    text = "mean ||h||^2 Var_p(w) = (1+sigma^2+gamma^2) ((K-1)/K) Delta^2 U"
    proof.identity(text, _mean_norm(proof) * variance, claimed)
    D = sympy.Symbol("Delta", positive=True)
    proof.require("Delta^2 q -> 0 as Delta -> oo", sympy.limit(D**2 * sympy.exp(-D), D, sympy.oo) == 0)
    proof.identity("U/q -> 2(K-1)", sympy.cancel(IMPURITY / q).subs(q, 0), 2 * (K - 1))
    proof.identity("the outputs are those of collapse: e^loss = 1/p_y = 1 + (K-1) q -> 1", 1 / p_true, 1 + (K - 1) * q)
    _metrics(proof)
    # C^T v = W v/lam = 0.
    _papyan(proof, sympy.Integer(0), papyan)


def _noise_in_span(proof: Proof, eta: Any) -> None:
    """Second part: the logit margins that are left, then 1 - p_y and U, each as an explicit sum of squares."""
    D = sympy.Symbol("Delta", positive=True)
    distance = _squared_distance(_LAM**2 * _GRAM)
    # <w_y - w_j, v> >= -||w_y - w_j|| ||v|| by Cauchy-Schwarz.
    lost = (distance * (_SIGMA * _M) ** 2).subs(_LAM, D / _g)
    proof.identity("||w_y - w_j||^2 ||v||^2 = (eta Delta)^2", lost, (eta * D) ** 2)
    lagrange(proof, "Lagrange's identity, every m")
    S, x, rest = sympy.symbols("S x r", positive=True)
    proof.nonnegative("1 - p_y = S/(1+S) <= S = sum_j e^-margin_j <= (K-1) e^-(1-eta) Delta", S - S / (1 + S))
    slope = 1 - 1 / (1 + S)
    proof.nonnegative("the loss log(1 + S) <= S: equal at S = 0, and the slope of S - log(1 + S) is >= 0", slope)
    proof.identity("2 x - U = x^2 + sum_(s != y) p_s^2, x = 1 - p_y", 2 * x - (1 - (1 - x) ** 2 - rest), x**2 + rest)
    # At a simplex head kappa = (||w_s - w_t||^2/2) mean ||h||^2 U (A5).
    factor = (distance / 2 * _mean_norm(proof)).subs(_LAM, D / _g)
    claimed = (1 + _SIGMA**2 + _G**2 / _M**2) * (K - 1) / K * D**2
    proof.identity("||w_s - w_t||^2/2 mean ||h||^2 = (1+sigma^2+gamma^2) ((K-1)/K) Delta^2", factor, claimed)
    proof.identity("eta < 1 iff sigma^2 < K/(2(K-1))", eta**2 - 1, (_SIGMA**2 / (K / (2 * (K - 1))) - 1))
    slack = sympy.Symbol("d", positive=True)
    limit = sympy.limit(D**2 * sympy.exp(-slack * D), D, sympy.oo)
    proof.require("Delta^2 e^-(1-eta) Delta -> 0 as Delta -> oo for eta < 1", limit == 0)
    _metrics(proof)
    # On the span C C^T = g, so ||C^T v||^2 = g ||v||^2.
    _papyan(proof, _g * (_SIGMA * _M) ** 2, _SIGMA**2 * (K - 1) / K)


def _eta_squared_root() -> Any:
    return _SIGMA * sympy.sqrt(2 * (K - 1) / K)


@CONVERSE_FAILS.certificate("symbolic", covers="every K >= 2, sigma, gamma; Delta -> oo", relies_on="sympy", whole=True)
def _symbolic(proof: Proof) -> None:
    """Both constructions with K, sigma, gamma, Delta as symbols, and the limits of kappa with NC1 held."""
    _silent_noise(proof, sympy.Integer(0))
    _noise_in_span(proof, _eta_squared_root())


_Metric = Callable[[float, int], float]


def _silent_heads(proof: Proof, papyan: _Metric) -> None:
    for k in range(2, 2 + proof.cases(4, 8)):
        for gamma, sigma in ((0.0, 1.5), (0.8, 0.4)):
            flatness = []
            for gap in (4.0, 8.0, 12.0):
                head = with_silent_noise(collapsed(k, K=k, m=k + 1, gap=gap, gamma=gamma, counts=2), sigma)
                factor = (1 + sigma**2 + gamma**2) / (1 + gamma**2)
                kappa, report = kappa_by_hessian(head), collapse_of(head)
                claimed = factor * float(kappa_at_collapse(gap, k, gamma))
                text = f"K = {k}, gamma = {gamma}, Delta = {gap}"
                proof.close(f"{text}: kappa", kappa, claimed, rel=1e-9)
                proof.close(f"{text}: trace ratio", report.nc1_trace_ratio, sigma**2)
                proof.close(f"{text}: Papyan's NC1", report.nc1_papyan, papyan(sigma, k), scale=1.0)
                flatness.append(kappa)
            proof.require(f"K = {k}, gamma = {gamma}: kappa falls", flatness[0] > 8 * flatness[1] > 64 * flatness[2])


def _heads_with_noise_in_span(proof: Proof, eta: _Metric) -> None:
    for k in range(2, 2 + proof.cases(4, 8)):
        for m, gamma, share in ((k - 1, 0.0, 0.9), (k, 0.7, 0.4)):
            sigma = share * math.sqrt(k / (2 * (k - 1)))
            for gap in (4.0, 12.0):
                head = with_noise_in_span(collapsed(k, K=k, m=m, gap=gap, gamma=gamma, counts=2), sigma)
                decay = math.exp(-(1 - eta(sigma, k)) * gap)
                bound = 2 * (1 + sigma**2 + gamma**2) * (k - 1) ** 2 / k * gap**2 * decay
                text, report = f"K = {k}, m = {m}, Delta = {gap}", collapse_of(head)
                proof.at_most(f"{text}: kappa", kappa_matrix_free(head), bound)
                proof.at_most(f"{text}: loss", head.loss, (k - 1) * decay)
                proof.close(f"{text}: trace ratio", report.nc1_trace_ratio, sigma**2)
                proof.close(f"{text}: Papyan's NC1", report.nc1_papyan, sigma**2 * (k - 1) / k)
                proof.close(f"{text}: CDNV", report.cdnv, sigma**2 * (k - 1) / (2 * k))
                floor = sigma**2 / (1 + gamma + sigma) ** 2
                proof.at_most(f"{text}: RNC1 is bounded below", floor, report.rnc1_sup)
                proof.require(f"{text}: every sample is on its side", bool(_right(head).all()))


def _right(head: Head) -> torch.Tensor:
    return head.probabilities.argmax(dim=1) == head.labels


def _eta(sigma: float, k: int) -> float:
    return sigma * math.sqrt(2 * (k - 1) / k)


@CONVERSE_FAILS.certificate(
    "numeric", covers="K = 2..5, Delta <= 12", relies_on="exact Hessians, Hessian-vector products, grokcore.collapse"
)
def _numeric(proof: Proof) -> None:
    """Explicit heads: kappa by exact Hessians, every NC1 by grokcore's metrics."""
    _silent_heads(proof, lambda sigma, k: 0.0)
    _heads_with_noise_in_span(proof, _eta)


@CONVERSE_FAILS.without("mean_zero")
def _drift(proof: Proof) -> None:
    """K = 3, every feature moved by the same silent vector, along mu_G: kappa has a cross term and NC1 is 0."""
    head = collapsed(0, K=3, m=3, gap=4.0, radius=1.0, gamma=1.0, counts=2)
    moved = head._replace(features=head.features + 0.5 * head.features.mean(dim=0))
    proof.differ("kappa", kappa_by_hessian(moved), (1 + 0.25 + 1) * float(kappa_at_collapse(4.0, 3)))
    proof.differ("trace ratio", collapse_of(moved).nc1_trace_ratio, 0.25)


@CONVERSE_FAILS.without("silent")
def _heard(proof: Proof) -> None:
    """K = 3, the same amount of noise inside the span of W: kappa is not the first part's."""
    head = with_noise_in_span(collapsed(0, K=3, m=3, gap=8.0, counts=2), 0.6)
    proof.differ("kappa", kappa_by_hessian(head), 1.36 * float(kappa_at_collapse(8.0, 3)))


@CONVERSE_FAILS.without("wide")
def _narrow(proof: Proof) -> None:
    """K = 4, m = K - 1: the least of ||W v|| over unit v is positive, so every direction is seen."""
    head = collapsed(0, K=4, m=3, gap=8.0, radius=1.0, counts=2)
    proof.exceeds("least singular value of W", float(torch.linalg.svdvals(head.weight)[-1]), 0.0)
    noisy = with_silent_noise(head, 0.6)
    proof.differ("kappa with the least-heard noise", kappa_by_hessian(noisy), 1.36 * float(kappa_at_collapse(8.0, 4)))


@CONVERSE_FAILS.without("small")
def _on_the_boundary(proof: Proof) -> None:
    """K = 3, sigma = sqrt(3)/2, eta = 1: half of the samples stand on a decision boundary and kappa grows."""
    kappas = []
    for gap in (6.0, 12.0):
        head = with_noise_in_span(collapsed(0, K=3, m=2, gap=gap, counts=2), math.sqrt(3) / 2)
        kappas.append(kappa_by_hessian(head))
    proof.exceeds("kappa at Delta = 12 against Delta = 6", kappas[1], 3 * kappas[0])


@CONVERSE_FAILS.sibling
def _half_the_exponent(proof: Proof) -> None:
    """Noise inside the span costs half as much: kappa <= 2(1+sigma^2+gamma^2)((K-1)^2/K) Delta^2 e^-(1-eta/2)Delta."""
    _noise_in_span(proof, _eta_squared_root() / 2)
    _heads_with_noise_in_span(proof, lambda sigma, k: _eta(sigma, k) / 2)


@CONVERSE_FAILS.sibling
def _seen_by_papyan(proof: Proof) -> None:
    """Silent noise also keeps Papyan's NC1 at sigma^2 (K-1)/K."""
    _silent_noise(proof, _SIGMA**2 * (K - 1) / K)
    _silent_heads(proof, lambda sigma, k: sigma**2 * (k - 1) / k)
