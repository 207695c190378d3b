"""What flatness does not imply (B7, B6r); B9 is listed here with them, and proved in :mod:`theory.relu_price`.

Flat heads need no collapse, and collapse is not the flattest at its loss. The heads that show it are built in
:mod:`theory.noncollapsed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.class_symmetry import CENTRING, K, softmax_hessian
from theory.configurations import Head, collapsed
from theory.formulas import kappa_at_collapse
from theory.noncollapsed import collapse_of, product_of_two, with_idle_samples, with_noise_in_span, with_silent_noise
from theory.oracle import kappa_by_hessian, kappa_matrix_free
from theory.proof import Proof
from theory.relu_price import RELU_PRICE
from theory.statement import Statement

__all__ = ["CONVERSE_FAILS", "FLATTEST_AT_ITS_LOSS", "RELU_PRICE"]

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

FLATTEST_AT_ITS_LOSS = Statement(
    "flattest_at_its_loss",
    label="B6r",
    claim="Among all heads and features with the same training loss the collapsed one has the least kappa.",
    latex=r"L(W,b,h) = \varepsilon \implies \kappa(W,b,h) \ge \tfrac{K-1}{K}\Delta_\varepsilon^2 U(\Delta_\varepsilon)",
    assumptions={},
    source="new",
    kind="lower",
    status="refuted",
    instead="flattest_given_outputs",
)

# B7, every K.

_SIGMA, _M, _G, _LAM = sympy.symbols("sigma M G lam", positive=True)
_g = _M**2 * K / (K - 1)


def _silent_noise(proof: Proof, papyan: Any) -> None:
    """First part: norms and logits by inner products, Var_p(w) by the one-class algebra."""
    q = sympy.Symbol("q", positive=True)
    b = q / (1 + (K - 1) * q)
    impurity = (K - 1) * q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2
    variance = _LAM**2 * _g * (softmax_hessian(1 - (K - 1) * b, b) @ CENTRING).trace()
    for k in (2, 3):
        centring, zero = sympy.eye(k) - sympy.ones(k, k) / k, [0] * k
        noise = sympy.Matrix([*zero, *sympy.symbols("v:2")])
        mean = sympy.Matrix(sympy.symbols(f"a:{k + 2}"))
        norms = []
        for c in range(k):
            h = _M * sympy.Matrix([*centring[:, c], 0, 0]) + mean
            norms += [(h + noise).dot(h + noise), (h - noise).dot(h - noise)]
        parts = _M**2 * (1 - sympy.Rational(1, k)) + mean.dot(mean) + noise.dot(noise)
        proof.identity(f"K = {k}: no cross term is left in mean ||h||^2, any mu_G", sum(norms) / (2 * k), parts)
    mean_norm = _M**2 + _G**2 + (_SIGMA * _M) ** 2
    gap = _LAM * _g
    claimed = (1 + _SIGMA**2 + _G**2 / _M**2) * (K - 1) / K * gap**2 * impurity
    proof.identity("mean ||h||^2 Var_p(w) = (1+sigma^2+gamma^2) ((K-1)/K) Delta^2 U", mean_norm * variance, claimed)
    D = sympy.Symbol("Delta", positive=True)
    proof.require("Delta^2 q -> 0 as Delta -> oo", sympy.limit(D**2 * sympy.exp(-D), D, sympy.oo) == 0)
    proof.identity("U/q -> 2(K-1)", sympy.cancel(impurity / q).subs(q, 0), 2 * (K - 1))
    within, between = (_SIGMA * _M) ** 2, (_g * CENTRING).trace() / K
    proof.identity("Tr Sigma_W / Tr Sigma_B = sigma^2, whatever Delta", within / between, _SIGMA**2)
    # In the coordinates (P, 0) of the span and its complement; P is its own pseudo-inverse.
    for k in (2, 3):
        centring = sympy.eye(k) - sympy.ones(k, k) / k
        size = _g.subs(K, k) / k
        between_plus = sympy.diag(centring / size, 0)
        text = f"K = {k}: Sigma_B Sigma_B^+ Sigma_B = Sigma_B"
        sigma_b = sympy.diag(size * centring, 0)
        proof.identity(text, sigma_b * between_plus * sigma_b, sigma_b)
        sigma_w = sympy.diag(sympy.zeros(k, k), within)
        found = (sigma_w * between_plus).trace() / k
        proof.identity(f"K = {k}: Papyan's NC1 of noise off the span", found, sympy.sympify(papyan).subs(K, k))


def _noise_in_span(proof: Proof, eta: Any) -> None:
    """Second part: the logit margins that are left, then 1 - p_y and U, each as an explicit sum of squares."""
    D = sympy.Symbol("Delta", positive=True)
    distance = _LAM**2 * _g * (2 * CENTRING.identity)
    # <w_y - w_j, v> >= -||w_y - w_j|| ||v|| by Cauchy-Schwarz.
    lost = (distance * (_SIGMA * _M) ** 2).subs(_LAM, D / _g)
    proof.identity("||w_y - w_j||^2 ||v||^2 = (eta Delta)^2", lost, (eta * D) ** 2)
    for m in (1, 2, 3):
        x, y = (sympy.Matrix(sympy.symbols(f"{name}:{m}")) for name in "xy")
        squares = sum((x[i] * y[j] - x[j] * y[i]) ** 2 for i in range(m) for j in range(i))
        proof.identity(f"Lagrange's identity in R^{m}", x.dot(x) * y.dot(y) - x.dot(y) ** 2, squares)
    S, x, rest = sympy.symbols("S x r", positive=True)
    proof.nonnegative("1 - p_y = S/(1+S) <= S = sum_j e^-margin_j <= (K-1) e^-(1-eta) Delta", S - S / (1 + S))
    slope = 1 - 1 / (1 + S)
    proof.nonnegative("the loss log(1 + S) <= S: equal at S = 0, and the slope of S - log(1 + S) is >= 0", slope)
    proof.identity("2 x - U = x^2 + sum_(s != y) p_s^2, x = 1 - p_y", 2 * x - (1 - (1 - x) ** 2 - rest), x**2 + rest)
    # At a simplex head kappa = (||w_s - w_t||^2/2) mean ||h||^2 U (A5).
    factor = (distance / 2 * _M**2 * (1 + _SIGMA**2 + _G**2 / _M**2)).subs(_LAM, D / _g)
    claimed = (1 + _SIGMA**2 + _G**2 / _M**2) * (K - 1) / K * D**2
    proof.identity("||w_s - w_t||^2/2 mean ||h||^2 = (1+sigma^2+gamma^2) ((K-1)/K) Delta^2", factor, claimed)
    proof.identity("eta < 1 iff sigma^2 < K/(2(K-1))", eta**2 - 1, (_SIGMA**2 / (K / (2 * (K - 1))) - 1))
    slack = sympy.Symbol("d", positive=True)
    limit = sympy.limit(D**2 * sympy.exp(-slack * D), D, sympy.oo)
    proof.require("Delta^2 e^-(1-eta) Delta -> 0 as Delta -> oo for eta < 1", limit == 0)
    within = (_SIGMA * _M) ** 2
    proof.identity("Papyan's NC1 = sigma^2 (K-1)/K", within * (K - 1) / (K * _M**2), _SIGMA**2 * (K - 1) / K)
    pairs = within / (_g * 2 * CENTRING.identity)
    proof.identity("CDNV = V/||mu_c - mu_d||^2 = sigma^2 (K-1)/(2K)", pairs, _SIGMA**2 * (K - 1) / (2 * K))


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


# B6r: idle samples, and a product of two binary heads.


@FLATTEST_AT_ITS_LOSS.certificate("symbolic", covers="every K >= 2, 0 < eps < log K", relies_on="sympy", whole=True)
def _idle_family(proof: Proof) -> None:
    """A share of samples at h = 0, where the loss is log K and kappa has no part, the others at a growing margin."""
    a, d, small = sympy.symbols("a d eps_1", positive=True)
    # eps = eps' + a and log K = eps + d: every loss in (eps', log K).
    loss, top = small + a, small + a + d
    share = (loss - small) / (top - small)
    proof.identity("s log K + (1 - s) eps' = eps", share * top + (1 - share) * small, loss)
    proof.nonnegative("s > 0", share, strictly=True)
    proof.nonnegative("s < 1, so kappa = (1 - s) kappa' < kappa'", 1 - share, strictly=True)
    D, q, r, t = sympy.symbols("Delta q r t", positive=True)
    impurity = (K - 1) * q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2
    proof.require("Delta^2 q -> 0 as Delta -> oo", sympy.limit(D**2 * sympy.exp(-D), D, sympy.oo) == 0)
    proof.nonnegative("U <= 2 (K-1) q, so kappa' -> 0", (2 * (K - 1) * q - impurity).subs(K, 2 + t))
    proof.nonnegative("the same at K = 2", (2 * (K - 1) * q - impurity).subs(K, 2))
    at_collapse = impurity.subs(q, 1 / (1 + r))
    proof.nonnegative("kappa of the collapsed head is positive", at_collapse.subs(K, 2 + t), strictly=True)
    proof.nonnegative("the same at K = 2", at_collapse.subs(K, 2), strictly=True)


def _idle_heads(proof: Proof, gap: float, idle_of: Callable[[float, int], int]) -> list[list[float]]:
    found = []
    for k in range(2, 2 + proof.cases(4, 8)):
        head = collapsed(K=k, m=k - 1, gap=gap)
        kappas = [kappa_by_hessian(head)]
        for count in (40, 400):
            idle = idle_of(count * head.loss / math.log(k), count)
            rival = with_idle_samples(k, k - 1, head.loss, idle=idle, count=count)
            proof.close(f"K = {k}, {idle} of {count} idle: the same loss", rival.loss, head.loss, rel=1e-9)
            kappas.append(kappa_by_hessian(rival))
            text = f"K = {k}, {idle} of {count} idle: kappa {kappas[-1]:.3g} < {kappas[0]:.3g}"
            proof.require(text, kappas[-1] < kappas[0])
        found.append(kappas)
    return found


@FLATTEST_AT_ITS_LOSS.certificate("numeric", covers="K = 2..5, Delta = 3.5", relies_on="exact Hessians")
def _idle_measured(proof: Proof) -> None:
    """The same loss and a falling kappa by exact Hessians, with as many idle samples as fit."""
    for kappas in _idle_heads(proof, 3.5, lambda most, count: math.ceil(most) - 1):
        proof.require("the more idle samples fit the flatter", kappas[2] < kappas[1])


@FLATTEST_AT_ITS_LOSS.certificate(
    "symbolic", covers="K = 4, Delta > log 3: even at the same loss on every sample, and with NC1", relies_on="sympy"
)
def _product_family(proof: Proof) -> None:
    """A product of two binary heads whose first factor costs nothing in the limit."""
    A, B, s, t, r1, r2 = sympy.symbols("A B s t r_1 r_2", positive=True)
    rows = sympy.Matrix([[A, B], [A, -B], [-A, B], [-A, -B]])
    p = sympy.Matrix([r1 * r2, r1 * (1 - r2), (1 - r1) * r2, (1 - r1) * (1 - r2)])
    mean = rows.T * p
    variance = sum(p[i] * rows[i, :].dot(rows[i, :]) for i in range(4)) - mean.dot(mean)
    split = 4 * A**2 * r1 * (1 - r1) + 4 * B**2 * r2 * (1 - r2)
    proof.identity("Var_p(w) adds over the factors", variance, split)
    L, D, rho, x, log3 = sympy.symbols("L delta rho x l", positive=True)
    kappa = ((s**2 + t**2) * split).subs({A: L / (2 * s), B: D / (2 * t)}).subs(s, rho * t)
    terms = (1 + rho**2) * (D**2 * r2 * (1 - r2) + L**2 * r1 * (1 - r1) / rho**2)
    proof.identity("kappa, with rho = s/t and the gaps L, delta", kappa, terms)
    y = sympy.Symbol("y", positive=True)
    proof.nonnegative("r_1 (1 - r_1) <= e^-L", (y - y / (1 + y) ** 2))
    limit = sympy.limit(L**2 * sympy.exp(-L) / sympy.exp(-L / 4), L, sympy.oo)
    proof.require("with rho^2 = e^(-L/4) the first factor's part -> 0", limit == 0)
    # Then r_2 -> p_t = 1 - x: delta = log((1-x)/x) = Delta - log 3, for q = x/(3 p_t).
    proof.identity("q = x/(3 (1 - x)) has p_t = 1 - x", 1 / (1 + 3 * x / (3 * (1 - x))), 1 - x)
    collapse = sympy.Rational(3, 4) * (D + log3) ** 2 * x * (2 - 4 * x / 3)
    margin = (collapse - D**2 * x * (1 - x)).subs(x, 1 / (2 + y))
    proof.nonnegative("below collapse for x < 1/2, delta > 0", margin, strictly=True)


@FLATTEST_AT_ITS_LOSS.certificate("numeric", covers="K = 4, Delta = 2, 4, 6", relies_on="exact Hessians")
def _product_measured(proof: Proof) -> None:
    """The product head: the same loss on every sample as the collapsed one, NC1, and a lower kappa."""
    for gap in (2.0, 4.0, 6.0):
        head = collapsed(K=4, m=3, gap=gap)
        rival = product_of_two(head.loss, 12.0 + gap)
        true, target = (h.probabilities.gather(1, h.labels[:, None]) for h in (rival, head))
        proof.close(f"Delta = {gap}: the same p_y on every sample", true, target)
        proof.exceeds(f"Delta = {gap}: kappa of collapse", kappa_by_hessian(head), 1.5 * kappa_by_hessian(rival))


@FLATTEST_AT_ITS_LOSS.sibling
def _any_share(proof: Proof) -> None:
    """Moving any share of samples to h = 0 at equal loss lowers kappa, whatever the loss (here Delta = 1/2)."""
    _idle_heads(proof, 0.5, lambda most, count: count // 10)
