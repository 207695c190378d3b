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
from theory.nuclear_norm import BALANCED, EACH, E, P
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
        "balanced classes, with equality iff NC1, NC2 with mu_G = 0, NC3 and equal biases. At the global minimisers of "
        "the unconstrained-features model without bias, m >= K and L < 1/K, kappa = K (1-KL)^2; with a bias and "
        "m >= K - 1 it is ((K-1)^2/K) (1-KL)^2."
    ),
    latex=(
        r"\kappa = \|W\|_F^2\,\overline{\|h\|^2} \ge \tfrac1N\|WH\|_*^2;\quad"
        r"WH = Y \implies \kappa \ge \tfrac1N\Big(\sum_c \sqrt{n_c}\Big)^2;\quad \kappa_L = K(1-KL)^2"
    ),
    assumptions={
        "exact fit": "of the bounds (K-1)^2/K and (sum sqrt n_c)^2/N: W h_i + b = e_{y_i} for every sample",
        "no bias": "of the bound (sum sqrt n_c)^2/N and of K (1-KL)^2: b = 0",
        "balanced": "of the bound with a bias and of both values: every class has n samples",
        "width": "of the value K (1-KL)^2: m >= K (of the value with a bias: m >= K - 1)",
        "minimiser": "of the values: W and H (and b) are a global minimiser",
        "free": "of the values: the features are free variables",
    },
    source="new (the minimisers without their flatness: Zhou et al. 2022)",
    kind="equality",
)

Value = Callable[[Any, Any], Any]
"""kappa at the minimiser, of (L, K)."""


def _of_orthogonal_frame(L: Any, K: Any) -> Any:
    return K * (1 - K * L) ** 2


def _of_simplex(L: Any, K: Any) -> Any:
    return (K - 1) ** 2 / K * (1 - K * L) ** 2


def closed_form(proof: Proof) -> None:
    """kappa = ||W||^2 ||H||^2 / N from the second derivatives, at K = 3, m = 2, two samples."""
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
    x, y, bound = sympy.symbols("x y z", positive=True)
    # The least of l_W x^2 + l_H y^2 - 2 mu z over the decays, at w = sqrt(y), h = sqrt(x) in x = |W|, y = |H|.
    proof.identity(
        "at l_W = y/x, l_H = x/y it says |W||H| >= ||WH||_*",
        (y / x * x**2 + x / y * y**2 - 2 * bound) / 2,
        x * y - bound,
    )
    # Y = I (x) 1' with columns e_y: Y Y' = diag(n_c), and X = (YY')^(-1/2) Y has <X, Y> = sum sqrt n_c.
    D, R, Y = letters("D R Y")
    root = [(Y @ Y.T, D @ D), (R @ D, IDENTITY), (D @ R, IDENTITY), (R.T, R)]
    X = R @ Y
    proof.require("XX' = I", (X @ X.T).given(*root).equals(IDENTITY))
    proof.require("<X, Y> = tr D = sum sqrt n_c", (X @ Y.T).given(*root).equals(D))
    # Cauchy-Schwarz as a sum of squares, for every pair of classes.
    first, second = sympy.symbols("r s", positive=True)
    text = "K N - (sum sqrt n_c)^2 = (1/2) sum_cd (sqrt n_c - sqrt n_d)^2: K iff balanced; each pair of terms"
    proof.identity(text, first**2 + second**2 - 2 * first * second, (first - second) ** 2)
    beta = letters("b")[0]
    nuclear_norm.collapsed_polar_factor(proof)
    root_n = sympy.sqrt(nuclear_norm.n)
    centred = 1 / root_n * (P @ E)
    inner = (centred @ (E - beta @ EACH.T).T).given(*BALANCED)
    proof.require("X = P (x) 1'/sqrt n: X(Y - b1')' = sqrt n P for every b", inner.equals(root_n * P))
    trace = CENTRING.trace()
    proof.identity("so kappa >= n (tr P)^2 / N = (K-1)^2/K", trace**2 / K, with_bias)
    excess = sympy.Symbol("e", nonnegative=True)  # |1 - K b| at b = const 1, the norm on the direction of 1
    least = 1 / K * (trace + excess) ** 2 - trace**2 / K
    proof.nonnegative("equality needs b = 1/K: Y - b1' has n (K-1 + |1-Kb|)^2", least.subs(K, 2 + bound))
    nuclear_norm.bias_changes_nothing(proof)
    nuclear_norm.factors_at_equality(proof)


def minimisers(proof: Proof, orthogonal: Value, simplex_: Value) -> None:
    """(1/2N)|Z - Y|^2 + mu ||Z||_*: -grad = (Y - Z)/N = mu X at Z = (1-KL) sqrt n X, Y = sqrt n X."""
    L, root, rho = sympy.symbols("L nu rho", positive=True)
    samples, mu = root**2 * K, L / root
    shrunk = (1 - K * L) * root
    proof.identity("-grad = mu X", (root - shrunk) / samples, mu)
    small = (mu - root / samples).subs(L, 1 / K + rho)
    proof.nonnegative("L >= 1/K: ||grad f(0)|| = 1/(K sqrt n) <= mu, so Z = 0", small)
    for text, rank, value in (("without bias X = I (x) 1'/sqrt n", K, orthogonal), ("with bias P", K - 1, simplex_)):
        # At equality l_W|W|^2 = l_H|H|^2 = mu ||Z||_*, so |W|^2 |H|^2 = ||Z||_*^2.
        proof.identity(f"kappa = ||Z||_*^2/N, {text}", (rank * shrunk) ** 2 / samples, value(L, K))


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
    minimisers(proof, _of_orthogonal_frame, _of_simplex)


def minimised(proof: Proof, claimed: Value, models: list[FreeFeatures]) -> None:
    """F minimised from a random start; kappa from the dense Hessian."""
    for model in models:
        expected = claimed(model.L, model.K) if model.K * model.L < 1 else 0.0
        head = model.head(model.minimise(0))
        name = f"K = {model.K}, n = {model.counts[0]}, m = {model.m}, L = {model.L:.3g}"
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
    minimised(proof, _of_orthogonal_frame, [_model(2, 1, 2, 0.1), _model(3, 2, 4, 0.05), _model(4, 1, 4, 0.4)])
    minimised(proof, _of_simplex, [_model(2, 2, 1, 0.1, bias=True), _model(4, 2, 5, 0.05, bias=True)])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _the_floor_of_no_bias(proof: Proof) -> None:
    """A bias does not lower the floor: kappa >= K at exact fit."""
    bounds_at_exact_fit(proof, K)
    exact_fits(proof, lambda counts: float(len(counts)), bias=True, counts=[[2, 2, 2]])


@SQUARED_LOSS_DOES_NOT_FLATTEN.sibling
def _linear_in_the_decay(proof: Proof) -> None:
    """kappa = K (1-KL) at the minimiser."""
    minimisers(proof, lambda L, K: K * (1 - K * L), _of_simplex)
    minimised(proof, lambda L, K: K * (1 - K * L), [_model(3, 2, 4, 0.05)])


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


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("width")
def _one_dimension_short(proof: Proof) -> None:
    """m = K - 1 without bias: one singular value is lost, and kappa = ((K-1)^2/K)(1-KL)^2."""
    model = _model(3, 2, 2, 0.05)
    kappa = kappa_by_hessian(model.head(model.minimise(0)), "squared")
    proof.close("the value at m = K - 1", kappa, _of_simplex(0.05, 3), rel=1e-8)
    proof.differ("kappa against K (1-KL)^2", kappa, _of_orthogonal_frame(0.05, 3))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("minimiser")
def _origin(proof: Proof) -> None:
    """The origin is critical, and kappa = 0 there."""
    model = _model(3, 2, 4, 0.05)
    zero = torch.zeros(model.size, dtype=torch.float64)
    proof.close("a critical point", model.gradient(zero).norm(), 0.0, scale=1.0)
    proof.differ("kappa", kappa_by_hessian(model.head(zero), "squared"), _of_orthogonal_frame(0.05, 3))


@SQUARED_LOSS_DOES_NOT_FLATTEN.without("free")
def _tied_features(proof: Proof) -> None:
    """Features bounded by tanh: large decay on W and small on h cannot be traded."""
    model = dataclasses.replace(
        _model(3, 2, 4, 0.05), l_W=0.5, l_H=0.005 / 2, features=lambda free: 0.2 * torch.tanh(free)
    )
    point = model.minimise(0)
    proof.close("a critical point", model.gradient(point).norm(), 0.0, rel=1e-6, scale=1.0)
    proof.differ("kappa", kappa_by_hessian(model.head(point), "squared"), _of_orthogonal_frame(model.L, 3))
