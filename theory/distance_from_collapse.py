"""How far from strong collapse any features are whose nearest-vertex rule errs (F1'): F1, measured.

No collapse is assumed: the vertices are any points, as measured the class means of the training data.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import sympy

from theory.algebra.vertex_variance import half_the_distance
from theory.collapse_on_test_data import LINE
from theory.numeric.finite_distributions import (
    Finite,
    Rows,
    accuracy,
    bayes,
    collapsed_on,
    exact,
    excess_risk,
    largest_squared_distance,
    least_squared_distance,
    mean_squared_distance,
    nearest_worst,
    random_joint,
    random_points,
    squared_distance,
)
from theory.proof import Proof
from theory.statement import Statement

DISTANCE_FROM_COLLAPSE = Statement(
    "distance_from_strong_collapse",
    label="F1'",
    claim="Any features, any vertices of least distance D, g the nearest-vertex rule with ties broken in any way, T "
    "any class-valued variable: E||h - mu_T||^2 >= (1/4) E||mu_g - mu_T||^2 >= (D^2/4) Pr[g != T] "
    ">= (D^2/4) (Pr[T = Y] - Pr[g = Y]). With T = y* the excess risk of g bounds the distance from strong "
    "collapse; with T = Y its errors bound the variance about the true class's vertex, at a quarter of what weak "
    "collapse has. 1/4 is sharp for both.",
    latex=r"\mathbb E\|h-\mu_T\|^2 \ge \tfrac14\mathbb E\|\mu_g-\mu_T\|^2 \ge \tfrac{D^2}{4}\Pr[g \ne T]"
    r" \ge \tfrac{D^2}{4}(\Pr[T=Y] - \Pr[g=Y])",
    assumptions={
        "nearest": "g decides for a nearest vertex; the head may be another rule",
        "least": "D is the least of the distances between vertices",
    },
    source="new",
    kind="lower",
)


def _distance_by_links(proof: Proof, constant: Any) -> None:
    half_the_distance(proof, constant)
    # Pointwise, whatever the three classes are: all patterns of equality.
    for g, t, y in itertools.product(range(3), repeat=3):
        proof.require(f"g, T, Y = {g}, {t}, {y}: [g != T] >= [T = Y] - [g = Y]", (g != t) >= (t == y) - (g == y))
    d, more = sympy.symbols("D a", nonnegative=True)
    # Where g = T both sides are 0.
    proof.nonnegative("where g != T, ||mu_g - mu_T||^2 = D^2 + a >= D^2", constant * (d**2 + more) - constant * d**2)


@DISTANCE_FROM_COLLAPSE.certificate("symbolic", covers="every K, m, h, T", relies_on="sympy, z3", whole=True)
def _distance_symbolic(proof: Proof) -> None:
    """Pointwise by the parallelogram law and by cases, then the expectation; h half-way attains the constant."""
    _distance_by_links(proof, sympy.Rational(1, 4))
    v, over = sympy.symbols("v r", positive=True)
    # h = (1/2 + r) of the way from the vertex of T = Y = y* to another: g != T, so every Pr is 1 or 0.
    own, other = ((sympy.Rational(1, 2) + over) * v) ** 2, ((sympy.Rational(1, 2) - over) * v) ** 2
    proof.nonnegative("past the middle of the way the other vertex is nearer", own - other, strictly=True)
    reached = own / v**2
    proof.identity(
        "just past the middle of the way: the ratio tends to 1/4", reached.subs(over, 0), sympy.Rational(1, 4)
    )


Distance = Callable[[Rows], Fraction]


def _distance_on_finite(proof: Proof, constant: Fraction, square: Distance) -> None:
    source = random.Random(3)
    for case in range(proof.cases(60, 400)):
        K, inputs, width = 2 + case % 4, 1 + case % 5, 1 + case % 3
        joint, vertices = random_joint(source, inputs, K), random_points(source, K, width)
        wanted = [source.randrange(K) for _ in range(inputs)] if case % 2 else bayes(Finite(joint, ()))
        features = random_points(source, inputs, width)
        if case % 3:  # On the way from T's own vertex to another: up to the middle, or past it.
            ends = [vertices[source.randrange(K)] for _ in wanted]
            ways = [Fraction(source.randint(3, 6), 10) for _ in wanted]
            features = tuple(
                tuple(x + way * (y - x) for x, y in zip(vertices[c], end, strict=True))
                for c, end, way in zip(wanted, ends, ways, strict=True)
            )
        text = f"distribution {case}, K = {K}, m = {width}"
        _compare(proof, text, Finite(joint, features), vertices, wanted, constant, square)
    # Half-way between two of three vertices, the third far away.
    half = Finite(exact([[1, 0, 0]]), exact([["1/2"]]))
    _compare(proof, "half-way, K = 3, m = 1", half, LINE, [0], constant, square)
    reached = constant * least_squared_distance(LINE) * excess_risk(half, LINE)
    proof.require("... which attains it, ties for the worst", mean_squared_distance(half, LINE) == reached)


def _compare(
    proof: Proof, text: str, found: Finite, vertices: Rows, wanted: Sequence[int], constant: Fraction, square: Distance
) -> None:
    by_input = [sum(row, Fraction(0)) for row in found.joint]
    for name, label, masses, features in (
        ("T a class of x", wanted, by_input, found.features),
        ("T = Y", *_every_label(found)),
    ):
        rule = nearest_worst(Finite(tuple((mass,) * len(vertices) for mass in masses), features), vertices, label)
        cases = list(zip(masses, features, label, rule, strict=True))
        apart = sum((w * squared_distance(point, vertices[t]) for w, point, t, g in cases), Fraction(0))
        between = sum((w * squared_distance(vertices[g], vertices[t]) for w, point, t, g in cases), Fraction(0))
        missed = sum((w for w, point, t, g in cases if g != t), Fraction(0))
        proof.require(f"{text}, {name}: the distance of the vertices", apart >= constant * between)
        proof.require(f"{text}, {name}: Pr[g != T]", apart >= constant * square(vertices) * missed)
    lost = accuracy(found, wanted) - accuracy(found, nearest_worst(found, vertices))
    apart = sum(
        (w * squared_distance(h, vertices[t]) for w, h, t in zip(by_input, found.features, wanted, strict=True)),
        Fraction(0),
    )
    proof.require(f"{text}: how much more often T is right", apart >= constant * square(vertices) * lost)


def _every_label(found: Finite) -> tuple[list[int], list[Fraction], Rows]:
    """Each input once for every label, so that T = Y is a class of what is listed."""
    rows = [(c, w, point) for row, point in zip(found.joint, found.features, strict=True) for c, w in enumerate(row)]
    labels, masses, features = zip(*rows, strict=True)
    return list(labels), list(masses), features


@DISTANCE_FROM_COLLAPSE.certificate(
    "sampled", covers="random finite distributions, K = 2..5, m = 1, 2, 3", relies_on="rational arithmetic"
)
def _distance_sampled(proof: Proof) -> None:
    """Finite distributions without rounding, ties broken for the worst, features up to and past the middle."""
    _distance_on_finite(proof, Fraction(1, 4), least_squared_distance)


@DISTANCE_FROM_COLLAPSE.without("nearest")
def _another_head(proof: Proof) -> None:
    """K = 2, exact strong collapse and a head that always answers with the other class."""
    found = collapsed_on(exact([["0.5", 0], [0, "0.5"]]), LINE[:2], [0, 1])
    lost = accuracy(found, bayes(found)) - accuracy(found, [1, 0])
    proof.require(f"no distance, excess risk {lost}", mean_squared_distance(found, LINE[:2]) == 0 < lost)


@DISTANCE_FROM_COLLAPSE.without("least")
def _mean_distance(proof: Proof) -> None:
    """K = 3 on a line at 0, 1 and 5, h half-way between the near two: the mean squared distance is too much."""
    half = Finite(exact([[1, 0, 0]]), exact([["1/2"]]))
    pairs = [squared_distance(a, b) for a, b in itertools.combinations(LINE, 2)]
    claimed = sum(pairs, Fraction(0)) / 3 / 4 * excess_risk(half, LINE)
    proof.require(f"1/4 < {claimed}", mean_squared_distance(half, LINE) < claimed)


@DISTANCE_FROM_COLLAPSE.sibling
def _a_third(proof: Proof) -> None:
    """1/3 for 1/4."""
    _distance_by_links(proof, sympy.Rational(1, 3))
    _distance_on_finite(proof, Fraction(1, 3), least_squared_distance)


@DISTANCE_FROM_COLLAPSE.sibling
def _diameter(proof: Proof) -> None:
    """The largest distance for the least."""
    _distance_on_finite(proof, Fraction(1, 4), largest_squared_distance)
