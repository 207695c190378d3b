"""The squared loss: relative flatness has a floor there that low loss does not lift (D5).

Loss (1/2N) sum_i ||W h_i + b - e_{y_i}||^2, so that H_st = d_st (1/N) sum_i h_i h_i^T at every W.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy
import torch

from theory import nuclear_norm
from theory.class_symmetry import CENTRING, K
from theory.configurations import Head, generator_of, normal, simplex
from theory.matrix_words import IDENTITY, letters
from theory.nuclear_norm import BALANCED, EACH, ONE, E, P
from theory.oracle import head_hessian, kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement
from theory.ufm import FreeFeatures

SQUARED_LOSS_DOES_NOT_FLATTEN = Statement(
    "squared_loss_does_not_flatten",
    label="D5",
    claim=(
        "With loss (1/2N) sum ||Wh + b - e_y||^2, kappa = ||W||_F^2 mean ||h||^2 >= ||WH||_*^2/N. At exact fit "
        "kappa >= (sum_c sqrt n_c)^2/N without bias, which is K iff balanced, and kappa >= (K-1)^2/K with a bias and "
        "balanced classes, with equality iff NC1, NC2 with mu_G = 0, NC3 and equal biases. At every global minimiser "
        "of the unconstrained-features model, whatever m, kappa = (r^2/K)(1-KL)^2 for L < 1/K, with r = min(m, K) "
        "without bias and r = min(m, K-1) with one: K (1-KL)^2 and ((K-1)^2/K)(1-KL)^2 where it is wide; for "
        "L >= 1/K it is 0."
    ),
    latex=(
        r"\kappa = \|W\|_F^2\,\overline{\|h\|^2} \ge \tfrac1N\|WH\|_*^2;\quad"
        r"WH = Y \implies \kappa \ge \tfrac1N\Big(\sum_c \sqrt{n_c}\Big)^2;\quad"
        r"\kappa_L = \tfrac{\min(m,K)^2}K(1-KL)^2"
    ),
    assumptions={
        "exact fit": "of the bounds (K-1)^2/K and (sum sqrt n_c)^2/N: W h_i + b = e_{y_i} for every sample",
        "no bias": "of the bound (sum sqrt n_c)^2/N: b = 0",
        "balanced": "of the bound with a bias and of the values at the minimisers: every class has n samples",
        "minimiser": "of the values: W and H (and b) are a global minimiser",
        "free": "of the values: the features are free variables",
    },
    source="new (the minimisers without their flatness: Zhou et al. 2022)",
    kind="equality",
)

Value = Callable[[Any, Any, Any], Any]
"""kappa at the minimiser, of (L, K, r)."""


def kappa_of_rank(L: Any, K: Any, r: Any) -> Any:
    """What is claimed for L < 1/K."""
    return r**2 / K * (1 - K * L) ** 2


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
        (w * h * S) ** 2 / (w * h) ** 2,
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


@SQUARED_LOSS_DOES_NOT_FLATTEN.certificate(
    "symbolic",
    covers="every K >= 2, counts, n, m and decay",
    relies_on="sympy, matrix words; duality of the nuclear norm and convexity by name",
    whole=True,
)
def _symbolic(proof: Proof) -> None:
    """Dual matrices for the nuclear norm of the targets, with and without bias; soft thresholding for the model."""
    closed_form(proof)
    bounds_at_exact_fit(proof, (K - 1) ** 2 / K)
    minimisers(proof, kappa_of_rank)


def minimised(proof: Proof, claimed: Value, models: list[FreeFeatures]) -> None:
    """F minimised from a random start; kappa from the dense Hessian."""
    for model in models:
        rank = min(model.m, model.K - 1 if model.bias else model.K)
        expected = claimed(model.L, model.K, rank) if model.K * model.L < 1 else 0.0
        head = model.head(model.minimise(0))
        name = f"K = {model.K}, n = {model.counts[0]}, m = {model.m}{', bias' if model.bias else ''}, L = {model.L:.3g}"
        proof.close(f"kappa, {name}", kappa_by_hessian(head, "squared"), expected, rel=1e-8, scale=expected or 1.0)


def _model(K: int, n: int, m: int, L: float, *, bias: bool = False) -> FreeFeatures:
    l_H = L / math.sqrt(4 * n)
    return FreeFeatures((n,) * K, m, 4 * l_H, l_H, bias, loss="squared")


def exact_fits(proof: Proof, claimed: Callable[[list[int]], float], *, bias: bool, counts: list[list[int]]) -> None:
    """Random exact fits W = B T, H = T^-1 B'(Y - b1'): kappa by the dense Hessian is never below the claim."""
    for case, sizes in enumerate(counts):
        labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        targets = torch.nn.functional.one_hot(labels).to(torch.float64)
        for seed in range(proof.cases(3, 20)):
            draw = generator_of(100 * case + seed)
            # Seed 0 is the balanced factorisation at the best bias; the others move away from it.
            away = 0.0 if seed == 0 else 0.3
            offset = torch.full((len(sizes),), 1 / len(sizes), dtype=torch.float64) + away * normal(draw, len(sizes))
            offset = offset if bias else torch.zeros_like(offset)
            left, values, right = torch.linalg.svd((targets - offset).T, full_matrices=False)
            mix = torch.linalg.matrix_exp(away * normal(draw, len(values), len(values)))
            keep = values > 1e-12
            weight, features = (left * values.sqrt()) @ mix, torch.linalg.solve(mix, values.sqrt()[:, None] * right)
            head = Head(features.T.contiguous(), weight, offset, labels)
            proof.close("an exact fit", head.features @ weight.T + offset, targets, rel=1e-9)
            kappa = kappa_by_hessian(head, "squared")
            proof.at_most(f"counts {sizes}, bias {bias}: bound <= kappa", claimed(sizes), kappa, slack=1e-9)
            if seed == 0:
                proof.close(f"attained at rank {int(keep.sum())}", kappa, claimed(sizes), rel=1e-9)


def _without_bias(counts: list[int]) -> float:
    return sum(math.sqrt(c) for c in counts) ** 2 / sum(counts)


def _with_bias(counts: list[int]) -> float:
    return (len(counts) - 1) ** 2 / len(counts)


@SQUARED_LOSS_DOES_NOT_FLATTEN.certificate(
    "numeric", covers="K = 2..5, n = 1..3, random exact fits", relies_on="L-BFGS, Newton, exact Hessians"
)
def _numeric(proof: Proof) -> None:
    """Random exact fits, the model minimised from random starts, and the Hessian's blocks."""
    head = Head(
        normal(generator_of(0), 5, 3),
        normal(generator_of(1), 4, 3),
        torch.zeros(4, dtype=torch.float64),
        torch.arange(5) % 4,
    )
    blocks = torch.einsum("st,jk->sjtk", torch.eye(4, dtype=torch.float64), head.features.T @ head.features / 5)
    proof.close("H = I_K (x) mean hh'", head_hessian(head, "squared"), blocks)
    exact_fits(proof, _without_bias, bias=False, counts=[[1, 1], [2, 2, 2], [4, 1, 1], [1, 2, 3, 4]])
    exact_fits(proof, _with_bias, bias=True, counts=[[1, 1], [2, 2, 2], [2, 2, 2, 2, 2]])
    without = [(2, 1, 2, 0.1), (3, 2, 4, 0.05), (4, 1, 2, 0.05), (4, 1, 4, 0.4)]
    with_one = [(2, 2, 1, 0.1), (4, 2, 5, 0.05), (4, 1, 2, 0.05)]
    minimised(proof, kappa_of_rank, [_model(*size) for size in without])
    minimised(proof, kappa_of_rank, [_model(*size, bias=True) for size in with_one])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _the_floor_of_no_bias(proof: Proof) -> None:
    """A bias does not lower the floor: kappa >= K at exact fit."""
    bounds_at_exact_fit(proof, K)
    exact_fits(proof, lambda counts: float(len(counts)), bias=True, counts=[[2, 2, 2]])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _linear_in_the_decay(proof: Proof) -> None:
    """kappa = (r^2/K)(1-KL) at the minimiser."""
    minimisers(proof, lambda L, K, r: r**2 / K * (1 - K * L))
    minimised(proof, lambda L, K, r: r**2 / K * (1 - K * L), [_model(3, 2, 4, 0.05)])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _every_width_alike(proof: Proof) -> None:
    """kappa = K (1-KL)^2 without bias in every width: false at m = K - 1, where a singular value is lost."""
    minimisers(proof, lambda L, K, r: K * (1 - K * L) ** 2)
    minimised(proof, lambda L, K, r: K * (1 - K * L) ** 2, [_model(3, 2, 2, 0.05)])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _balanced_floor_for_any_counts(proof: Proof) -> None:
    """Without bias kappa >= K at exact fit, whatever the counts."""
    exact_fits(proof, lambda counts: float(len(counts)), bias=False, counts=[[2, 2, 2], [4, 1, 1]])


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("exact fit")
def _halfway(proof: Proof) -> None:
    """Half of an exact fit: kappa = K/4."""
    eye = torch.eye(3, dtype=torch.float64)
    head = Head(eye, eye / 2, torch.zeros(3, dtype=torch.float64), torch.arange(3))
    proof.exceeds("the bound against kappa", 3.0, kappa_by_hessian(head, "squared"))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("no bias")
def _centred_by_a_bias(proof: Proof) -> None:
    """An exact fit by a centred simplex and the bias 1/3: kappa = 4/3, below K = 3."""
    rows = simplex(3, 2, math.sqrt(2 / 3))
    head = Head(rows, rows, torch.full((3,), 1 / 3, dtype=torch.float64), torch.arange(3))
    proof.close("an exact fit", rows @ rows.T + head.bias, np.eye(3))
    proof.exceeds("the bound against kappa", 3.0, kappa_by_hessian(head, "squared"))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("balanced")
def _nine_to_one(proof: Proof) -> None:
    """K = 2, counts 9 and 1, bias (0.9, 0.1): an exact fit with kappa = 0.18, below (K-1)^2/K = 0.5."""
    labels = torch.tensor([0] * 9 + [1])
    weight = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    features = torch.tensor([[0.1]] * 9 + [[-0.9]], dtype=torch.float64)
    head = Head(features, weight, torch.tensor([0.9, 0.1], dtype=torch.float64), labels)
    proof.close("an exact fit", features @ weight.T + head.bias, torch.nn.functional.one_hot(labels))
    proof.exceeds("the bound against kappa", 0.5, kappa_by_hessian(head, "squared"))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("minimiser")
def _origin(proof: Proof) -> None:
    """The origin is critical, and kappa = 0 there."""
    model = _model(3, 2, 4, 0.05)
    zero = torch.zeros(model.size, dtype=torch.float64)
    proof.close("a critical point", model.gradient(zero).norm(), 0.0, scale=1.0)
    proof.differ("kappa", kappa_by_hessian(model.head(zero), "squared"), kappa_of_rank(0.05, 3, 3))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("free")
def _tied_features(proof: Proof) -> None:
    """Entries of h within 0.2 of 0: a large decay on W and a small one on h cannot be traded."""
    model = dataclasses.replace(
        _model(3, 2, 4, 0.05), l_W=0.5, l_H=0.005 / 2, features=lambda free: 0.2 * torch.tanh(free)
    )
    point = model.minimise(0)
    proof.close("a critical point", model.gradient(point).norm(), 0.0, rel=1e-6, scale=1.0)
    proof.differ("kappa", kappa_by_hessian(model.head(point), "squared"), kappa_of_rank(model.L, 3, 3))
