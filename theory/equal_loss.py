"""Collapse is not the flattest at its training loss (B6r, refuted), nor at the loss of every sample.

The heads that show it are built in :mod:`theory.numeric.noncollapsed`; what is true stands in :mod:`theory.optimality`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import sympy

from theory.algebra.class_symmetry import K
from theory.algebra.collapse import IMPURITY, q
from theory.numeric.configurations import collapsed
from theory.numeric.noncollapsed import product_of_two, with_idle_samples
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

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


@FLATTEST_AT_ITS_LOSS.certificate("symbolic", covers="every K >= 2, 0 < eps < log K", relies_on="sympy", whole=True)
def _idle_family(proof: Proof) -> None:
    """A share of samples at h = 0, where the loss is log K and kappa has no part, the others at a growing margin."""
    a, d, small = sympy.symbols("a d eps_1", positive=True)
    # eps' is the loss of the others; eps = eps' + a and log K = eps + d: every loss in (eps', log K).
    loss, top = small + a, small + a + d
    share = (loss - small) / (top - small)
    proof.identity("s log K + (1 - s) eps' = eps", share * top + (1 - share) * small, loss)
    proof.nonnegative("s > 0", share, strictly=True)
    proof.nonnegative("s < 1, so kappa = (1 - s) kappa' < kappa'", 1 - share, strictly=True)
    # At fixed eps and log K s is strictly monotone in eps', so eps' -> 0 along rational s = idle/count.
    eps, log_k = sympy.symbols("eps l", positive=True)
    slope = sympy.diff((eps - small) / (log_k - small), small).subs({eps: loss, log_k: top})
    proof.nonnegative("s falls strictly as eps' grows", -slope, strictly=True)
    D, r, t = sympy.symbols("Delta r t", positive=True)
    proof.require("Delta^2 q -> 0 as Delta -> oo", sympy.limit(D**2 * sympy.exp(-D), D, sympy.oo) == 0)
    proof.nonnegative("U <= 2 (K-1) q, so kappa' -> 0", (2 * (K - 1) * q - IMPURITY).subs(K, 2 + t))
    proof.nonnegative("the same at K = 2", (2 * (K - 1) * q - IMPURITY).subs(K, 2))
    at_collapse = IMPURITY.subs(q, 1 / (1 + r))
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
    one, two = sympy.symbols("e_1 e_2", positive=True)  # e^(2As) and e^(2Bt): the odds of a sample in each factor
    signs = list(itertools.product((1, -1), repeat=2))
    for i, j in signs:
        # Logit of class (k, n) at a sample of (i, j): i k A s + j n B t.
        weights = {(k, n): sympy.sqrt(one) ** (i * k) * sympy.sqrt(two) ** (j * n) for k, n in signs}
        true = weights[i, j] / sum(weights.values())
        factors = one / (1 + one) * two / (1 + two)
        proof.identity(f"sample ({i}, {j}): p_y = r_1 r_2, the same for all four", true, factors)
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
