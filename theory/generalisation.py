"""The error of a linear head from the class moments of its features (E1).

A pair of classes errs where an affine function of the features is not positive, so that Cantelli's inequality
bounds it by the margin at the class mean and a variance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import z3

from theory.algebra.cantelli import attained, by_total_variance, direction, one_sided, union
from theory.numeric.cantelli import CANTELLI, Atom, Law, Rule, vector
from theory.numeric.cantelli_laws import Claim, computed, enumerated, two_point_laws, two_points
from theory.proof import Proof
from theory.statement import Statement

CONVENTIONS = (
    "Ties are errors; equal rows give 1 (0 where b_c > b_k); m > 0 without variance gives 0; the sum is clipped at 1."
)
ASSUMPTIONS = {
    "affine": "the logits are W h + b, affine in the h whose moments are taken",
    "own_moments": "mean and variance are the class's own, finite",
    "shares": "P(c) is the probability of the class where the errors are counted",
    "same_law": "the moments are those of the law whose errors are counted",
    "bias": "the margin holds the biases",
}

CANTELLI_BOUND = Statement(
    "cantelli_bound",
    label="E1",
    claim="Fixed features and head, any law with E||h||^2 finite: the probability of an error of argmax(Wh + b) is at "
    "most the sum over c of P(c) sum_(k != c) 1/(1 + max(m_ck, 0)^2/V_c), m_ck the signed distance of the class mean "
    f"from the boundary to k, V_c = E||h - mu_c||^2 in class c. {CONVENTIONS} "
    "K = 2: two-point laws attain it at every positive margin and variance.",
    latex=r"\Pr[\text{err}] \le \sum_c P(c)\sum_{k\ne c}\Big(1+\frac{\max(m_{ck},0)^2}{V_c}\Big)^{-1},\quad "
    r"m_{ck} = \frac{\langle w_c-w_k, \mu_c\rangle + b_c - b_k}{\|w_c-w_k\|}",
    assumptions=ASSUMPTIONS,
    source="Cantelli 1928 and the union bound, paper B; attained: new",
    kind="upper",
)
E1 = Claim()


def larger(terms: list[Any]) -> Any:
    """The largest of fractions, or of two z3 terms."""
    if isinstance(terms[0], z3.ExprRef):
        return z3.If(terms[0] > terms[1], terms[0], terms[1])
    return max(terms)


def pairs(proof: Proof, rule: Rule) -> None:
    """A pair's term is a bound, and two values attain it."""
    one_sided(proof, rule)
    attained(proof, rule)


@CANTELLI_BOUND.certificate("symbolic", covers="every K, m, law", relies_on="sympy, z3 for the union", whole=True)
def _by_majorant(proof: Proof) -> None:
    """The quadratic majorant with its best shift for each pair, V_dir <= V_c, the union bound, total probability."""
    pairs(proof, CANTELLI)
    direction(proof, CANTELLI)
    union(proof, sum)


@CANTELLI_BOUND.certificate("rigorous", covers="every pair of classes, V > 0", relies_on="z3")
def _by_smt(proof: Proof) -> None:
    """The law of total variance: no split of T into its two sides has more mass at T <= 0."""
    by_total_variance(proof, CANTELLI)


@CANTELLI_BOUND.certificate("sampled", covers="finite laws, K = 2..6", relies_on="fractions; grokcore.bounds")
def _exact(proof: Proof) -> None:
    """Exact errors against exact bounds, ties and absent variance among them; the library's float64 bound too."""
    enumerated(proof, E1, (two_point_laws,))
    computed(proof, E1, directional=False)


def refute(proof: Proof, claim: Claim, *, algebra: bool = True) -> None:
    """What certifies a bound, on a stronger claim."""
    if algebra:
        one_sided(proof, claim.rule)
        by_total_variance(proof, claim.rule)
    enumerated(proof, claim)


@CANTELLI_BOUND.sibling
def _twice_the_square(proof: Proof) -> None:
    """1/(1 + 2 m^2/V)."""
    refute(proof, Claim(Rule(ahead=lambda square, variance: variance / (variance + 2 * square))))


@CANTELLI_BOUND.sibling
def _one_percent_less(proof: Proof) -> None:
    """0.99/(1 + m^2/V)."""
    refute(proof, Claim(Rule(ahead=lambda square, variance: 99 * variance / (100 * (variance + square)))))


@CANTELLI_BOUND.sibling
def _half_of_chebyshev(proof: Proof) -> None:
    """One side is half of Chebyshev's two: V/(2 m^2)."""
    refute(proof, Claim(Rule(ahead=lambda square, variance: variance / (2 * square))))


@CANTELLI_BOUND.sibling
def _normal_tail(proof: Proof) -> None:
    """exp(-m^2/(2V)), as for normal features."""
    rule = Rule(ahead=lambda square, variance: Fraction(math.exp(-float(square / variance) / 2)))
    refute(proof, Claim(rule), algebra=False)


@CANTELLI_BOUND.sibling
def _largest_pair(proof: Proof) -> None:
    """The largest pair's term in place of the sum."""
    union(proof, larger)
    enumerated(proof, Claim(combine=larger))


@CANTELLI_BOUND.sibling
def _absolute_margin(proof: Proof) -> None:
    """m^2 in place of max(m, 0)^2."""
    refute(proof, Claim(Rule(behind=CANTELLI.ahead)))


@CANTELLI_BOUND.sibling
def _ties_are_right(proof: Proof) -> None:
    """m = 0 adds 0, as if ties were right."""
    refute(proof, Claim(Rule(tie=0)))


@CANTELLI_BOUND.sibling
def _from_the_global_mean(proof: Proof) -> None:
    """Margins at the global mean."""
    enumerated(proof, Claim(global_mean=True))


def _mapped(law: Law, change: Callable[[Fraction], Fraction]) -> Law:
    atoms = [atom._replace(point=tuple(map(change, atom.point))) for atom in law.atoms]
    return Law(atoms, law.weight, law.bias)


def _exceeds(proof: Proof, error: Fraction, value: Fraction) -> None:
    proof.exceeds("errors against the bound", float(error), float(value))


_SPLIT = two_points(3, 3, Fraction(1, 2))
"""m = V = 3: a quarter of class 0 ties, class 1 never errs."""


def drop_each(statement: Statement, claim: Claim) -> None:
    """The counterexamples of E1's assumptions, for each of its forms."""

    @statement.without("affine")
    def _absolute_values(proof: Proof) -> None:
        """K = 2, classes at -3 and 3, moments of h, and a head that reads |h|: half are errors, and no variance."""
        atoms = [Atom(Fraction(1, 2), c, vector(h)) for c, h in ((0, -3), (1, 3))]
        law = Law(atoms, [vector(-1), vector(1)], vector(0, 0))
        _exceeds(proof, _mapped(law, abs).error, claim.of(law))

    @statement.without("own_moments")
    def _pooled(proof: Proof) -> None:
        """K = 2, half of the variance of the class that errs is in the pooled one."""

        def pooled(pairs: Any, pair: Any) -> Fraction:
            found: Fraction = pair.pooled
            return found

        _exceeds(proof, _SPLIT.error, claim._replace(variance=pooled).of(_SPLIT))

    @statement.without("shares")
    def _equal_shares(proof: Proof) -> None:
        """K = 2, nine in ten of the class that errs, bounded with equal shares."""
        half = Fraction(1, 2)
        law = two_points(9, 9, Fraction(9, 10))
        _exceeds(proof, law.error, claim.of(law, shares={0: half, 1: half}))

    @statement.without("same_law")
    def _train_moments(proof: Proof) -> None:
        """K = 2, moments of a training sample without variance, errors of a quarter of a class elsewhere."""
        train = Law([Atom(Fraction(1), 0, vector(3))], _SPLIT.weight, _SPLIT.bias)
        _exceeds(proof, _SPLIT.error, claim.of(train))

    @statement.without("bias")
    def _no_bias(proof: Proof) -> None:
        """K = 2, a bias that puts the boundary beyond both points, left out of the margin."""
        law = Law(_SPLIT.atoms, _SPLIT.weight, vector(-9, 9))
        _exceeds(proof, law.error, claim.of(law, bias=False))


drop_each(CANTELLI_BOUND, E1)
