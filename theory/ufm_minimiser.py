"""The convex problem behind the unconstrained-features model with cross-entropy, and its numeric counterpart (D1, D4).

Each function takes the off-class probability that is claimed, so that a false claim meets the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch

from theory.algebra import nuclear_norm
from theory.algebra.class_symmetry import CENTRING, K, outer, softmax_hessian
from theory.formulas import kappa_of_ufm
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.ufm import FreeFeatures
from theory.proof import Proof

OffClass = Callable[[Any, Any, Any, Any], Any]
"""The off-class probability claimed, of (L, K, n, a)."""


def off_class(L: Any, K: Any, n: Any, a: Any) -> Any:
    """What D1 (a = 0) and D4 claim: b = L + a/K, where that is below 1/K."""
    return L + a / K


def minimiser_for_every_size(proof: Proof, claimed: OffClass, a: Any) -> None:
    """Z* = Delta P (x) 1_n^T minimises f(Z) + mu ||Z||_*, and every minimiser of F is its factorisation.

    F >= f(WH) + mu ||WH||_*, with equality at some factors of Z*, so WH minimises the right side at every minimiser of
    F. f is convex, and strictly but for shifts Z + 1v' of whole columns; two minimisers of a convex sum share the
    gradient of f and differ by such a shift; 1'Z = 0 at each, so they are one. A bias only adds Z - beta 1'.
    """
    L, root, nu = sympy.symbols("L rho nu", positive=True)
    n = nu**2  # rational in nu: sympy is slow with roots
    b, mu = claimed(L, K, n, a), L / nu
    nuclear_norm.factors_pay_the_nuclear_norm(proof)
    nuclear_norm.collapsed_polar_factor(proof)
    off = sympy.Symbol("b", positive=True)
    q = 1 / (1 / off - K + 1)
    proof.identity("the gap log(1/b - K + 1) has off-class probability b", q / (1 + (K - 1) * q), off)
    # In the coordinates (e_y, 1): p, the target and u_y = e_y - 1/K.
    p, target, u = ((1 - K * b, b), (1 - a, a / K), (1, -1 / K))
    for i, name in enumerate(("e_y", "1")):
        proof.identity(
            f"grad of the loss is p - t = -(Kb - a) u_y: along {name}", p[i] - target[i], -(K * b - a) * u[i]
        )
    proof.identity("-grad f(Z*) = mu X: Z* minimises f + mu||.||_* (convexity)", (K * b - a) / (n * K) * nu, mu)
    proof.identity("rank Z* = tr XX' = tr P = K - 1: needs m >= K - 1", CENTRING.trace(), K - 1)
    # L = (1-a)/K + rho: then Z = 0, where every probability is 1/K.
    slack = (mu * nu).subs(L, (1 - a) / K + root) - (K * (1 / K) - a) / K
    proof.nonnegative("L >= (1-a)/K: sqrt(n)||grad f(0)|| <= sqrt(n) mu, so Z = 0 is the minimiser", slack)
    _strictly_convex_but_for_shifts(proof)
    nuclear_norm.balance_and_centring(proof)
    nuclear_norm.factors_at_equality(proof)
    nuclear_norm.bias_changes_nothing(proof)


def _strictly_convex_but_for_shifts(proof: Proof) -> None:
    total, first, second = sympy.symbols("S0 S1 S2")
    pairs = (second * total - 2 * first * first + total * second) / 2
    text = "d'(diag p - pp')d = (1/2) sum p_s p_t (d_s - d_t)^2, S_k = sum p d^k: 0 only at d ~ 1"
    proof.identity(text, pairs.subs(total, 1), second - first**2)
    d, p = sympy.symbols("d:3"), sympy.symbols("p:3")
    z = sympy.symbols("z:3")
    value = sympy.log(sum(sympy.exp(v) for v in z))
    softmax = [sympy.diff(value, v) for v in z]
    form = sum(sympy.diff(softmax[s], z[t]) * d[s] * d[t] for s in range(3) for t in range(3))
    exps = {sympy.exp(v): x for v, x in zip(z, p, strict=True)}
    total_p = sum(p)
    spelt = sum(p[s] * p[t] * (d[s] - d[t]) ** 2 for s in range(3) for t in range(s)) / total_p**2
    proof.identity("the same from the derivatives of log-sum-exp at K = 3", form.subs(exps), spelt)


def flatness_at_the_minimiser(proof: Proof) -> None:
    """kappa by A2 from the two Gram matrices, and where it rises and falls."""
    nu, b, gap, z = sympy.symbols("nu b Delta z", positive=True)
    w, h = nuclear_norm.w, nuclear_norm.h
    u = (1, -1 / K)
    norm = z * w / h * outer(u, u).trace() / nu**2  # H'H = z (w/h) X'X, whose entries are those of P over n
    variance = z * h / w * (softmax_hessian(1 - (K - 1) * b, b) @ CENTRING).trace()  # tr(S WW'), WW' = z (h/w) P
    text = "kappa = ||h||^2 tr((diag p - pp') WW') with z = sqrt(n) Delta"
    proof.identity(text, (norm * variance).subs(z, nu * gap), (K - 1) ** 2 / K * b * (2 - K * b) * gap**2)
    q, t, x = sympy.symbols("q t x", positive=True)
    off = q / (1 + (K - 1) * q)
    proof.nonnegative("b falls in Delta: db/dq > 0", sympy.diff(off, q).subs(K, 2 + t), strictly=True)
    impurity = q * (2 + (K - 2) * q) / (1 + (K - 1) * q) ** 2
    proof.identity("b (2 - Kb) as a function of q = e^-Delta", off * (2 - K * off), impurity)
    ratio = (1 - q) / ((2 + (K - 2) * q) * (1 + (K - 1) * q))
    slope = -q * sympy.diff(impurity, q) / impurity  # d/dDelta = -q d/dq
    text = "d log kappa/d Delta = 2/Delta - 2r, r = (1-q)/((2+(K-2)q)(1+(K-1)q))"
    proof.identity(text, sympy.expand(sympy.numer(sympy.cancel(slope + 2 * ratio))), 0)
    falling = -sympy.diff(ratio, q).subs(K, 2 + t).subs(q, 1 / (1 + x))
    proof.nonnegative("r falls in q, so Delta r rises from 0 without bound: kappa turns once", falling, strictly=True)
    proof.identity("r -> 1/2 as q -> 0", ratio.subs(q, 0), sympy.Rational(1, 2))


def minimised(proof: Proof, claimed: OffClass, models: list[FreeFeatures], seeds: int = 1) -> None:
    """L-BFGS and Newton steps on F itself, then kappa by the dense Hessian of the definition."""
    for model in models:
        size = model.K, model.counts[0]
        b = min(claimed(model.L, *size, model.smoothing), 1 / model.K)
        kappa = float(kappa_of_ufm(b, model.K))
        for seed in range(seeds):
            head = model.head(model.minimise(seed))
            name = f"K, n = {size}, m = {model.m}{', bias' if model.bias else ''}, L = {model.L:.3g}"
            # Not the head's own labels but every class's probability: a sample in the wrong class shows.
            other = torch.nn.functional.one_hot(head.labels, model.K) == 0
            proof.close(f"off-class probabilities, {name}", head.probabilities[other], b, rel=1e-8)
            proof.close(f"kappa, {name}", kappa_by_hessian(head), kappa, rel=1e-8, scale=max(kappa, 1e-3))
            proof.close(f"mu_G = 0, {name}", head.features.mean(dim=0).norm(), 0.0, scale=1.0)
