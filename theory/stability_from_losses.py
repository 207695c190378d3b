"""Each sample's loss, norm and class decide kappa up to the rows' distances, with no oscillation (B8l)."""

from __future__ import annotations

from typing import Any

import sympy
import torch
import z3

from theory.algebra.class_pairs import PS, PT, moment, over_pairs
from theory.algebra.class_symmetry import K
from theory.algebra.collapse import IMPURITY, p_true, q
from theory.numeric.configurations import Head, collapsed, rows
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.stability import (
    Average,
    Sides,
    at_logits,
    cases,
    errors,
    far_cases,
    far_measured,
    impurity,
    logits,
    measured,
    oscillation,
    raised,
)
from theory.proof import Proof
from theory.statement import Statement

STABILITY_FROM_LOSSES = Statement(
    "stability_from_losses",
    label="B8l",
    claim=(
        "x_i = 1 - p_(iy) = 1 - e^-loss_i, d_c and D_c the least and the largest ||w_c - w_t||, t != c, D+ of all: "
        "mean(||h||^2 d_y^2 x(1-x)) <= kappa <= mean(||h||^2 (D_y^2 x(1-x) + (D+^2/2) ((K-2)/(K-1)) x^2)), both equal "
        "to kappa at K = 2, the second at collapse too. At equidistant rows upper/lower <= 1 + (K-2)/(2(K-1)) "
        "max x/(1-x) -> 1 with the losses, however large the oscillation. The second is <= (D+^2/2) "
        "mean(||h||^2 U(Delta_i)), Delta_i = log((K-1)(1-x_i)/x_i) with |Delta_i - Delta| <= omega_i, so it is at most "
        "the upper sides of B8 and B8s at every Delta."
    ),
    latex=(
        r"\overline{\|h_i\|^2 d_{y_i}^2 x_i(1-x_i)} \le \kappa \le \overline{\|h_i\|^2\big(D_{y_i}^2 x_i(1-x_i) + "
        r"\tfrac12 D_+^2\tfrac{K-2}{K-1}x_i^2\big)},\quad x_i = 1-e^{-\ell_i}"
    ),
    assumptions={
        "cross_entropy": "mean cross-entropy, in nats, of the softmax at temperature 1 of W h + b",
        "own_row": "d_c and D_c bound the distance of row c to every other row, and D+ that of every pair",
        "per_sample": "each sample's own loss: the mean loss does not do",
    },
    source="new",
    kind="upper",
)


def sides(
    head: Head, second: float = 1.0, correct: float = 1.0, least: Average = torch.amin, most: Average = torch.amax
) -> Sides:
    """The two sides, with `second` times the upper one's last term, (1 - x)^correct below, D_c and d_c by averages."""
    classes, x = len(head.weight), errors(head)
    other = ~torch.eye(classes, dtype=torch.bool)
    squared = torch.cdist(head.weight, head.weight, compute_mode="donot_use_mm_for_euclid_dist").square()
    of_class = squared[other].reshape(classes, classes - 1)
    low, high = least(of_class, dim=1)[head.labels], most(of_class, dim=1)[head.labels]
    norms = head.features.square().sum(dim=1)
    last = second * squared.max() / 2 * (classes - 2) / (classes - 1) * x.square()
    lower = norms * low * x * (1 - x) ** correct
    return Sides(float(lower.mean()), float((norms * (high * x * (1 - x) + last)).mean()))


def _split(proof: Proof) -> None:
    """U with the true class singled out, both of its parts, and what either side leaves over; K a symbol."""
    x, R, Q, D, e, p_s, p_t = sympy.symbols("x R Q D e p_s p_t", positive=True)
    U = over_pairs(PS * PT) - over_pairs(PS**2 * PT)
    parts = 2 * x * (1 - x) + x**2 - R
    text = "U = 2 p_y (1-p_y) + (x^2 - R), the pairs with y and without, R = sum of the others' squares"
    proof.identity(text, U.subs(moment(2, 0), (1 - x) ** 2 + R), parts)
    pair = p_s * p_t * ((D + e) ** 2 - D**2)
    text = "a pair's term rises with its distance: d_y to D_y with y, 0 to D+ without"
    proof.nonnegative(text, pair, strictly=True)
    # R >= x^2/(K-1), Cauchy-Schwarz: R = x^2/(K-1) + Q.
    room = (K - 2) / (K - 1) * x**2 - (x**2 - R).subs(R, x**2 / (K - 1) + Q)
    for text, more in (("K = 2 + t", 2 + sympy.Symbol("t", positive=True)), ("K = 2", sympy.Integer(2))):
        proof.nonnegative(f"x^2 - R <= ((K-2)/(K-1)) x^2 ({text})", room.subs(K, more))


def _compared(proof: Proof) -> None:
    """The two sides against each other, and the upper one against B8's."""
    x, D, r, u, v = sympy.symbols("x D r u v", positive=True)
    lower, upper = D**2 * x * (1 - x), D**2 * x * (1 - x) + D**2 / 2 * (K - 2) / (K - 1) * x**2
    ratio = 1 + (K - 2) / (2 * (K - 1)) * x / (1 - x)
    proof.identity("equidistant rows: upper/lower in each sample", upper / lower, ratio)
    proof.identity("K = 2: they are the same", upper.subs(K, 2), lower)
    proof.nonnegative("upper/lower rises with x", sympy.diff(x / (1 - x), x).subs(x, 1 / (1 + r)), strictly=True)
    gap = x / ((K - 1) * (1 - x))
    proof.identity("q = e^-Delta_i has p_y = 1 - x", p_true.subs(q, gap), 1 - x)
    proof.identity("D_y = D+: the upper side is (D+^2/2) U(Delta_i)", upper, D**2 / 2 * IMPURITY.subs(q, gap))
    # e^-Delta_i is the mean over o of e^(z_o - z_y), each of which is within a factor e^omega = Y of e^-Delta = 1/Q.
    Q, Y = sympy.symbols("Q Y", positive=True)
    proof.nonnegative("e^-Delta_i <= e^(omega - Delta)", Y / Q - (Y / (1 + u)) / (Q * (1 + v)), strictly=True)
    proof.nonnegative("e^-Delta_i >= e^-(omega + Delta)", (1 + u) * (1 + v) / (Q * Y) - 1 / (Q * Y), strictly=True)


@STABILITY_FROM_LOSSES.certificate(
    "symbolic", covers="every K >= 2, m, n, W, b, h", relies_on="sympy, Cauchy-Schwarz; A2, B8s", whole=True
)
def _for_every_k(proof: Proof) -> None:
    """The pairs of classes with and without the true one, K a symbol; the sides' ratio; the log-odds gap."""
    _split(proof)
    _compared(proof)


def _by_smt(proof: Proof, second: Any, correct: int) -> None:
    factor = z3.Q(sympy.Rational(second).p, sympy.Rational(second).q)
    for classes in (2, 3):
        p = z3.Reals(" ".join(f"p{s}" for s in range(classes)))
        pairs = [(s, t) for s in range(classes) for t in range(s)]
        e = {pair: z3.Real(f"e{pair[0]}{pair[1]}") for pair in pairs}
        low, high, top = z3.Reals("low high top")
        ranges = [
            sum(p) == 1,
            *(value > 0 for value in p),
            low >= 0,
            high <= top,
            *(value >= 0 for value in e.values()),
        ]
        ranges += [z3.And(low <= e[pair], e[pair] <= high) if 0 in pair else e[pair] <= top for pair in pairs]
        variance = sum(p[s] * p[t] * e[s, t] for s, t in pairs)
        x = 1 - p[0]
        upper = high * x * p[0] + factor * top / 2 * z3.Q(classes - 2, classes - 1) * x * x
        proof.unsatisfiable(f"K = {classes}: Var above the upper side", [*ranges, variance > upper])
        lower = low * x * (p[0] if correct else 1)
        proof.unsatisfiable(f"K = {classes}: Var below the lower side", [*ranges, variance < lower])


@STABILITY_FROM_LOSSES.certificate("rigorous", covers="K = 2, 3 and every m, n", relies_on="z3; A2")
def _no_solution(proof: Proof) -> None:
    """No outputs and squared distances of two or three classes violate either side (SMT)."""
    _by_smt(proof, 1, 1)


def _measured(proof: Proof, **changed: Any) -> None:
    for case, kappa in [*measured(proof.cases(6, 40)), *far_measured()]:
        lower, upper = sides(case.head, **changed)
        proof.at_most(f"{case.text}: lower side <= kappa", lower, kappa, slack=1e-8)
        proof.at_most(f"{case.text}: kappa <= upper side", kappa, upper, slack=1e-8)


@STABILITY_FROM_LOSSES.certificate(
    "numeric", covers="random, near collapse and far from it; K = 2..6", relies_on="exact Hessians"
)
def _by_hessian(proof: Proof) -> None:
    """Both sides against the dense Hessian; equality at collapse and at K = 2; closing far from collapse."""
    _measured(proof)
    for classes in (2, 3, 5):
        head = collapsed(classes, K=classes, m=classes, gap=5.0, gamma=0.7, counts=2)
        kappa = kappa_by_hessian(head)
        proof.close(f"K = {classes}: upper side at collapse", sides(head).upper, kappa, rel=1e-8)
        if classes == 2:
            proof.close("K = 2: lower side", sides(head).lower, kappa, rel=1e-8)
    for case in far_cases():
        omega, x = oscillation(logits(case.head), case.head.labels, case.gap), errors(case.head)
        if "simplex" in case.text:
            classes = len(case.head.weight)
            ratio = 1 + (classes - 2) / (2 * (classes - 1)) * float(x / (1 - x))
            lower, upper = sides(case.head)
            proof.close(f"{case.text}: upper/lower, omega = {float(omega):.2g}", upper / lower, ratio, rel=1e-9)
    for case in cases(3):
        x, classes = errors(case.head), len(case.head.weight)
        gaps = torch.log((classes - 1) * (1 - x) / x)
        omega = oscillation(logits(case.head), case.head.labels, case.gap)
        proof.at_most(f"{case.text}: |Delta_i - Delta| <= omega_i", (gaps - case.gap).abs(), omega + 1e-9)
        largest = torch.pdist(case.head.weight).max() ** 2 / 2
        whole = largest * (case.head.features.square().sum(dim=1) * impurity(gaps, classes)).mean()
        proof.at_most(
            f"{case.text}: within (D+^2/2) mean ||h||^2 U(Delta_i)", sides(case.head).upper, whole, slack=1e-9
        )


@STABILITY_FROM_LOSSES.without("cross_entropy")
def _squared(proof: Proof) -> None:
    """Squared loss: kappa = ||W||_F^2 mean ||h||^2 does not fall with the confidence."""
    head = collapsed(1, K=3, m=2, gap=9.0)
    proof.exceeds("kappa against the upper side at collapse", kappa_by_hessian(head, "squared"), sides(head).upper)


@STABILITY_FROM_LOSSES.without("own_row")
def _nearest_alone(proof: Proof) -> None:
    """Rows 0, 1 and 4 on a line, y the first: the nearest distance as D_y, the farthest as d_y."""
    line, h = rows([0.0], [1.0], [4.0]), torch.ones(1).double()
    far, near = (at_logits(raised(3, 8.0, torch.tensor([rival]), 5.0), line, h) for rival in (2, 1))
    proof.exceeds("kappa against the upper side", kappa_by_hessian(far), sides(far, most=torch.amin).upper)
    proof.exceeds("the lower side against kappa", sides(near, least=torch.amax).lower, kappa_by_hessian(near))


@STABILITY_FROM_LOSSES.without("per_sample")
def _mean_loss(proof: Proof) -> None:
    """K = 2: one sample sure and right, one sure and wrong; at their mean loss x(1-x) is larger than either's."""
    features = rows([8.0], [-8.0])
    weight = rows([0.5], [-0.5])
    head = Head(features, weight, torch.zeros(2, dtype=torch.float64), torch.tensor([0, 0]))
    mean = 1 - torch.exp(torch.log1p(-errors(head)).mean())
    lower = float(features.square().mean() * mean * (1 - mean))
    proof.exceeds("the lower side at the mean loss against kappa", lower, kappa_by_hessian(head))


@STABILITY_FROM_LOSSES.sibling
def _without_rivals(proof: Proof) -> None:
    """The pairs with y alone: kappa <= mean(||h||^2 D_y^2 x(1-x))."""
    _by_smt(proof, 0, 1)
    _measured(proof, second=0.0)


@STABILITY_FROM_LOSSES.sibling
def _fewer_rivals(proof: Proof) -> None:
    """0.95 of the upper side's last term."""
    _by_smt(proof, sympy.Rational(19, 20), 1)
    _measured(proof, second=0.95)


@STABILITY_FROM_LOSSES.sibling
def _first_order(proof: Proof) -> None:
    """mean(||h||^2 d_y^2 x) <= kappa: the leading term is a lower bound."""
    _by_smt(proof, 1, 0)
    _measured(proof, correct=0.0)


@STABILITY_FROM_LOSSES.sibling
def _mean_of_row(proof: Proof) -> None:
    """The mean square of the distances of row c in place of d_c^2 and D_c^2."""
    _measured(proof, least=torch.mean, most=torch.mean)
