"""The error of a linear head at the price of one other class: E1'', Chebyshev to the nearest decision boundary."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import sympy
import z3

from theory.algebra.cantelli import direction, t, u, v
from theory.algebra.class_symmetry import K
from theory.generalisation import ASSUMPTIONS, CONVENTIONS, E1, drop_each
from theory.numeric.cantelli import CANTELLI, Law, Rule
from theory.numeric.cantelli_laws import Claim, around_the_centre, centred_laws, enumerated, random_law, two_point_laws
from theory.proof import Proof
from theory.statement import Statement

NEAREST_BOUNDARY = Statement(
    "nearest_boundary",
    label="E1''",
    claim="The probability of an error is at most sum_c P(c) min(1, V_c/r_c^2), r_c = min_k max(m_ck, 0): every other "
    "class at the price of one. K >= 3: attained, and at equal margins never above E1, below it up to K - 1 times. "
    f"K = 2: never below E1. The smaller of the two in each class is a bound too. {CONVENTIONS}",
    latex=r"\Pr[\text{err}] \le \sum_c P(c)\min\Big(1, \frac{V_c}{r_c^2}\Big),\quad r_c = \min_{k\ne c}\max(m_{ck},0)",
    assumptions=ASSUMPTIONS,
    source="new; Chebyshev's inequality for the distance from the mean",
    kind="upper",
)


def once(terms: list[Any]) -> Any:
    """The largest pair's term, clipped at 1: of V/m^2 that of the least margin."""
    return min(max(terms), 1)


CHEBYSHEV = Rule(ahead=lambda square, variance: variance / square)
NEAREST = Claim(CHEBYSHEV, combine=once)


def _distance(proof: Proof, rule: Rule) -> None:
    """T = <d, h - mu> + ||d|| m_ck, d = w_c - w_k, is not positive at an error; r <= m_ck."""
    direction(proof, CANTELLI)  # <d, x>^2 <= ||d||^2 ||x||^2, also where its mean is not taken
    inner, length, square, margin, r = z3.Reals("<d,x> ||d|| ||x||^2 m r")
    error = [length > 0, r > 0, margin >= r, inner * inner <= length * length * square, inner + length * margin <= 0]
    proof.unsatisfiable("an error has ||h - mu||^2 >= r^2", [*error, square < r * r])
    proof.unsatisfiable("so the term at ||h - mu||^2 is at least 1", [*error, rule.ahead(r * r, square) < 1])
    added = rule.ahead(t**2, v) + rule.ahead(t**2, u)
    proof.identity("and it is linear, so its mean is that at V", rule.ahead(t**2, v + u), added)


def _compared(proof: Proof) -> None:
    """K - 1 equal margins: min(1, V/m^2) is never above the sum of Cantelli's terms where K >= 3."""
    pairs, one = (K - 1) * CANTELLI.ahead(t**2, v), v / t**2
    x, more = sympy.symbols("x j", nonnegative=True)
    small, large = (pairs - one).subs(v, t**2 / (1 + u)), (pairs - 1).subs(v, t**2 * (1 + x))
    proof.nonnegative("K = 3 + j, V = m^2/(1+u): V/m^2 is below their sum", small.subs(K, 3 + more), strictly=True)
    proof.nonnegative("K = 3 + j, V = m^2 (1+x): 1 is not above their sum", large.subs(K, 3 + more))
    proof.identity("their ratio tends to K - 1 as V -> 0", sympy.limit(sympy.cancel(pairs / one), v, 0), K - 1)
    fewer = one - CANTELLI.ahead(t**2, v)
    proof.nonnegative("K = 2: Cantelli's term is below V/m^2", fewer, strictly=True)
    proof.nonnegative("... and below 1", 1 - CANTELLI.ahead(t**2, v), strictly=True)


def _around(proof: Proof, rule: Rule) -> None:
    """Normals e_k - 1/(K-1), K a symbol: probability p at the boundaries' nearest points, the rest at the mean."""
    (p, r), more = sympy.symbols("p r", positive=True), sympy.Symbol("j", nonnegative=True)
    n = K - 1
    length, other = 1 - 1 / n, -1 / n
    square = r**2 / length  # of -r n_k/||n_k||^2, and of the margin

    def gap(product: Any) -> Any:
        """<n_j, h> + r at the point nearest to boundary k, from <n_j, n_k>."""
        return r - r / length * product

    proof.identity("the nearest point of boundary k is on it", gap(length), 0)
    proof.nonnegative("and on the right side of the others", gap(other).subs(K, 3 + more), strictly=True)
    proof.identity("the normals sum to 0, so the mean is 0", length + (n - 1) * other, 0)
    proof.identity("the term is p: attained", rule.ahead(square, p * square), p)


@NEAREST_BOUNDARY.certificate("symbolic", covers="every K, m, law", relies_on="sympy, z3", whole=True)
def _symbolic(proof: Proof) -> None:
    """Cauchy-Schwarz puts every error at distance r, Markov's inequality; where it beats E1; laws that attain it."""
    _distance(proof, CHEBYSHEV)
    _compared(proof)
    _around(proof, CHEBYSHEV)


@NEAREST_BOUNDARY.certificate("sampled", covers="finite laws, K = 2..6", relies_on="fractions")
def _exact(proof: Proof) -> None:
    """Exact errors against exact bounds, equal with boundaries all around; with E1 the smaller in each class."""
    enumerated(proof, NEAREST, (centred_laws,))
    enumerated(proof, _SMALLER, (two_point_laws, centred_laws))
    for text, law in centred_laws():
        proof.require(f"{text}, equal margins: not above E1", NEAREST.of(law) <= E1.of(law))
    below = [NEAREST.of(random_law(seed)) < E1.of(random_law(seed)) for seed in range(60)]
    proof.require(f"{sum(below)} are below E1, {len(below) - sum(below)} are not", 5 <= sum(below) <= 55)


def smaller(terms: list[Any]) -> Any:
    """The smaller of the two bounds of a class, from Cantelli's terms a = V/(V + m^2): V/m^2 = a/(1 - a)."""
    return min(sum(terms), once([a / (1 - a) if a < 1 else 1 for a in terms]))


_SMALLER = Claim(combine=smaller)

drop_each(NEAREST_BOUNDARY, NEAREST)


@NEAREST_BOUNDARY.sibling
def _one_sided(proof: Proof) -> None:
    """Cantelli's term of the least margin: V_c/(V_c + r_c^2)."""
    _distance(proof, CANTELLI)
    _around(proof, CANTELLI)
    enumerated(proof, Claim(combine=once))


@NEAREST_BOUNDARY.sibling
def _mean_margin(proof: Proof) -> None:
    """The mean over k of V_c/m_ck^2."""
    enumerated(proof, NEAREST._replace(combine=lambda terms: min(Fraction(sum(terms)) / len(terms), 1)))


@NEAREST_BOUNDARY.sibling
def _never_looser(proof: Proof) -> None:
    """It is never above E1."""
    for seed in range(60):
        law: Law = random_law(seed)
        proof.require(f"random law {seed}", NEAREST.of(law) <= E1.of(law))
    for classes in (3, 4):
        law = around_the_centre(classes, 1, Fraction(1, 9), share=Fraction(1, 2))
        proof.require(f"K = {classes}, boundaries all around", NEAREST.of(law) <= E1.of(law))
