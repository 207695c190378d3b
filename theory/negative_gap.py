"""Is collapse the flattest head given its outputs where they point away from the class, Delta < 0? (B6n, open).

The proof of B6 fails there, because c < 0. What is left is known for equal biases (any K) and for K = 3 (any
biases); for K >= 4 with unequal biases there are numbers only.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch

from grokcore.factorisation import flattest_reparametrisation
from theory.algebra.flattest_factorisation import collapse_is_critical, geodesic_convexity
from theory.formulas import kappa_at_collapse
from theory.numeric.configurations import Head, collapsed, generator_of, normal
from theory.numeric.fixed_outputs import attack
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

FLATTEST_AT_NEGATIVE_GAP = Statement(
    "flattest_at_negative_gap",
    label="B6n",
    claim="The bound of B6 holds for Delta < 0 too: among all heads and features with the reversed collapsed outputs, "
    "kappa is at least ((K-1)/K) Delta^2 U(Delta).",
    latex=r"\Delta < 0,\ \mathrm{softmax}(Wh_i+b) = p_{y_i}\ \forall i \implies "
    r"\kappa \ge \tfrac{K-1}{K}\Delta^2 U(\Delta)",
    assumptions={"balanced": "every class has the same number of samples"},
    source="new",
    kind="lower",
    status="open",
)

u, v, w, r = sympy.symbols("u v w r", positive=True)
rho = r / (1 + r)
"""p_true/p_other, in (0, 1) where Delta < 0."""


@FLATTEST_AT_NEGATIVE_GAP.certificate(
    "symbolic", covers="every K >= 2 with equal biases", relies_on="sympy, B6' for convexity"
)
def _equal_biases(proof: Proof) -> None:
    """With equal biases the outputs fix W~ H, and collapse is its critical factorisation at either sign of Delta."""
    geodesic_convexity(proof)
    collapse_is_critical(proof, sympy.Integer(0))


@FLATTEST_AT_NEGATIVE_GAP.certificate("symbolic", covers="K = 3, every bias, m and n", relies_on="sympy")
def _three_classes(proof: Proof) -> None:
    """The best bias for a given head, kappa in the squared sides u, v, w of its triangle of rows, and a polynomial."""
    total, first, second, beta = sympy.symbols("X A1 A2 beta")
    proof.identity(
        "sum x_c (a_c - beta)^2 = X (beta - A1/X)^2 + sum_{c<d} x_c x_d (a_c - a_d)^2/X, per coordinate of W~^-1 u_c",
        second - 2 * beta * first + beta**2 * total,
        total * (beta - first / total) ** 2 + (total * second - first**2) / total,
    )
    _sides(proof)
    _inequality(proof)


def _sides(proof: Proof) -> None:
    """|W~^-1 (u_c - u_d)|^2 = (2 (sum of sides at the third row) - the other side)/(4 area^2), in coordinates."""
    a, b, c, d = sympy.symbols("a b c d", real=True)
    rows = sympy.Matrix([[a, b], [c, d], [-a - c, -b - d]])
    side = {(s, t): sum((rows[s, j] - rows[t, j]) ** 2 for j in range(2)) for s, t in ((0, 1), (0, 2), (1, 2))}
    squared_area = 2 * sum(x * y for x, y in _pairs(list(side.values()))) - sum(x**2 for x in side.values())
    inverse = (rows.T * rows).inv() * rows.T
    for (s, t), own in side.items():
        apart = inverse * sympy.Matrix([int(k == s) - int(k == t) for k in range(3)])
        others = sum(side.values()) - own
        proof.identity(f"rows {s}, {t}", apart.dot(apart), 4 * (2 * _at_third(side, s, t) - own) / squared_area)
        proof.identity("... where the sides at the third row are the other two", _at_third(side, s, t), others)


def _at_third(side: dict[tuple[int, int], Any], s: int, t: int) -> Any:
    third = 3 - s - t
    return sum(value for pair, value in side.items() if third in pair)


def _pairs(values: list[Any]) -> list[tuple[Any, Any]]:
    return [(values[i], values[j]) for i in range(len(values)) for j in range(i)]


def _inequality(proof: Proof) -> None:
    """sum x_c x_d R_cd >= 2 U X, cleared of the area and of b_o^2."""
    # Var at class c: p_true p_other times the sides at its row, p_other^2 times the side across.
    variance = [rho * (v + w) + u, rho * (u + w) + v, rho * (u + v) + w]
    weights = sum(variance)
    proof.identity("X = (1 + 2 rho)(u + v + w)", weights, (1 + 2 * rho) * (u + v + w))
    p, b = sympy.symbols("p b")
    impurity = (1 - p**2 - 2 * b**2).subs(p, 1 - 2 * b)
    proof.identity("U = 4 p b + 2 b^2, p = 1 - 2b", impurity, (4 * p * b + 2 * b**2).subs(p, 1 - 2 * b))
    # The side across from a row lies between the two others: with row 1 goes the side u.
    apart = [2 * (u + v) - w, 2 * (u + w) - v, 2 * (v + w) - u]
    across = [variance[0] * variance[1], variance[0] * variance[2], variance[1] * variance[2]]
    left = sum(a * x for a, x in zip(apart, across, strict=True))
    squared_area = 2 * (u * v + u * w + v * w) - u**2 - v**2 - w**2
    room = left - (1 + 2 * rho) ** 2 * (u + v + w) * squared_area
    s, t = sympy.symbols("s t", positive=True)
    ordered = room.subs({v: u + s, w: u + s + t}, simultaneous=True)
    for x, y in ((u, v), (v, w)):
        proof.identity(f"symmetric in {x}, {y}", room, room.subs({x: y, y: x}, simultaneous=True))
    proof.nonnegative("for u <= v <= w, every 0 < rho < 1", ordered)
    proof.identity("equality at u = v = w", room.subs({v: u, w: u}), 0)


def _scanned(proof: Proof, claimed: float) -> None:
    """For fixed biases the least kappa is that of B6'; the biases are drawn, from 1 % of the gap to ten times it."""
    for classes in (3, 4, 6, 10):
        generator = generator_of(classes)
        centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
        ratios = []
        for gap in (-0.3, -2.0, -10.0):
            for _ in range(proof.cases(8, 100)):
                size = abs(gap) * 10 ** float(3 * torch.rand(1, generator=generator) - 2)
                bias = centring @ normal(generator, classes) * size / classes**0.5
                found = flattest_reparametrisation(
                    centring.new_ones(classes).diag(), gap * centring - bias[:, None], bias
                )
                ratios.append(found.infimum / float(kappa_at_collapse(gap, classes)))
        proof.require(f"K = {classes}: never below the bound", min(ratios) >= claimed * (1 - 1e-9))
        proof.require(f"K = {classes}: small biases come near it", min(ratios) < 1.05)


@FLATTEST_AT_NEGATIVE_GAP.certificate("numeric", covers="K = 3, 4, 6, 10, drawn biases", relies_on="the solver of B6'")
def _numeric_scan(proof: Proof) -> None:
    """The least kappa over all heads and features for drawn biases, by the flattest reparametrisation."""
    _scanned(proof, 1.0)


def _attacked(proof: Proof, claimed: float) -> None:
    for classes, m, gap in ((3, 2, -2.0), (4, 4, -6.0), (5, 4, -0.5)):
        ratio = kappa_by_hessian(attack(1, K=classes, m=m, n=1, gap=gap)) / float(kappa_at_collapse(gap, classes))
        proof.require(f"K = {classes}, Delta = {gap}: not beaten", ratio >= claimed * (1 - 1e-8))
        proof.close(f"K = {classes}, Delta = {gap}: reached", ratio, 1.0, rel=1e-6)


@FLATTEST_AT_NEGATIVE_GAP.certificate("numeric", covers="K = 3, 4, 5", relies_on="LBFGS; exact Hessians at the end")
def _numeric_attack(proof: Proof) -> None:
    """LBFGS over heads, biases and features under the exact outputs reaches the bound and does not beat it."""
    _attacked(proof, 1.0)


@FLATTEST_AT_NEGATIVE_GAP.sibling
def _larger_bound(proof: Proof) -> None:
    """A bound larger by a thousandth."""
    _attacked(proof, 1.001)


@FLATTEST_AT_NEGATIVE_GAP.without("balanced")
def _imbalance(proof: Proof) -> None:
    """K = 2 with shares 3/4 and 1/4, the labels exchanged: the bias takes over half the gap."""
    gap = 3.0
    features = torch.tensor([[gap / 4], [gap / 4], [gap / 4], [-3 * gap / 4]], dtype=torch.float64)
    weight, bias = torch.tensor([[1.0], [-1.0]]).double(), torch.tensor([gap / 4, -gap / 4]).double()
    head = Head(features, weight, bias, torch.tensor([1, 1, 1, 0]))
    reference = collapsed(K=2, m=1, gap=-gap, counts=[1, 3]).probabilities[[1, 1, 1, 0]]
    proof.close("the outputs are the reversed ones", head.probabilities, reference, rel=1e-12)
    proof.exceeds("the bound against kappa", float(kappa_at_collapse(-gap, 2)), kappa_by_hessian(head))
