"""The surrogate that published code logs can be driven at will where relative flatness does not move (C3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor

from grokcore.flatness import frobenius_surrogate
from theory.algebra.class_symmetry import K
from theory.numeric.configurations import Head, generator_of, normal, random_head, rows
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free
from theory.numeric.surrogate import head_of, surrogate
from theory.proof import Proof
from theory.statement import Statement

SURROGATE_IS_GAMEABLE = Statement(
    "surrogate_is_gameable",
    label="C3",
    claim="W -> W + t 1 v^T leaves outputs and kappa as they are and drives s2 to infinity with |t| (v and some h_i "
    "not 0). With normalised features and ||W||_F <= B, B > 0, s2 <= B^2 (1 - 1/K), with equality iff every p_i is "
    "uniform and ||W||_F = B. With equal biases W = (B/sqrt K) 1 v^T, ||v|| = 1, is such a maximum, its kappa is 0, "
    "and there is no other where the features span R^m.",
    latex=r"s_2 \le B^2(1-1/K),\quad \text{attained at } W=\tfrac{B}{\sqrt K}\mathbf 1v^\top \text{ with } \kappa=0",
    assumptions={
        "softmax": "kappa is that of the cross-entropy, which sees the logits up to a common shift only",
        "normalised_features": "the cap: ||h_i|| = 1 in the surrogate's last factor",
        "norm_cap": "the cap: ||W||_F <= B",
    },
    source="new",
    kind="existence",
)


def _shift_leaves_kappa(proof: Proof) -> None:
    x, common = sympy.symbols("x:3", positive=True), sympy.Symbol("E", positive=True)
    softmax = [value / sum(x) for value in x]
    shifted = [value * common / sum(common * other for other in x) for value in x]
    proof.identity("exp(t <v, h>) cancels in every p_s", sympy.Matrix(shifted), sympy.Matrix(softmax))
    t, s = sympy.symbols("t s", real=True)
    left, right, v = (sympy.Matrix(sympy.symbols(f"{name}:3", real=True)) for name in "uwv")
    before, after = left - right, (left + t * v) - (right + t * v)
    proof.identity("every ||w_s - w_t|| is unchanged, and with them kappa", after.dot(after), before.dot(before))
    row, square = sympy.IndexedBase("a"), sympy.Symbol("V", positive=True)
    inner = sympy.IndexedBase("c")
    # ||w_s + t v||^2 row by row, a_s = ||w_s||^2, c_s = <w_s, v>.
    shifted_row = (left + t * v).dot(left + t * v)
    proof.identity("||w + t v||^2", shifted_row, left.dot(left) + 2 * t * left.dot(v) + t**2 * v.dot(v))
    norm = sympy.Sum(row[s] + 2 * t * inner[s] + t**2 * square, (s, 1, K)).expand().doit()
    proof.identity("||W + t 1 v^T||_F^2 has leading coefficient K ||v||^2", norm.coeff(t, 2), K * square)


def _cap_by_squares(proof: Proof, claimed: Any) -> None:
    square_of_p = sympy.Symbol("P")
    # <p, p> - 2 <p, 1>/K + <1, 1>/K^2 with <p, 1> = 1 and <1, 1> = K.
    distance = square_of_p - 2 / K + K / K**2
    text = "every K: the cap's factor less 1 - ||p||^2 is ||p - 1/K||^2, as sum p = 1"
    proof.identity(text, claimed - 1 + square_of_p, distance)
    p = sympy.Matrix(sympy.symbols("p:3"))
    p[-1] = 1 - sum(p[:-1])
    written_out = sum((value - sympy.Rational(1, 3)) ** 2 for value in p)
    proof.identity("the same written out at K = 3", claimed.subs(K, 3) - 1 + p.dot(p), written_out)
    square, slack, distance = sympy.symbols("S n d", positive=True)
    # ||W||_F^2 = S = B^2 - n, and mean(1 - ||p_i||^2) = 1 - 1/K - d with d = mean ||p_i - 1/K||^2.
    # Both terms below are >= 0. Both are 0 iff n = 0, so that S = B^2 > 0, and d = 0.
    gap = (square + slack) * claimed - square * (1 - 1 / K - distance)
    squares = slack * (1 - 1 / K) + square * distance
    proof.identity("every K: the cap - s2 = (B^2 - ||W||_F^2)(1 - 1/K) + ||W||_F^2 mean ||p_i - 1/K||^2", gap, squares)


def _only_maximiser(proof: Proof) -> None:
    # Uniform p with equal biases: <w_s - w_t, h_i> = 0 for all i. Stacked in H, m independent features have
    # det(H) != 0, so w_s = w_t: the adjugate's identity, which holds at every m, written out at m = 3.
    features, difference = sympy.Matrix(3, 3, sympy.symbols("h:9")), sympy.Matrix(sympy.symbols("d:3"))
    solved = features.adjugate() * (features * difference)
    proof.identity("det(H) (w_s - w_t) = adj(H) H (w_s - w_t)", solved, features.det() * difference)
    # All rows equal, to w say: K ||w||^2 = B^2 makes w = (B/sqrt K) v with ||v|| = 1. It is the shift of W = 0 by w,
    # whose kappa is 0.
    size, row = sympy.symbols("B r", positive=True)
    norm = sympy.Sum(row, (sympy.Symbol("s"), 1, K)).doit()
    (solved_row,) = sympy.solve(norm - size**2, row)
    proof.identity("K equal rows of norm r with ||W||_F = B: r = B/sqrt K", solved_row, (size / sympy.sqrt(K)) ** 2)


@SURROGATE_IS_GAMEABLE.certificate("symbolic", covers="every K >= 2, W, v, h", relies_on="sympy", whole=True)
def _gamed(proof: Proof) -> None:
    """The shift in p, in the pairwise distances and in ||W||_F^2; the gap to the cap as two squares; the maximisers."""
    _shift_leaves_kappa(proof)
    _cap_by_squares(proof, 1 - 1 / K)
    _only_maximiser(proof)
    for cap, classes, value in ((50, 10, 2250), (150, 100, 22275), (30, 5, 720)):
        proof.identity(f"B = {cap}, K = {classes}: {value}", cap**2 * (1 - 1 / K).subs(K, classes), value)


_SIZES = ((2, 1, 2.0), (3, 2, 3.0), (5, 3, 3.0))
"""K, m and the cap B."""


def _shift_measured(proof: Proof, *, least: float | None = None) -> None:
    for classes, m, _ in _SIZES:
        head = random_head(classes, K=classes, m=m, n=6)
        kappa, direction = kappa_by_hessian(head), normal(generator_of(classes), m)
        for t in (-20.0, 5.0, 300.0):
            shifted = head._replace(weight=head.weight + t * direction)
            text = f"K = {classes}, t = {t:g}"
            proof.close(f"{text}: outputs", shifted.probabilities, head.probabilities)
            proof.close(f"{text}: kappa", kappa_by_hessian(shifted), kappa, rel=1e-9)
            back = head._replace(weight=head.weight - t * direction)
            curvature = surrogate(shifted) + surrogate(back) - 2 * surrogate(head)
            rise = 2 * t**2 * classes * float(direction.square().sum() / head.weight.square().sum()) * surrogate(head)
            proof.close(f"{text}: the surrogate grows as t^2 K ||v||^2", curvature, rise, rel=1e-9)
            if least is not None:
                proof.at_most(f"{text}: kappa / s2 >= {least:g}", least * surrogate(shifted), kappa)


def _cap_measured(proof: Proof, factor: Callable[[int], float]) -> None:
    for classes, m, size in _SIZES:
        best = _maximised(random_head(classes, K=classes, m=m, n=6).features, classes, size)
        highest = surrogate(best, normalize_features=True)
        proof.close(f"K = {classes}: the maximum by an optimiser", highest, size**2 * factor(classes), rel=1e-6)
        proof.close(f"K = {classes}: kappa there", kappa_by_hessian(best), 0.0, rel=1e-5)
    for cap, classes in ((50.0, 10), (150.0, 100), (30.0, 5)):
        weight = torch.zeros(classes, 3, dtype=torch.float64)
        weight[:, 0] = cap / classes**0.5
        flat = head_of(normal(generator_of(1), 4, 3), weight)
        proof.close(f"B = {cap:g}, K = {classes}", surrogate(flat, normalize_features=True), cap**2 * factor(classes))
        proof.close(f"B = {cap:g}, K = {classes}: kappa", kappa_matrix_free(flat), 0.0, rel=1e-10)


def _maximised(features: Tensor, classes: int, size: float) -> Head:
    """The head of Frobenius norm `size` to which gradient ascent of the surrogate comes."""
    weight = size * normal(generator_of(3), classes, features.shape[1]) / (classes * features.shape[1]) ** 0.5
    for _ in range(300):
        weight = (size * weight / weight.norm()).requires_grad_()
        (ascent,) = torch.autograd.grad(frobenius_surrogate(features, weight, normalize_features=True), weight)
        weight = (weight + 4 * ascent / size**2).detach()
    return head_of(features, size * weight / weight.norm())


@SURROGATE_IS_GAMEABLE.certificate(
    "numeric",
    covers="random heads shifted; the capped maximum at K = 2, 3, 5",
    relies_on="exact Hessians, gradient ascent",
)
def _gamed_numeric(proof: Proof) -> None:
    """Shifted heads by exact Hessians, the capped maximum by an optimiser, and the published caps."""
    _shift_measured(proof)
    _cap_measured(proof, lambda K: 1 - 1 / K)


@SURROGATE_IS_GAMEABLE.without("softmax")
def _seen_by_the_squared_loss(proof: Proof) -> None:
    """The squared loss: the shift moves kappa."""
    head = random_head(4, K=3, m=2, n=4)
    shifted = head._replace(weight=head.weight + 5.0 * rows([1.0, 0.0]))
    proof.differ("kappa after the shift", kappa_by_hessian(shifted, "squared"), kappa_by_hessian(head, "squared"))


@SURROGATE_IS_GAMEABLE.without("normalised_features")
def _long_features(proof: Proof) -> None:
    """Features of norm 3 with their own norms in the last factor, K = 3, B = 1."""
    head = head_of(3 * torch.eye(2, dtype=torch.float64), rows([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]) / 3**0.5)
    proof.exceeds("the surrogate against the cap", surrogate(head), 2 / 3)


@SURROGATE_IS_GAMEABLE.without("norm_cap")
def _long_rows(proof: Proof) -> None:
    """K = 3 with ||W||_F = 2 against the cap of B = 1."""
    head = head_of(torch.eye(2, dtype=torch.float64), 2 * rows([1.0, 0.0], [1.0, 0.0], [1.0, 0.0]) / 3**0.5)
    proof.exceeds("the surrogate against the cap", surrogate(head, normalize_features=True), 2 / 3)


@SURROGATE_IS_GAMEABLE.sibling
def _lower_cap(proof: Proof) -> None:
    """s2 <= B^2 (1 - 1/K)^2 under the cap B."""
    _cap_by_squares(proof, (1 - 1 / K) ** 2)
    _cap_measured(proof, lambda K: (1 - 1 / K) ** 2)


@SURROGATE_IS_GAMEABLE.sibling
def _large_is_sharp(proof: Proof) -> None:
    """A large surrogate means a sharp head: kappa >= s2 / 1000."""
    _shift_measured(proof, least=1e-3)
