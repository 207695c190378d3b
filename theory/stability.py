"""Near the collapsed outputs kappa is near the collapse curve, for any head, by a factor e^omega (B8).

The corollary for features near their class means is :mod:`theory.stability_near_collapse`; the best bounds of this
form are :mod:`theory.stability_extremal`, and far tighter ones :mod:`theory.stability_from_losses`.
"""

from __future__ import annotations

from typing import Any

import sympy
import torch
import z3

from theory.algebra.class_pairs import PS, PT, moment, over_pairs
from theory.algebra.class_symmetry import softmax_hessian
from theory.algebra.collapse import IMPURITY, p_other, p_true, q
from theory.algebra.stability import largest_slope, slope_of_impurity
from theory.numeric.configurations import Head, collapsed, simplex
from theory.numeric.oracle import kappa_by_hessian, kappa_of_hessian
from theory.numeric.other_heads import COSINE_HEAD, cold, cosine_hessian, trained_with
from theory.numeric.stability import ON_A_LINE, Average, Case, Growth, at_logits, exponential, logits, measured, raised
from theory.proof import Proof
from theory.statement import Statement

STABILITY = Statement(
    "stability",
    label="B8",
    claim=(
        "Any last layer, features and Delta: (D-^2/2) U(Delta) mean(||h||^2 e^-omega) <= kappa <= (D+^2/2) U(Delta) "
        "mean(||h||^2 e^omega), omega_i = max - min over classes of z_i - Delta e_(y_i), D- <= ||w_s - w_t|| <= D+ for "
        "s != t. Where D != 0 a side is an equality iff all h_i = 0, or all distances are its D and omega_i = 0 "
        "wherever h_i != 0, as at collapse. It follows from U(p') <= e^osc(z'-z) U(p), strict unless osc = 0, in "
        "which the exponent 1 is sharp for every K."
    ),
    latex=(
        r"\tfrac12 D_-^2\,U(\Delta)\,\overline{\|h_i\|^2e^{-\omega_i}} \le \kappa \le "
        r"\tfrac12 D_+^2\,U(\Delta)\,\overline{\|h_i\|^2e^{\omega_i}},\quad "
        r"\omega_i = \operatorname{osc}(z_i-\Delta e_{y_i})"
    ),
    assumptions={
        "cross_entropy": "the loss is the mean cross-entropy of the softmax on labels, in nats",
        "temperature": "the logits enter the softmax at temperature 1",
        "linear": "the logits are W h + b, with h and b free of W",
        "all_pairs": "D- and D+ bound the distance of every pair of rows",
        "with_bias": "omega is that of the logits, bias included",
        "all_classes": "omega is over all classes, not over those of the largest logits",
    },
    source="new",
    kind="upper",
)


def _sandwich(proof: Proof) -> None:
    """From the lemma to kappa, pair by pair, and where equality is lost."""
    p_s, p_t, D, e = sympy.symbols("p_s p_t D e", positive=True)
    impurity = softmax_hessian(p_true, p_other).trace()
    proof.identity("the impurity of softmax(Delta e_y) is U(Delta)", impurity, IMPURITY)
    proof.identity("and q is e^-Delta", p_other / p_true, q)
    in_pairs = over_pairs(PS * PT) - over_pairs(PS**2 * PT)
    proof.identity(
        "sum over s != t of p_s p_t = U; kappa is half of it with ||w_s - w_t||^2 in each term (A2)",
        in_pairs,
        1 - moment(2, 0),
    )
    pair = p_s * p_t * ((D + e) ** 2 - D**2) / 2
    proof.nonnegative("a pair nearer than D+, or farther than D-, makes its side strict", pair, strictly=True)
    # U(Delta) e^-omega <= U_i <= U(Delta) e^omega is the lemma for the logits and Delta e_y, and for both exchanged:
    # the slope is below osc, so either is strict where omega_i > 0.


def _sharp(proof: Proof) -> None:
    """Logits Delta e_y and (Delta - omega) e_y: U grows by e^omega in the limit, whatever K."""
    y = sympy.Symbol("y", positive=True)
    ratio = sympy.cancel(IMPURITY.subs(q, y * q) / IMPURITY)
    proof.identity("U(Delta - omega)/U(Delta) -> e^omega = y as Delta -> oo", sympy.limit(ratio, q, 0), y)


@STABILITY.certificate(
    "symbolic", covers="every K >= 2, m, n, W, b, h, Delta", relies_on="sympy, mean value theorem; A2", whole=True
)
def _for_every_k(proof: Proof) -> None:
    """|(log U)'| < osc(d) along every path of logits, K a symbol; then pair by pair; the exponent's sharpness."""
    slope_of_impurity(proof)
    largest_slope(proof, 1)
    _sandwich(proof)
    _sharp(proof)


def _by_smt(proof: Proof, exponent: Any) -> None:
    share, first, second = z3.Reals("a alpha beta")
    rest = 1 - share
    ranges = [share > 0, share < 1, first > 0, first <= share**2, second > 0, second <= rest**2]
    factor = z3.Q(sympy.Rational(exponent).p, sympy.Rational(exponent).q)
    growing = 2 * (rest * first - share * second) >= factor * (1 - first - second)
    proof.unsatisfiable("|(log U)'| >= exponent osc for some set of classes, every K", [*ranges, growing])


@STABILITY.certificate("rigorous", covers="the lemma, every K (slope); K = 2 without a path", relies_on="z3")
def _lemma_by_smt(proof: Proof) -> None:
    """No sums a, alpha, beta violate the slope; K = 2 directly, U(p') > e^osc U(p) has no solution."""
    _by_smt(proof, 1)
    x, y, factor = z3.Reals("x y Y")
    # p = (1, x)/(1 + x), and its second logit moved up or down by osc: Y = e^osc.
    ranges = [x > 0, factor >= 1, z3.Or(y == factor, y * factor == 1)]
    above = y * (1 + x) ** 2 > factor * (1 + x * y) ** 2
    proof.unsatisfiable("K = 2: U(p') > e^osc U(p)", [*ranges, above])


def _measured(
    proof: Proof, growth: Growth = torch.exp, least: Average = torch.amin, most: Average = torch.amax
) -> None:
    for case, kappa in measured(proof.cases(6, 40)):
        lower, upper = exponential(case, growth, least, most)
        proof.at_most(f"{case.text}: lower side <= kappa", lower, kappa, slack=1e-8)
        proof.at_most(f"{case.text}: kappa <= upper side", kappa, upper, slack=1e-8)


@STABILITY.certificate("numeric", covers="random, near collapse and extreme; K = 2..6", relies_on="exact Hessians")
def _by_hessian(proof: Proof) -> None:
    """Both sides against the dense Hessian; equality at collapse; the exponent's sharpness at Delta = 12."""
    _measured(proof)
    for classes in (2, 3, 5):
        head = collapsed(classes, K=classes, m=classes, gap=5.0, gamma=0.7, counts=2)
        kappa = kappa_by_hessian(head)
        for name, side in zip(("lower", "upper"), exponential(Case("", head, 5.0)), strict=True):
            proof.close(f"K = {classes}: {name} side at collapse", side, kappa, rel=1e-8)
        h, weight = torch.ones(classes).double(), simplex(classes, classes)
        case = Case("", at_logits(raised(classes, 12.0, torch.arange(1), -2.0), weight, h), 12.0)
        kappa = kappa_by_hessian(case.head)
        proof.close(
            f"K = {classes}: the upper side is reached as Delta grows", kappa, exponential(case).upper, rel=1e-3
        )


@STABILITY.without("cross_entropy")
def _squared(proof: Proof) -> None:
    """Squared loss: kappa = ||W||_F^2 mean ||h||^2 does not fall with the confidence."""
    head = collapsed(1, K=3, m=2, gap=9.0)
    upper = exponential(Case("", head, 9.0)).upper
    proof.exceeds("kappa against the upper side at collapse", kappa_by_hessian(head, "squared"), upper)


@STABILITY.without("temperature")
def _temperature(proof: Proof) -> None:
    """Collapse trained at temperature 1/2 with Delta = 1: four times its variance, at a gap of 2."""
    head = collapsed(1, K=3, m=2, gap=1.0)
    kappa = kappa_of_hessian(trained_with(head, cold), head.weight)
    proof.exceeds("kappa against the upper side", kappa, exponential(Case("", head, 1.0)).upper)


@STABILITY.without("linear")
def _normalised_rows(proof: Proof) -> None:
    """Rows of norm 1 that the forward pass normalises: kappa is negative."""
    kappa = kappa_of_hessian(cosine_hessian(COSINE_HEAD), COSINE_HEAD.weight)
    proof.exceeds("the lower side against kappa", exponential(Case("", COSINE_HEAD, 1.0)).lower, kappa)


@STABILITY.without("all_pairs")
def _neighbours(proof: Proof) -> None:
    """Rows 0, 1 and 2 on a line at collapsed outputs, D+ = 1 from neighbouring rows alone."""
    upper = exponential(ON_A_LINE).upper / 2**2
    proof.exceeds("kappa against the upper side", kappa_by_hessian(ON_A_LINE.head), upper)


@STABILITY.without("with_bias")
def _bias_left_out(proof: Proof) -> None:
    """K = 3, Delta = 6: W h alone is Delta e_y - 2, and the bias puts the sample on the decision boundary."""
    weight = simplex(3, 2, 2.0)  # ||w_y||^2 = 4, <w_y, w_t> = -2
    omitted = Head(weight[:1], weight, torch.zeros(3, dtype=torch.float64), torch.tensor([0]))
    moved = omitted._replace(bias=-logits(omitted)[0])
    upper = exponential(Case("", omitted, 6.0)).upper
    proof.exceeds("kappa against the upper side without the bias", kappa_by_hessian(moved), upper)


@STABILITY.without("all_classes")
def _two_largest(proof: Proof) -> None:
    """K = 4, Delta = 4: two classes of small logits fall by 9, which the two largest logits do not show."""
    head = at_logits(raised(4, 4.0, torch.arange(2, 4), -9.0), simplex(4, 3), torch.ones(3).double())
    two = at_logits(logits(head)[0, :2], head.weight[:2], head.features[0])
    omega_of_two = exponential(Case("", two, 4.0)).lower / exponential(Case("", two, 4.0)).upper
    proof.close("omega over the two largest is 0", omega_of_two, 1.0)
    lower = exponential(Case("", head, 4.0), torch.ones_like).lower
    proof.exceeds("the lower side at that omega against kappa", lower, kappa_by_hessian(head))


@STABILITY.sibling
def _half(proof: Proof) -> None:
    """The exponent 1/2: U(p') <= e^(osc/2) U(p)."""
    _by_smt(proof, sympy.Rational(1, 2))
    _measured(proof, lambda omega: torch.exp(omega / 2))


@STABILITY.sibling
def _barely_less(proof: Proof) -> None:
    """The exponent 0.99."""
    _by_smt(proof, sympy.Rational(99, 100))
    _measured(proof, lambda omega: torch.exp(0.99 * omega))


@STABILITY.sibling
def _mean_distance(proof: Proof) -> None:
    """The mean square of the rows' distances in place of D-^2 and D+^2."""
    _measured(proof, least=torch.mean, most=torch.mean)


@STABILITY.sibling
def _additive(proof: Proof) -> None:
    """1 + omega in place of e^omega: a deviation adds to kappa."""
    _measured(proof, lambda omega: 1 + omega)


@STABILITY.sibling
def _mean_oscillation(proof: Proof) -> None:
    """One factor e^(mean omega), as if the samples' mean deviation decided."""
    _measured(proof, lambda omega: omega.mean().exp().expand(len(omega)))


@STABILITY.sibling
def _quadratic(proof: Proof) -> None:
    """e^(omega^2) for small deviations, as if collapse were a stationary point of kappa."""
    _measured(proof, lambda omega: torch.exp(omega.clamp(max=1) * omega))
