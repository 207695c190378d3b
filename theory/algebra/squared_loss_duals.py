"""The squared loss for every K, n and m: dual matrices for its bounds, singular values for its minimisers (D5).

Each function takes what is claimed, so that a false claim meets the same steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy

from theory.algebra import nuclear_norm
from theory.algebra.class_symmetry import CENTRING, K
from theory.algebra.matrix_words import IDENTITY, letters
from theory.algebra.nuclear_norm import BALANCED, EACH, ONE, E, P
from theory.proof import Proof

Value = Callable[[Any, Any, Any], Any]
"""kappa at the minimiser, of (L, K, r)."""


def closed_form(proof: Proof) -> None:
    """kappa = ||W||^2 ||H||^2 / N from the second derivatives: in words, and written out at K = 3, m = 2, N = 2."""
    V, D, F, Y = letters("W D H Y")
    before, along = V @ F - Y, D @ F
    moved = (V + D) @ F - Y
    slope = before @ along.T + along @ before.T
    proof.require(
        "|(W+D)H - Y|^2 is quadratic in D by tr D HH' D': H_st = d_st mean hh' at every W, so kappa = |W|^2|H|^2/N",
        (moved @ moved.T).equals(before @ before.T + slope + D @ F @ F.T @ D.T),
    )
    W = sympy.Matrix(3, 2, sympy.symbols("w:6"))
    H = sympy.Matrix(2, 2, sympy.symbols("h:4"))
    rest = W * H - sympy.Matrix(3, 2, sympy.symbols("y:6"))
    loss = (rest.T * rest).trace() / 4
    kappa = sum(
        (W.row(s) * W.row(t).T)[0] * sum(sympy.diff(loss, W[s, j], W[t, j]) for j in range(2))
        for s in range(3)
        for t in range(3)
    )
    proof.identity("sum <w_s, w_t> Tr H_st = |W|^2 |H|^2 / N", kappa, (W.T * W).trace() * (H.T * H).trace() / 2)


def bounds_at_exact_fit(proof: Proof, with_bias: Any) -> None:
    """|W||H| >= ||WH||_* and the nuclear norms of Y and Y - b1', by a dual matrix each."""
    nuclear_norm.factors_pay_the_nuclear_norm(proof)
    x, y, norm = sympy.symbols("x y z", positive=True)
    # It holds for all decays; these are the best ones for x = |W|, y = |H|, and mu = 1.
    proof.identity(
        "at l_W = y/x, l_H = x/y it says |W||H| >= ||WH||_*",
        (y / x * x**2 + x / y * y**2 - 2 * norm) / 2,
        x * y - norm,
    )
    # Y = I (x) 1' with columns e_y: Y Y' = diag(n_c), and X = (YY')^(-1/2) Y has <X, Y> = sum sqrt n_c.
    D, R, Y = letters("D R Y")
    root = [(Y @ Y.T, D @ D), (R @ D, IDENTITY), (D @ R, IDENTITY), (R.T, R)]
    X = R @ Y
    proof.require("XX' = I", (X @ X.T).given(*root).equals(IDENTITY))
    proof.require("<X, Y> = tr D = sum sqrt n_c", (X @ Y.T).given(*root).equals(D))
    # (1/2) sum_cd (r_c - r_d)^2 with the power sums S_k = sum_c r_c^k, r_c = sqrt n_c: S_0 = K, S_2 = N.
    first, second = sympy.symbols("S1 S2", positive=True)
    text = "K N - (sum sqrt n_c)^2 = (1/2) sum_cd (sqrt n_c - sqrt n_d)^2: K iff balanced"
    proof.identity(text, K * second - first**2, (second * K - 2 * first * first + K * second) / 2)
    beta = letters("b")[0]
    nuclear_norm.collapsed_polar_factor(proof)
    root_n = sympy.sqrt(nuclear_norm.n)
    centred = 1 / root_n * (P @ E)
    inner = (centred @ (E - beta @ EACH.T).T).given(*BALANCED)
    proof.require("X = P (x) 1'/sqrt n: X(Y - b1')' = sqrt n P for every b", inner.equals(root_n * P))
    trace = CENTRING.trace()
    proof.identity("so kappa >= n (tr P)^2 / N = (K-1)^2/K", trace**2 / K, with_bias)
    # Equality: X'(Y - b1') = X'(PE - b1') leaves b = const 1, then |1 - K const| is the singular value along 1.
    nuclear_norm.bias_changes_nothing(proof)
    excess, t = sympy.symbols("e t", positive=True)
    above = 1 / K * (trace + excess) ** 2 - trace**2 / K
    proof.nonnegative("||Y - b1'||_*^2/N = (K-1 + |1-Kb|)^2/K: b = 1/K", above.subs(K, 2 + t), strictly=True)
    nuclear_norm.factors_at_equality(proof)
    ratio = sympy.Symbol("c", positive=True)
    text = "conversely WW' = c sqrt n P, H'H = (sqrt n/c) X'X (NC1-NC3 at exact fit) attain it"
    proof.identity(text, (ratio * root_n * trace) * (root_n / ratio * trace) / (nuclear_norm.n * K), with_bias)


def minimisers(proof: Proof, claimed: Value) -> None:
    """2N F >= sum over at most r = min(m, rank X) singular values of (sigma - c)^2, c = sqrt n (1-KL), X polar of Y."""
    L, nu, r, sigma, rho = sympy.symbols("L nu r sigma rho", positive=True)
    n = nu**2
    samples, mu, least = n * K, L / nu, (1 - K * L) * nu
    nuclear_norm.factors_pay_the_nuclear_norm(proof)
    nuclear_norm.balance_and_centring(proof)
    _centred_by_the_best_bias(proof)
    # T is Z without a bias, P Z Q with one; the target Y of T is sqrt n X, with X = E/sqrt n or P E/sqrt n.
    T, X, R = letters("T X R")
    rest = T - nu * X
    inner = T @ T.T - 2 * nu * (T @ X.T) + n * (X @ X.T)
    text = "|T - Y|^2 = |T|^2 - 2 sqrt n <T, X> + n rank X, where <T, X> <= ||T||_* (duality)"
    proof.require(text, (rest @ rest.T).trace().equals(inner.trace()))
    paid = sigma**2 - 2 * nu * sigma + 2 * samples * mu * sigma
    proof.identity("each singular value of T pays (sigma - c)^2 - c^2", paid, (sigma - least) ** 2 - least**2)
    text = "L < 1/K: c > 0, so at a minimiser r singular values are c and the others 0"
    proof.nonnegative(text, least.subs(L, 1 / (K * (1 + rho))), strictly=True)
    proof.nonnegative("L >= 1/K: each pays more than 0, so Z = 0", paid.subs(L, 1 / K + rho) - sigma**2)
    rules = [(R.T, R), (R @ R, R), (R @ X @ X.T, R)]
    reached = least * (R @ X)
    proof.require(
        "attained: Z = c R X, R a projection of rank r under XX', has ZZ' = c^2 R and ZX' = c R",
        (reached @ reached.T).given(*rules).equals(least**2 * R) and (reached @ X.T).given(*rules).equals(least * R),
    )
    w, h, S = nuclear_norm.w, nuclear_norm.h, sympy.Symbol("S", positive=True)
    proof.identity(
        "l_W|W|^2 = l_H|H|^2 = mu ||Z||_* = mu S at a minimiser: |W|^2 |H|^2 = S^2",
        (w * h * S / w**2) * (w * h * S / h**2),
        S**2,
    )
    proof.identity("kappa = ||Z||_*^2/N with ||Z||_* = r c", (r * least) ** 2 / samples, claimed(L, K, r))


def _centred_by_the_best_bias(proof: Proof) -> None:
    """|Z + b1' - Y|^2 is least at |(Z - Y)Q|^2, Q = I - 11'/N, and YQ = PY: what a bias leaves of the targets is PE."""
    D, C, b = letters("D C b")
    N = nuclear_norm.n * K
    ones = [(EACH.T @ EACH, N * IDENTITY), (ONE.T @ E, EACH.T), (E @ EACH, nuclear_norm.n * ONE)]
    Q, centring = IDENTITY - 1 / N * (EACH @ EACH.T), IDENTITY - 1 / K * (ONE @ ONE.T)
    moved, offset = D + b @ EACH.T, D @ EACH + N * b
    parts = D @ Q @ Q.T @ D.T + 1 / N * (offset @ offset.T)
    text = "|D + b1'|^2 = |DQ|^2 + |D1 + N b|^2/N: the best bias leaves |(Z - Y)Q|^2"
    proof.require(text, (moved @ moved.T).given(*ones).equals(parts.given(*ones)))
    proof.require("EQ = PE where balanced", (E @ Q).given(*ones).equals((centring @ E).given(*ones)))
    split = C.T @ C
    proof.require(
        "|C|^2 = |PC|^2 + |C - PC|^2, and ||PZQ||_* <= ||Z||_* as ||P||, ||Q|| <= 1: T = PZQ, of rank <= min(m, K-1)",
        split.equals((C.T @ P @ P @ C + (C - P @ C).T @ (C - P @ C)).given(*BALANCED)),
    )
