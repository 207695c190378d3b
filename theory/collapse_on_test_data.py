"""Strong collapse on test data makes the nearest-vertex rule optimal, and the nearest test class mean need not be (F1).

Vertices are the points that collapse would put the classes on; as measured, the class means of the training data.
Strong collapse on a distribution: h(x) is the vertex of a Bayes classifier's class. Weak collapse: h(x) is some vertex.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy
import z3

from theory.numeric.finite_distributions import (
    Finite,
    Rows,
    Vector,
    bayes,
    class_means,
    collapsed_on,
    exact,
    excess_risk,
    heads,
    random_joint,
    random_points,
)
from theory.proof import Proof
from theory.statement import Statement

PAPER = '"Limitations of Neural Collapse for Understanding Generalization in Deep Learning" (2022)'

STRONG_COLLAPSE = Statement(
    "strong_collapse_is_bayes",
    label="F1",
    claim="Where h(x) = mu_y*(x) almost surely, y* a Bayes classifier, with distinct vertices mu_c, the nearest-vertex "
    "rule is y* and so Bayes-optimal: any excess risk of it refutes strong collapse on that distribution. The nearest "
    "test class mean is another rule: optimal at K = 2 where both vertices are hit, and at K >= 3 its excess risk "
    "comes as near to 1 as one likes.",
    latex=r"h(x) = \mu_{y^*(x)} \text{ a.s.} \implies \arg\min_c \|h(x)-\mu_c\| = y^*(x),\quad "
    r"\Pr[\arg\min_c \|h-\mu_c\| \ne Y] = \min_g \Pr[g(x) \ne Y]",
    assumptions={
        "strong": "h(x) is the vertex of y*(x) for almost every x of the distribution on which the risk is taken",
        "bayes": "y* is a Bayes classifier of that distribution",
        "distinct": "no two vertices are equal",
        "vertices": "the rule goes by the vertices, not by the test class means",
    },
    source=f"the first part is the premise of {PAPER}; what the test class means do is new",
    kind="equality",
)

Centres = Callable[[Finite, Rows], Sequence[Vector | None]]


def _vertices(found: Finite, vertices: Rows) -> Sequence[Vector | None]:
    return vertices


def _test_means(found: Finite, vertices: Rows) -> Sequence[Vector | None]:
    return class_means(found)


# P(x_1) = t and P(y|x_1) = (.4, .3, .3), P(y|x_2) = (.3, .7, 0), vertices on a line.
POSTERIORS = exact([["0.4", "0.3", "0.3"], ["0.3", "0.7", "0"]])
LINE = exact([[0], [1], [5]])


def exhibit(t: Fraction, posteriors: Rows = POSTERIORS, vertices: Rows = LINE) -> Finite:
    """Strong collapse on two inputs of probabilities t and 1 - t."""
    joint = tuple(tuple(share * p for p in row) for share, row in zip((t, 1 - t), posteriors, strict=True))
    return collapsed_on(joint, vertices, bayes(Finite(joint, ())))


def _best_rule(proof: Proof) -> None:
    """No rule, randomised or not, beats argmax P(y|x), and nearest vertex to mu_j is j."""
    gained, right, rate, slack, p = sympy.symbols("g a G s p", nonnegative=True)
    # So far: probability g of deciding for one of some classes, a of being right so; one class more, P(y|x) = M - s.
    most = p + slack
    before, after = gained * most - right, (gained + rate) * most - (right + rate * p)
    text = "sum G_y (M - P(y|x)) grows with each class and starts at 0: P(right|x) <= M = max_y P(y|x) at sum G_y = 1"
    proof.nonnegative(text, after - before)
    proof.identity("argmax P(y|x) reaches it", (after - before).subs(slack, 0), 0)
    first, rest = sympy.Symbol("u", positive=True), sympy.Symbol("v", nonnegative=True)
    # u the square of a coordinate in which the two differ, v of all others.
    proof.nonnegative("||mu_j - mu_k||^2 > 0 = ||mu_j - mu_j||^2 for distinct vertices", first + rest, strictly=True)


def _two_classes(proof: Proof) -> None:
    """K = 2: the test means lie between the vertices, each nearer to its own."""
    # hits[j][c] = P(hit j, y = c): y* Bayes gives hits[0][0] = C + a >= hits[0][1] = C, hits[1][1] = B + b >= B.
    B, C, a, b = sympy.symbols("B C a b", nonnegative=True)
    own, other = (C + a) / (C + a + B), C / (C + B + b)
    ordered = sympy.numer(sympy.together(own - other))
    proof.nonnegative("the mean of class 0 is at least as near to mu_0 as that of class 1", ordered)
    some = {C: sympy.Symbol("C", positive=True), B: sympy.Symbol("B", positive=True)}
    for text, positive in (("a", {a: sympy.Symbol("a", positive=True)}), ("b", {b: sympy.Symbol("b", positive=True)})):
        proof.nonnegative(f"strictly where {text} > 0 and B, C > 0", ordered.subs(some | positive), strictly=True)
    both = {a: sympy.Symbol("a", positive=True), b: sympy.Symbol("b", positive=True)}
    proof.nonnegative("strictly where a, b > 0", ordered.subs(both), strictly=True)
    # Equal means with both vertices hit: a = b = 0, so P(0|x) = P(1|x) almost surely and nothing is lost.
    c, d, e, f = z3.Reals("h00 h01 h10 h11")
    order, both_hit = [c >= d, d >= 0, f >= e, e >= 0], [c + d > 0, e + f > 0]
    proof.unsatisfiable(
        "both vertices hit: both classes have a mean", [*order, *both_hit, z3.Or(c + e <= 0, d + f <= 0)]
    )
    bayes_rule = [*order, c + e > 0, d + f > 0]
    proof.unsatisfiable("no distribution puts them in the other order", [*bayes_rule, c * (d + f) < d * (c + e)])
    hit = [*bayes_rule, *both_hit, c * (d + f) == d * (c + e)]
    proof.unsatisfiable("a tie with both vertices hit: the posteriors tie too", [*hit, z3.Or(c != d, e != f)])


def _three_classes(proof: Proof, lost: Any) -> None:
    """The exhibit for every P(x_1) and every pair of different vertices; then the worst of its kind."""
    t, r, x = sympy.symbols("t r x", positive=True)
    at = {t: 1 / (1 + r)}
    weights = [sympy.Rational(4, 10) * t, sympy.Rational(3, 10) * t, sympy.Rational(3, 10) * t]
    others = [sympy.Rational(3, 10) * (1 - t), sympy.Rational(7, 10) * (1 - t), sympy.Integer(0)]
    # The mean of class c is mu_0 + away[c] (mu_1 - mu_0), so only these numbers order the distances.
    away = [other / (weight + other) for weight, other in zip(weights, others, strict=True)]
    proof.identity("the mean of class 2 is mu_0 itself", away[2], 0)
    for c in (0, 1):
        proof.nonnegative(f"the mean of class {c} is not, 0 < t < 1", away[c].subs(at), strictly=True)
    proof.nonnegative("at mu_1 the nearest is class 1, which is right", (away[1] - away[0]).subs(at), strictly=True)
    proof.identity("so at x_1 class 2 stands for class 0, and t/10 is lost", weights[0] - weights[2], lost(t))
    # P(y|x_1) = (1-x, 0, x), P(y|x_2) = (x, 1-x, 0): classes 2 and 1 have mu_0 and mu_1 as means, class 0 neither.
    right, wrong = (1 - x) * t, x * t
    shift, s = x * (1 - t) / (right + x * (1 - t)), sympy.Symbol("s", positive=True)
    small = at | {x: 1 / (2 + s)}
    proof.nonnegative("for 0 < x < 1/2 the mean of class 0 is not mu_0", shift.subs(small), strictly=True)
    proof.nonnegative("... nor mu_1", (1 - shift).subs(small), strictly=True)
    proof.nonnegative("... and class 0 is Bayes at x_1", (right - wrong).subs(small), strictly=True)
    proof.identity("what is lost tends to 1 as x -> 0, t -> 1", (right - wrong).subs({x: 0, t: 1}), 1)


@STRONG_COLLAPSE.certificate("symbolic", covers="every K, m, distribution", relies_on="sympy, z3", whole=True)
def _optimal(proof: Proof) -> None:
    """Class by class for every K; the nearest test mean at K = 2, and at K = 3 to which further classes add inputs."""
    _best_rule(proof)
    _two_classes(proof)
    _three_classes(proof, lambda t: t / 10)


def _no_excess(proof: Proof, centres: Centres, classes: Sequence[int] = (2, 3, 4, 6)) -> None:
    source = random.Random(1)
    for case in range(proof.cases(40, 400)):
        K, width = classes[case % len(classes)], 1 + case % 3
        joint = random_joint(source, 1 + case % 6, K)
        vertices = random_points(source, K, width, distinct=True)
        found = collapsed_on(joint, vertices, bayes(Finite(joint, ()), last=bool(case % 2)))
        text = f"distribution {case}, K = {K}, m = {width}: no excess risk, ties for the worst"
        proof.require(text, excess_risk(found, centres(found, vertices)) == 0)
    for vertices in (LINE, exact([[0, 0], [3, 1], [1, 4]])):
        for t in (Fraction(1, 100), Fraction(1, 2), Fraction(99, 100)):
            found = exhibit(t, vertices=vertices)
            proof.require(f"the exhibit, t = {t}", excess_risk(found, centres(found, vertices)) == 0)


def _exhibits(proof: Proof, most: Fraction) -> None:
    for t in (Fraction(1, 50), Fraction(1, 2), Fraction(9, 10)):
        lost = excess_risk(exhibit(t), class_means(exhibit(t)))
        proof.require(f"t = {t}: the nearest test mean loses t/10", lost == t / 10)
    for digits in (1, 3, 6):
        x = Fraction(1, 10**digits)
        found = exhibit(1 - x, exact([[1 - x, 0, x], [x, 1 - x, 0]]))
        lost = excess_risk(found, class_means(found))
        proof.require(f"x = {x}: it loses (1-x)(1-2x)", lost == (1 - x) * (1 - 2 * x))
        proof.require(f"... at most {most}", lost <= most)
    # Two more classes, each with an input and a vertex of its own.
    x, rest = Fraction(1, 100), Fraction(1, 1000)
    rows = exact([[1 - x, 0, x, 0, 0], [x, 1 - x, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    scaled = zip((1 - x - 2 * rest, x, rest, rest), rows, strict=True)
    joint = tuple(tuple(share * p for p in row) for share, row in scaled)
    found = collapsed_on(joint, exact([[0], [1], [5], [9], [14]]), bayes(Finite(joint, ())))
    lost = excess_risk(found, class_means(found))
    proof.require("K = 5, every class with mass: the same is lost at x_1", lost == sum(joint[0]) * (1 - 2 * x))


def _two_vertices_hit(proof: Proof, both: bool = True) -> None:
    source, reached = random.Random(2), 0
    for case in range(proof.cases(60, 400)):
        joint = random_joint(source, 1 + case % 4, 2)
        found = collapsed_on(joint, LINE[:2], bayes(Finite(joint, ()), last=bool(case % 2)))
        if both and sum(any(row) for row in heads(found).values()) < 2:
            continue
        reached += 1
        proof.require(f"K = 2, distribution {case}", excess_risk(found, class_means(found)) == 0)
    proof.require("cases reached", reached > 20)


@STRONG_COLLAPSE.certificate(
    "sampled", covers="random finite distributions, K = 2, 3, 4, 6, m = 1, 2, 3", relies_on="rational arithmetic"
)
def _optimal_on_finite(proof: Proof) -> None:
    """The rule itself on finite distributions without rounding, and the exhibits of the test class means."""
    _no_excess(proof, _vertices)
    _exhibits(proof, Fraction(1))
    _two_vertices_hit(proof)


def _fails(proof: Proof, text: str, found: Finite, centres: Sequence[Vector | None]) -> None:
    lost = excess_risk(found, centres)
    proof.require(f"{text}: excess risk {lost}", lost > 0)


@STRONG_COLLAPSE.without("vertices")
def _nearest_test_mean(proof: Proof) -> None:
    """K = 3, the exhibit at P(x_1) = 1/2: the nearest test class mean."""
    _fails(proof, "nearest test class mean", exhibit(Fraction(1, 2)), class_means(exhibit(Fraction(1, 2))))


@STRONG_COLLAPSE.without("strong")
def _weak_only(proof: Proof) -> None:
    """K = 2, every feature a vertex, one input in ten on the other one's (weak collapse)."""
    _fails(proof, "one of ten", collapsed_on(exact([["0.9", 0], ["0.1", 0]]), LINE[:2], [0, 1]), LINE[:2])


@STRONG_COLLAPSE.without("bayes")
def _of_other_labels(proof: Proof) -> None:
    """K = 2, h follows the Bayes classifier of a distribution with other posteriors."""
    before, after = exact([["0.4", "0.1"], ["0.1", "0.4"]]), exact([["0.2", "0.3"], ["0.1", "0.4"]])
    shifted = collapsed_on(after, LINE[:2], bayes(Finite(before, ())))
    _fails(proof, "after the shift", shifted, LINE[:2])


@STRONG_COLLAPSE.without("distinct")
def _merged(proof: Proof) -> None:
    """K = 2 on one vertex: the rule has only ties."""
    merged = exact([[1], [1]])
    _fails(proof, "a tie", collapsed_on(exact([["0.6", "0.1"], ["0.1", "0.2"]]), merged, [0, 1]), merged)


@STRONG_COLLAPSE.sibling
def _by_test_means(proof: Proof) -> None:
    """The nearest test class mean is Bayes-optimal too."""
    _no_excess(proof, _test_means)


@STRONG_COLLAPSE.sibling
def _by_test_means_of_two(proof: Proof) -> None:
    """At K = 2 it is, also where only one vertex is hit."""
    _two_vertices_hit(proof, both=False)


@STRONG_COLLAPSE.sibling
def _half_at_most(proof: Proof) -> None:
    """The nearest test class mean loses at most 1/2."""
    _exhibits(proof, Fraction(1, 2))


@STRONG_COLLAPSE.sibling
def _a_fifth_of_it(proof: Proof) -> None:
    """The exhibit loses t/5."""
    _three_classes(proof, lambda t: t / 5)
