"""The error of a linear head from the variances along the differences of its rows (E1')."""

from __future__ import annotations

from fractions import Fraction

import sympy

from theory.algebra.cantelli import by_total_variance, direction, union
from theory.generalisation import ASSUMPTIONS, CONVENTIONS, E1, drop_each, larger, pairs, refute
from theory.numeric.cantelli import CANTELLI, Atom, Law, Pair, Rule, own_direction, vector
from theory.numeric.cantelli_laws import Claim, computed, disjoint_laws, enumerated, random_law, two_point_laws
from theory.proof import Proof
from theory.statement import Statement

DIRECTIONAL_CANTELLI = Statement(
    "directional_cantelli",
    label="E1'",
    claim="E1 with the variance of <h, w_c - w_k>/||w_c - w_k|| within class c in place of V_c holds, is never looser, "
    "and is attained for every K, by disjoint errors of any probabilities below 1 with a sum of at most 1, at any "
    f"positive margins. {CONVENTIONS}",
    latex=r"\Pr[\text{err}] \le \sum_c P(c)\sum_{k\ne c}\Big(1+\frac{\max(m_{ck},0)^2}{\delta_{ck}^\top\Sigma_c"
    r"\delta_{ck}/\|\delta_{ck}\|^2}\Big)^{-1},\quad \delta_{ck} = w_c-w_k",
    assumptions=ASSUMPTIONS | {"own_direction": "the variance of each pair is along its own w_c - w_k"},
    source="new",
    kind="upper",
)

ALONG = Claim(variance=own_direction)


@DIRECTIONAL_CANTELLI.certificate("symbolic", covers="every K, m, law", relies_on="sympy, z3 for the union", whole=True)
def _along_by_majorant(proof: Proof) -> None:
    """E1's majorant, which uses no other variance; V_dir <= V_c; two-point margins with disjoint errors, every K."""
    pairs(proof, CANTELLI)
    direction(proof, CANTELLI)
    union(proof, sum)
    _disjoint(proof)


def _disjoint(proof: Proof) -> None:
    """Rows w_0 = 0, w_k = -e_k: the margins are the coordinates of h, so every joint law of them occurs."""
    p, m = sympy.symbols("p m", positive=True)
    high = m / (1 - p)
    proof.identity("h_k = 0 with probability p_k, else m_k/(1-p_k): mean m_k", (1 - p) * high, m)
    variance = (1 - p) * high**2 - m**2
    proof.identity("its term is p_k, and disjoint events have the sum", CANTELLI.ahead(m**2, variance), p)


@DIRECTIONAL_CANTELLI.certificate("rigorous", covers="every pair of classes, V > 0", relies_on="z3")
def _along_by_smt(proof: Proof) -> None:
    """The law of total variance for T = <w_c - w_k, h> + b_c - b_k itself."""
    by_total_variance(proof, CANTELLI)


@DIRECTIONAL_CANTELLI.certificate("sampled", covers="finite laws, K = 2..6", relies_on="fractions; grokcore.bounds")
def _along_exact(proof: Proof) -> None:
    """Exact errors against exact bounds, equal at disjoint errors; never above E1; the library's float64 bound."""
    enumerated(proof, ALONG, (two_point_laws, disjoint_laws))
    below = 0
    for seed in range(proof.cases(60, 600)):
        law = random_law(seed)
        along, trace = ALONG.of(law), E1.of(law)
        below += along < trace
        proof.require(f"random law {seed}: E1' <= E1", along <= trace)
    proof.require(f"{below} are below it", below >= 10)
    computed(proof, ALONG, directional=True)


drop_each(DIRECTIONAL_CANTELLI, ALONG)


@DIRECTIONAL_CANTELLI.without("own_direction")
def _along_the_own_row(proof: Proof) -> None:
    """K = 3, a quarter of class 0 ties with class 1, along w_1 alone, and the variance is taken along w_0."""
    atoms = [Atom(Fraction(1, 4), 0, vector(3, 0)), Atom(Fraction(3, 4), 0, vector(3, 4))]
    law = Law(atoms, [vector(1, 0), vector(1, -1), vector(0, 0)], vector(0, 0, 0))
    proof.exceeds("errors against the bound", float(law.error), float(ALONG._replace(variance=along_own_row).of(law)))


def along_own_row(pairs: list[Pair], pair: Pair) -> Fraction:
    """The variance along w_c."""
    return pair.own_row


def _share_of_trace(pairs: list[Pair], pair: Pair) -> Fraction:
    return pair.trace / pair.width


def _least_direction(pairs: list[Pair], pair: Pair) -> Fraction:
    return min(other.along for other in pairs)


@DIRECTIONAL_CANTELLI.sibling
def _isotropic(proof: Proof) -> None:
    """V_c/m in place of the variance along w_c - w_k."""
    enumerated(proof, Claim(variance=_share_of_trace))


@DIRECTIONAL_CANTELLI.sibling
def _least(proof: Proof) -> None:
    """The least of the class's directional variances for each of its pairs."""
    enumerated(proof, Claim(variance=_least_direction))


@DIRECTIONAL_CANTELLI.sibling
def _along_twice_the_square(proof: Proof) -> None:
    """1/(1 + 2 m^2/V) with the directional variance."""
    refute(proof, ALONG._replace(rule=Rule(ahead=lambda square, variance: variance / (variance + 2 * square))))


@DIRECTIONAL_CANTELLI.sibling
def _along_largest(proof: Proof) -> None:
    """The largest pair's term in place of the sum."""
    union(proof, larger)
    enumerated(proof, ALONG._replace(combine=larger))
