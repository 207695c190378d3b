"""The collapse curve rises to one maximum and falls: collapse alone bounds kappa and flattens nothing (B4)."""

from __future__ import annotations

from functools import partial
from typing import Any

import flint
import sympy

from theory.algebra.class_symmetry import K
from theory.algebra.collapse import IMPURITY, derive, gamma, q
from theory.numeric.broken_collapse import broken
from theory.numeric.configurations import collapsed
from theory.numeric.oracle import kappa_by_hessian
from theory.proof import Proof
from theory.statement import Statement

RISE_THEN_FALL = Statement(
    "rise_then_fall",
    label="B4",
    claim="Delta^2 U(Delta) rises to exactly one maximum at the root Delta* of Delta(1-q) = (2+(K-2)q)(1+(K-1)q) and "
    "falls after it, so collapse alone gives kappa <= C_K (1+gamma^2), attained: without low loss it is not flat.",
    latex=r"\kappa \le C_K(1+\gamma^2),\ C_K = \tfrac{K-1}{K}\Delta_*^2U(\Delta_*),\quad "
    r"\Delta_*(1-q_*) = (2+(K-2)q_*)(1+(K-1)q_*)",
    assumptions={
        "collapse": "NC1 to NC4, balanced",
        "aligned": "lambda > 0: the head points at its own class (needed where K >= 3)",
    },
    source="new",
    kind="upper",
)

t, r, D = sympy.symbols("t r Delta", positive=True)

MAXIMA = {
    2: ("2.39935728052", "0.439228839891"),
    3: ("2.58384724609", "1.05272743555"),
    5: ("2.84523200084", "2.15519586467"),
    10: ("3.24671315743", "4.21153993851"),
    100: ("4.87224052546", "15.8526667205"),
}
"""K: (Delta*, C_K), to the printed digits."""


def _one_maximum(proof: Proof, log_slope: Any) -> None:
    """Delta^2 U has the logarithmic derivative 2/Delta - s, s = -U'/U; s increases from 0 to 1."""
    # d/dDelta = -q d/dq.
    proof.identity("s = -U'/U, derived from U", q * sympy.diff(IMPURITY, q) / IMPURITY, log_slope)
    falling = -sympy.diff(log_slope, q).subs(q, 1 / (1 + r))
    for text, classes in (("K = 2 + t", 2 + t), ("K = 2", sympy.Integer(2))):
        inside = IMPURITY.subs({q: 1 / (1 + r), K: classes})
        proof.nonnegative(f"U > 0, so that log U has slopes ({text})", inside, strictly=True)
        proof.nonnegative(
            f"s increases strictly in Delta, q = 1/(1+r) ({text})", falling.subs(K, classes), strictly=True
        )
    proof.identity("s = 0 at Delta = 0", log_slope.subs(q, 1), 0)
    proof.identity("s -> 1 as Delta -> infinity", sympy.limit(log_slope, q, 0), 1)
    # 2/Delta falls strictly from infinity to 0, so it meets s exactly once: above it before, below it after.
    proof.nonnegative("2/Delta falls strictly", -sympy.diff(2 / D, D), strictly=True)
    root = D * (1 - q) - (2 + (K - 2) * q) * (1 + (K - 1) * q)
    stationary = sympy.numer(sympy.together((D * log_slope - 2) / 2))
    proof.identity("s = 2/Delta is the root equation", stationary, root)


@RISE_THEN_FALL.certificate("symbolic", covers="every K >= 2, Delta > 0", relies_on="sympy", whole=True)
def _maximum_for_every_k(proof: Proof) -> None:
    """B1, then the slope of log(Delta^2 U) changes sign once: the coefficients of polynomials in K - 2 and 1/q - 1."""
    derive(proof, (1 + gamma**2) * (K - 1) / K)
    _one_maximum(proof, 2 * (1 - q) / ((2 + (K - 2) * q) * (1 + (K - 1) * q)))
    unbounded = sympy.limit(IMPURITY, q, sympy.oo)
    proof.identity("lambda < 0: U -> (K-2)/(K-1), so Delta^2 U is unbounded for K >= 3", unbounded, (K - 2) / (K - 1))


def _curve(gap: Any, classes: int) -> Any:
    """((K-1)/K) Delta^2 U in balls, from the probabilities."""
    ratio = (-gap).exp()
    true = 1 / (1 + (classes - 1) * ratio)
    other = ratio * true
    impurity = 1 - true * true - (classes - 1) * other * other
    return flint.arb(classes - 1) / classes * gap * gap * impurity


@RISE_THEN_FALL.certificate("rigorous", covers="K = 2, 3, 5, 10, 100", relies_on="flint")
def _maxima_in_balls(proof: Proof) -> None:
    """Each printed Delta* and C_K to its last digit, and no higher value on a covering of [0.01, 60]."""
    for classes, (place, height) in MAXIMA.items():
        proof.root(f"K = {classes}: Delta* = {place}", partial(_root_equation, classes=classes), place)
        digits = len(height.partition(".")[2])
        top = _curve(flint.arb(place), classes)
        inside = abs(top - flint.arb(height)) < flint.arb("0.5000001") * flint.arb(10) ** -digits
        proof.require(f"K = {classes}: C_K = {height}", bool(inside))
        _nowhere_above(proof, classes, float(height) * (1 + 1e-6))


def _root_equation(gap: Any, classes: int) -> Any:
    ratio = (-gap).exp()
    return gap * (1 - ratio) - (2 + (classes - 2) * ratio) * (1 + (classes - 1) * ratio)


def _nowhere_above(proof: Proof, classes: int, height: float) -> None:
    """The curve stays below `height`, with pieces small enough for its flat top."""
    text = f"K = {classes}: nowhere above {height:.9g}"
    proof.enclosed(text, lambda gap: height - _curve(gap, classes), [(0.01, 60.0)])


def _peaks_by_hessian(proof: Proof, share: float) -> None:
    for classes, (place, height) in MAXIMA.items():
        if classes > 10:
            continue
        for ratio in (0.0, 1.5):
            bound = share * float(height) * (1 + ratio**2)
            peak = kappa_by_hessian(collapsed(3, K=classes, m=classes, gap=float(place), gamma=ratio))
            proof.at_most(f"K = {classes}, gamma = {ratio}: the peak is within the bound", peak, bound, slack=1e-9)
            for gap in (0.5 * float(place), 0.95 * float(place), 1.05 * float(place), 2 * float(place)):
                aside = kappa_by_hessian(collapsed(3, K=classes, m=classes, gap=gap, gamma=ratio))
                proof.at_most(f"K = {classes}, Delta = {gap:.3f}: below the peak", aside, (1 - 1e-4) * peak)
            proof.close(f"K = {classes}, gamma = {ratio}: attained", peak, float(height) * (1 + ratio**2), rel=1e-9)


@RISE_THEN_FALL.certificate("numeric", covers="K = 2, 3, 5, 10 around the peak", relies_on="exact Hessians")
def _peaks_numeric(proof: Proof) -> None:
    """kappa by exact Hessians at Delta* and on both sides of it."""
    _peaks_by_hessian(proof, 1.0)


@RISE_THEN_FALL.sibling
def _lower_peak(proof: Proof) -> None:
    """kappa <= 0.999 C_K (1 + gamma^2)."""
    _peaks_by_hessian(proof, 0.999)
    _nowhere_above(proof, 3, 0.999 * float(MAXIMA[3][1]))


@RISE_THEN_FALL.sibling
def _slope_without_k(proof: Proof) -> None:
    """-U'/U is tanh(Delta/2) for every K, as it is for K = 2."""
    _one_maximum(proof, (1 - q) / (1 + q))


@RISE_THEN_FALL.without("aligned")
def _misaligned(proof: Proof) -> None:
    """K = 3 with lambda < 0 at Delta = -40."""
    kappa = kappa_by_hessian(collapsed(1, K=3, m=2, gap=-40.0))
    proof.exceeds("kappa against C_3", kappa, float(MAXIMA[3][1]))
    mirrored = kappa_by_hessian(collapsed(1, K=2, m=1, gap=-float(MAXIMA[2][0])))
    proof.close("K = 2 has no such case: its curve is even", mirrored, float(MAXIMA[2][1]), rel=1e-9)


@RISE_THEN_FALL.without("collapse")
def _no_collapse(proof: Proof) -> None:
    """K = 3, Delta = 3, M = 1 with noise of size 3M inside the classes that no row sees."""
    proof.exceeds("kappa against C_3", kappa_by_hessian(broken("NC1", noise=3.0)), float(MAXIMA[3][1]))
