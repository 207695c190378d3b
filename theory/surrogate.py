"""The surrogate that published code logs under the name of relative flatness, against kappa (C2, C3).

C1, that it is an upper bound, is in :mod:`theory.surrogate_bound`; here is how far above it can be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import Tensor

from grokcore.flatness import frobenius_surrogate
from theory.class_symmetry import CENTRING, K, outer
from theory.configurations import Head, generator_of, normal, random_head, simplex
from theory.oracle import kappa_by_hessian, kappa_matrix_free
from theory.proof import Proof
from theory.statement import Statement
from theory.surrogate_bound import head_of, rows, surrogate

SURROGATE_RATIO = Statement(
    "surrogate_ratio",
    label="C2",
    claim="At a centred simplex-ETF head the surrogate is K - 1 times kappa, for every feature and every output.",
    latex=r"\sum_s w_s = 0,\ \text{simplex ETF} \implies s_2 = (K-1)\,\kappa",
    assumptions={
        "simplex": "the rows of W have one norm and one pairwise inner product",
        "centred": "the rows of W sum to zero",
    },
    source="new",
    kind="equality",
)

SURROGATE_IS_GAMEABLE = Statement(
    "surrogate_is_gameable",
    label="C3",
    claim="W -> W + t 1 v^T leaves outputs and kappa as they are and drives s2 to infinity. With normalised features "
    "and ||W||_F <= B, s2 <= B^2 (1 - 1/K), attained iff every p_i is uniform and ||W||_F = B: by "
    "W = (B/sqrt K) 1 v^T, where kappa = 0; with equal biases and features that span R^m by no other W.",
    latex=r"s_2 \le B^2(1-1/K),\quad \text{attained at } W=\tfrac{B}{\sqrt K}\mathbf 1v^\top \text{ with } \kappa=0",
    assumptions={
        "softmax": "kappa is that of the cross-entropy, which sees the logits up to a common shift only",
        "normalised_features": "the cap: ||h_i|| = 1 in the surrogate's last factor",
        "norm_cap": "the cap: ||W||_F <= B",
    },
    source="new",
    kind="existence",
)


def _ratio_at_a_simplex(proof: Proof, claimed: Any) -> None:
    r, impurity, norm = sympy.symbols("r U N", positive=True)
    gram = r * K / (K - 1) * CENTRING
    e, ones = (1, 0), (0, 1)
    diagonal = (gram @ outer(e, e)).trace()
    # The other K - 1 entries of row c share the rest of its sum, by symmetry.
    off_diagonal = ((gram @ outer(e, ones)).trace() - diagonal) / (K - 1)
    proof.identity("the rows have squared norm r", diagonal, r)
    proof.identity("and sum to zero", (gram @ outer(ones, ones)).trace(), 0)
    # (1/2) sum_{s != t} p_s p_t ||w_s - w_t||^2, and sum_{s != t} p_s p_t = 1 - ||p||^2.
    kappa = norm * (2 * diagonal - 2 * off_diagonal) * impurity / 2
    proof.identity(
        "s2 = (K-1) kappa with K, ||w||, ||h||, U as symbols", gram.trace() * impurity * norm, claimed * kappa
    )


@SURROGATE_RATIO.certificate("symbolic", covers="every K >= 2, every p and h", relies_on="sympy", whole=True)
def _symbolic(proof: Proof) -> None:
    """Norms and pairwise distances from the Gram matrix r K/(K-1) P, K a symbol; then sums over pairs of classes."""
    _ratio_at_a_simplex(proof, K - 1)


def _numeric_ratio(proof: Proof, claimed: Callable[[int], int]) -> None:
    for classes in range(2, 2 + proof.cases(6, 12)):
        for m in (classes - 1, classes + 1):
            features = random_head(classes, K=classes, m=m, n=5).features
            head = head_of(features, simplex(classes, m, 1.7, seed=classes))
            found, expected = surrogate(head), claimed(classes) * kappa_by_hessian(head)
            proof.close(f"K = {classes}, m = {m}", found, expected, rel=1e-9)


@SURROGATE_RATIO.certificate("numeric", covers="K = 2..7, random features", relies_on="exact Hessians")
def _numeric(proof: Proof) -> None:
    """The surrogate of grokcore against kappa by the dense Hessian."""
    _numeric_ratio(proof, lambda K: K - 1)


@SURROGATE_RATIO.without("centred")
def _shifted(proof: Proof) -> None:
    """K = 3, the simplex shifted by one vector: kappa stays, the surrogate does not."""
    head = head_of(random_head(1, K=3, m=3, n=4).features, simplex(3, 3) + rows([2.0, 0.0, 0.0]))
    proof.differ("surrogate against (K-1) kappa", surrogate(head), 2 * kappa_by_hessian(head))


@SURROGATE_RATIO.without("simplex")
def _stretched(proof: Proof) -> None:
    """K = 3 with rows e1, -e1 and 0."""
    head = head_of(normal(generator_of(3), 4, 2), rows([1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]))
    proof.differ("surrogate against (K-1) kappa", surrogate(head), 2 * kappa_by_hessian(head))


@SURROGATE_RATIO.sibling
def _ratio_of_k(proof: Proof) -> None:
    """The ratio is K."""
    _ratio_at_a_simplex(proof, K)
    _numeric_ratio(proof, lambda K: K)


# C3.


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
    for classes in (2, 3, 5):
        p = sympy.Matrix(sympy.symbols(f"p:{classes}"))
        p[-1] = 1 - sum(p[:-1])
        distance = sum((value - sympy.Rational(1, classes)) ** 2 for value in p)
        text = f"K = {classes}: the cap's factor less 1 - ||p||^2 is ||p - 1/K||^2"
        proof.identity(text, claimed.subs(K, classes) - 1 + p.dot(p), distance)
    square, slack, distance, more = sympy.symbols("S n d t", positive=True)
    # For every K: ||W||_F^2 = S = B^2 - n, and 1 - ||p||^2 = 1 - 1/K - d as sum p = 1, sum 1 = K.
    gap = (square + slack) * claimed - square * (1 - 1 / K - distance)
    proof.nonnegative("B^2 (1 - 1/K) - s2 > 0 where n or d is", gap.subs(K, 2 + more), strictly=True)
    proof.identity("B^2 (1 - 1/K) - s2 = 0 where both are 0", gap.subs({slack: 0, distance: 0}), 0)


def _only_maximiser(proof: Proof) -> None:
    # Uniform p with equal biases: H (w_s - w_t) = 0 for the features' matrix H, and m of them are independent.
    features, difference = sympy.Matrix(3, 3, sympy.symbols("h:9")), sympy.Matrix(sympy.symbols("d:3"))
    solved = features.adjugate() * (features * difference)
    proof.identity("det(H) (w_s - w_t) = adj(H) H (w_s - w_t)", solved, features.det() * difference)
    v, size = sympy.Matrix(sympy.symbols("v:3")), sympy.Symbol("B", positive=True)
    weight = size / sympy.sqrt(5) * sympy.ones(5, 1) * v.T / sympy.sqrt(v.dot(v))
    proof.identity("||(B/sqrt K) 1 v^T||_F^2 = B^2 at ||v|| = 1", (weight * weight.T).trace(), size**2)


@SURROGATE_IS_GAMEABLE.certificate("symbolic", covers="every K >= 2, W, v, h", relies_on="sympy", whole=True)
def _gamed(proof: Proof) -> None:
    """The shift in p, in the pairwise distances and in ||W||_F^2; the gap to the cap as two squares; the maximisers."""
    _shift_leaves_kappa(proof)
    _cap_by_squares(proof, 1 - 1 / K)
    _only_maximiser(proof)
    for cap, classes, value in ((50, 10, 2250), (150, 100, 22275), (30, 5, 720)):
        proof.identity(f"B = {cap}, K = {classes}: {value}", cap**2 * (1 - 1 / K).subs(K, classes), value)


def _gamed_measured(proof: Proof, factor: Callable[[int], float], *, least: float = 0.0) -> None:
    for classes, m, size in ((2, 1, 2.0), (3, 2, 3.0), (5, 3, 3.0)):
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
            proof.at_most(f"{text}: kappa / s2 >= {least:g}", least * surrogate(shifted), kappa)
        best = _maximised(head.features, classes, size)
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
    _gamed_measured(proof, lambda K: 1 - 1 / K)


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
    _gamed_measured(proof, lambda K: (1 - 1 / K) ** 2)


@SURROGATE_IS_GAMEABLE.sibling
def _large_is_sharp(proof: Proof) -> None:
    """A large surrogate means a sharp head: kappa >= s2 / 1000."""
    _gamed_measured(proof, lambda K: 1 - 1 / K, least=1e-3)
