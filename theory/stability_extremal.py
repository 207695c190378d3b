"""The best that Delta and the oscillation of the deviation say about kappa, which is less than e^omega (B8s)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import sympy
import torch
import z3
from torch import Tensor

from theory.algebra.stability_box import enough, greatest_impurity, inside_exponentials, least_impurity, vertex
from theory.numeric.configurations import collapsed, generator_of, normal, simplex
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.stability import (
    ON_A_LINE,
    Case,
    Sides,
    at_logits,
    cases,
    exponential,
    impurity,
    logits,
    measured,
    oscillation,
    raised,
    squared_distances,
    with_kappa,
)
from theory.proof import Proof
from theory.statement import Statement

STABILITY_EXTREMAL = Statement(
    "stability_extremal",
    label="B8s",
    claim=(
        "With D-, D+ and omega_i as in B8, any Delta: kappa <= (D+^2/2) mean(||h||^2 U(c_i)), c_i the point of "
        "[Delta - omega_i, Delta + omega_i] nearest 0; and (D-^2/2) mean(||h||^2 U(Delta + omega_i)) <= kappa where "
        "Q = e^Delta >= 1 has 8Q(Q-1)(Q+K-1) + 2Q^3 >= (K-1)(K-2): every Delta >= 0 for K <= 3, and every Delta >= 0 "
        "with Q(Q-1) >= (K-2)/8, where no smaller constant does for every K. These are the greatest and the least U of "
        "all logits with an oscillation of at most omega_i, each attained by one sample on equidistant rows: no better "
        "function of Delta and a bound omega_i on the oscillation takes its place. For omega_i > 0 they are strictly "
        "inside the e^-+omega_i U(Delta) of B8. For Delta >= 0 and any K the least U has y and none or more of the "
        "others raised by omega_i."
    ),
    latex=(
        r"\tfrac12 D_-^2\,\overline{\|h_i\|^2\,U(\Delta+\omega_i)} \le \kappa \le "
        r"\tfrac12 D_+^2\,\overline{\|h_i\|^2\,U(c_i)},\quad "
        r"c_i = \operatorname{argmin}_{|c-\Delta|\le\omega_i}|c|"
    ),
    assumptions={
        "cross_entropy": "mean cross-entropy, in nats, of the softmax at temperature 1 of W h + b",
        "all_pairs": "D- and D+ bound the distance of every pair of rows",
        "confident": "for the lower side: Delta >= 0 satisfies the condition on e^Delta and K",
    },
    source="new",
    kind="upper",
)

Impurity = Callable[[Tensor, Tensor, int], Tensor]


Enough = Callable[[float, int], bool]


def above(gap: Tensor, omega: Tensor, classes: int) -> Tensor:
    """U(Delta + omega)."""
    return impurity(gap + omega, classes)


def nearest_uniform(gap: Tensor, omega: Tensor, classes: int) -> Tensor:
    """U at the point of [Delta - omega, Delta + omega] nearest 0."""
    return impurity(gap - gap.clamp(-omega, omega), classes)


def sides(case: Case, least: Impurity = above, most: Impurity = nearest_uniform) -> Sides:
    """(D^2/2) mean(||h||^2 U), U from Delta, omega and K by `least` and `most`."""
    _, head, gap = case
    omega, classes = oscillation(logits(head), head.labels, gap), len(head.weight)
    delta, norms = torch.full_like(omega, gap), head.features.square().sum(dim=1)
    squared = squared_distances(head.weight) / 2
    low = squared.min() * (norms * least(delta, omega, classes)).mean()
    return Sides(float(low), float(squared.max() * (norms * most(delta, omega, classes)).mean()))


def condition(gap: float, classes: int) -> bool:
    """Whether Delta is large enough for the lower side."""
    Q, n = math.exp(gap), classes - 1
    return gap >= 0 and 8 * Q * (Q - 1) * (Q + n) + 2 * Q**3 >= n * (n - 1)


@STABILITY_EXTREMAL.certificate(
    "symbolic", covers="every K >= 2, m, n, W, b, h, Delta", relies_on="sympy, Cauchy-Schwarz; A2, A5", whole=True
)
def _for_every_k(proof: Proof) -> None:
    """The extrema of U over a box of logits, K a symbol: vertices, then polynomials without a negative coefficient."""
    greatest_impurity(proof)
    least_impurity(proof)
    enough(proof, sympy.Rational(1, 8))
    inside_exponentials(proof)


@STABILITY_EXTREMAL.certificate(
    "rigorous",
    covers="K = 2; the vertices for K = 3, and one more raised for K = 4, 10, 97, 1000 and e^Delta, e^omega <= 300",
    relies_on="z3, flint",
)
def _by_enclosure(proof: Proof) -> None:
    """K = 2: no logits in the box beat the extrema; K = 3: no vertex; beyond, ball arithmetic on a covering."""
    Q, Y, x, o = z3.Reals("Q Y x o")
    box = [Y > 1, Q >= 1, x >= Q, x <= Q * Y, o >= 1, o <= Y]
    # With two classes U rises with the ratio of the smaller e^z to the larger.
    proof.unsatisfiable("K = 2: U < U(Delta + omega)", [*box, x * o * (Q * Y + 1) ** 2 < Q * Y * (x + o) ** 2])
    more = x * o * (Q + Y) ** 2 > Q * Y * (x + o) ** 2
    proof.unsatisfiable("K = 2, omega <= Delta: U > U(Delta - omega)", [*box, Y <= Q, more])
    N, S = vertex(Q * Y, Y, 0, 2)
    # One inequality at a time: all in one disjunction takes z3 from a moment to more than its time.
    for name, true, others in (("y", Q * Y, (1, 2)), ("not y", Q, (0, 1, 2))):
        for j in others:
            N_j, S_j = vertex(true, Y, j, 2 - j)
            less = N_j * S * S > N * S_j * S_j
            proof.unsatisfiable(f"K = 3: a smaller U with {name} and {j} others raised", [Y > 1, Q >= 1, less])
    _covered(proof, 8)


def _covered(proof: Proof, divisor: float) -> None:
    """(||p||^2 of y alone raised less that of y and one more)/(e^omega - 1) > 0 from Q(Q-1) = (K-2)/divisor on."""
    for classes in (4, 10, 97, 1000):
        low = (1 + math.sqrt(1 + 4 * (classes - 2) / divisor)) / 2 * (1 + 1e-12)

        def first(Q: Any, Y: Any, classes: int = classes) -> Any:
            N, S = vertex(Q * Y, Y, 0, classes - 1)
            return (N * (2 * S + Y - 1) - (Y + 1) * S * S) / (Q * Y) ** 3

        # Where it is nearest 0 for many classes, and then everywhere.
        proof.enclosed(f"K = {classes}: near e^omega = 2", first, [(low, low * 1.001), (1.9, 2.1)])
        proof.enclosed(f"K = {classes}: one more raised is less sure", first, [(low, 300.0), (1.0, 300.0)])


def _measured(
    proof: Proof, least: Impurity = above, most: Impurity = nearest_uniform, enough: Enough = condition
) -> None:
    for case, kappa in [*measured(proof.cases(6, 40)), *with_kappa(_many_raised())]:
        lower, upper = sides(case, least, most)
        proof.at_most(f"{case.text}: kappa <= upper side", kappa, upper, slack=1e-8)
        if enough(case.gap, len(case.head.weight)):
            proof.at_most(f"{case.text}: lower side <= kappa", lower, kappa, slack=1e-8)


def _many_raised() -> list[Case]:
    """Two of eight classes raised, for small and larger gaps; the condition begins at Delta = 0.38."""
    found = []
    for gap in (0.0, 0.2, 0.3, 0.4):
        z = raised(8, gap, torch.arange(2), 0.7)
        head = at_logits(z, simplex(8, 7), normal(generator_of(8), 7))
        found.append(Case(f"K = 8, Delta = {gap:g}, y and one more raised", head, gap))
    return found


@STABILITY_EXTREMAL.certificate(
    "numeric", covers="random, near collapse and extreme; K = 2..8", relies_on="exact Hessians"
)
def _by_hessian(proof: Proof) -> None:
    """Both sides against the dense Hessian and inside those of B8; each attained by y alone moved."""
    _measured(proof)
    for case in cases(3):
        (lower, upper), (low, high) = sides(case), exponential(case)
        proof.at_most(f"{case.text}: above B8's lower side", low, lower)
        proof.at_most(f"{case.text}: below B8's upper side", upper, high)
    for classes in (2, 3, 6):
        for by in (1.5, -1.5):
            z = raised(classes, 2.0, torch.arange(1), by)
            case = Case("", at_logits(z, simplex(classes, classes), torch.ones(classes).double()), 2.0)
            side = sides(case).lower if by > 0 else sides(case).upper
            proof.close(f"K = {classes}, {by:+g} on y: attained", kappa_by_hessian(case.head), side, rel=1e-9)


@STABILITY_EXTREMAL.without("cross_entropy")
def _squared(proof: Proof) -> None:
    """Squared loss: kappa = ||W||_F^2 mean ||h||^2 does not fall with the confidence."""
    head = collapsed(1, K=3, m=2, gap=9.0)
    upper = sides(Case("", head, 9.0)).upper
    proof.exceeds("kappa against the upper side at collapse", kappa_by_hessian(head, "squared"), upper)


@STABILITY_EXTREMAL.without("all_pairs")
def _neighbours(proof: Proof) -> None:
    """Rows 0, 1 and 2 on a line at collapsed outputs, D+ = 1 from neighbouring rows alone."""
    upper = sides(ON_A_LINE).upper / 2**2
    proof.exceeds("kappa against the upper side", kappa_by_hessian(ON_A_LINE.head), upper)


@STABILITY_EXTREMAL.without("confident")
def _unsure(proof: Proof) -> None:
    """K = 8, Delta = 0.2: two classes raised are surer than y alone; K = 3, Delta = -2: another class raised."""
    head = _many_raised()[1].head
    proof.exceeds("the lower side against kappa", sides(Case("", head, 0.2)).lower, kappa_by_hessian(head))
    other = at_logits(raised(3, -2.0, torch.arange(1, 2), 1.0), simplex(3, 2), torch.ones(2).double())
    proof.exceeds("the lower side against kappa", sides(Case("", other, -2.0)).lower, kappa_by_hessian(other))


@STABILITY_EXTREMAL.sibling
def _half_upwards(proof: Proof) -> None:
    """The lower side with U(Delta + omega/2), as if the deviation were shared by y and the others."""
    _measured(proof, least=lambda gap, omega, classes: impurity(gap + omega / 2, classes))


@STABILITY_EXTREMAL.sibling
def _half_downwards(proof: Proof) -> None:
    """The upper side with Delta - omega/2 for Delta - omega."""
    _measured(proof, most=lambda gap, omega, classes: nearest_uniform(gap, omega / 2, classes))


@STABILITY_EXTREMAL.sibling
def _past_zero(proof: Proof) -> None:
    """The upper side with U(Delta - omega) where omega > Delta too."""
    _measured(proof, most=lambda gap, omega, classes: impurity(gap - omega, classes))


@STABILITY_EXTREMAL.sibling
def _every_positive_gap(proof: Proof) -> None:
    """The lower side for every Delta >= 0 and K."""
    _measured(proof, enough=lambda gap, classes: gap >= 0)


@STABILITY_EXTREMAL.sibling
def _smaller_gap(proof: Proof) -> None:
    """Q(Q-1) >= (K-2)/9 is enough for the lower side."""
    enough(proof, sympy.Rational(1, 9))
    _covered(proof, 9)
