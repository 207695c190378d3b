"""F1, F1' and F2: strong and weak collapse on test data, against sums written out here in rational arithmetic."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import assume, given
from hypothesis import strategies as st

from theory.algebra.vertex_variance import half_the_distance, moments_of_errors, no_violation, only_there, pair_sum
from theory.collapse_on_test_data import POSTERIORS, exhibit
from theory.numeric.finite_distributions import (
    Finite,
    bayes,
    class_means,
    collapsed_on,
    excess_risk,
    random_joint,
    random_points,
)
from theory.numeric.vertex_hits import (
    ATTAINED,
    Hits,
    error_rates_floor,
    hits_of,
    least_distance_floor,
    variance,
    variance_about_vertices,
    vertex_floor,
)
from theory.proof import Proof

F = Fraction
Vector = tuple[Fraction, ...]


def square(a: Sequence[Fraction], b: Sequence[Fraction]) -> Fraction:
    return sum(((x - y) ** 2 for x, y in zip(a, b, strict=True)), F(0))


@st.composite
def masses(draw: st.DrawFn, size: int, *, positive: bool = False) -> Vector:
    weights = draw(st.lists(st.integers(int(positive), 6), min_size=size, max_size=size).filter(any))
    return tuple(F(w, sum(weights)) for w in weights)


@st.composite
def points(draw: st.DrawFn, size: int, width: int, *, distinct: bool = True) -> tuple[Vector, ...]:
    vectors = st.tuples(*[st.integers(-4, 4)] * width)
    drawn = draw(st.lists(vectors, min_size=size, max_size=size, unique=distinct))
    return tuple(tuple(F(x) for x in row) for row in drawn)


@st.composite
def distributions(draw: st.DrawFn, classes: int | None = None) -> tuple[tuple[Vector, ...], tuple[Vector, ...]]:
    """A joint distribution of at most 5 inputs and 2 to 5 classes, and distinct vertices."""
    K, inputs = classes or draw(st.integers(2, 5)), draw(st.integers(1, 5))
    flat = draw(masses(K * inputs))
    return tuple(flat[i * K : (i + 1) * K] for i in range(inputs)), draw(points(K, draw(st.integers(1, 3))))


@st.composite
def confusions(draw: st.DrawFn, *, positive: bool = False) -> Hits:
    K = draw(st.integers(2, 5))
    rates = tuple(draw(masses(K)) for _ in range(K))
    return Hits(draw(masses(K, positive=positive)), rates, draw(points(K, draw(st.integers(1, 3)))))


# F1.


def nearest_rule_accuracies(
    joint: Sequence[Vector], features: Sequence[Vector], centres: Sequence[Vector]
) -> list[Fraction]:
    """Of every way to break the ties, in rational arithmetic."""
    ways = [F(0)]
    for row, h in zip(joint, features, strict=True):
        distances = [square(h, centre) for centre in centres]
        tied = [row[k] for k, distance in enumerate(distances) if distance == min(distances)]
        ways = sorted({way + value for way in ways for value in tied})
    return ways


@given(case=distributions(), last=st.booleans())
def test_nearest_vertex_is_bayes_with_every_tie_rule(
    case: tuple[tuple[Vector, ...], tuple[Vector, ...]], last: bool
) -> None:
    joint, vertices = case
    best = sum((max(row) for row in joint), F(0))
    rows = [[c for c, p in enumerate(row) if p == max(row)] for row in joint]
    features = [vertices[tied[-1 if last else 0]] for tied in rows]
    assert nearest_rule_accuracies(joint, features, vertices) == [best]


@given(t=st.fractions(F(1, 100), F(99, 100)), vertices=points(3, 2))
def test_exhibit_loses_a_tenth_of_x1_at_every_share_and_vertices(t: Fraction, vertices: tuple[Vector, ...]) -> None:
    """P(y|x1) = (.4, .3, .3), P(y|x2) = (.3, .7, 0), by hand: only class 2 has its mean at mu_0."""
    h1, h2 = vertices[0], vertices[1]
    weights = [(F(4, 10) * t, F(3, 10) * (1 - t)), (F(3, 10) * t, F(7, 10) * (1 - t)), (F(3, 10) * t, F(0))]
    means = [tuple((a * x + b * y) / (a + b) for x, y in zip(h1, h2, strict=True)) for a, b in weights]
    at_1, at_2 = ([square(h, m) for m in means] for h in (h1, h2))
    assert at_1[2] == 0 < min(at_1[:2])
    assert at_2[1] < min(at_2[0], at_2[2])
    best = F(4, 10) * t + F(7, 10) * (1 - t)
    accuracy = F(3, 10) * t + F(7, 10) * (1 - t)
    assert best - accuracy == t / 10
    found = exhibit(t, vertices=vertices)
    assert excess_risk(found, class_means(found)) == t / 10
    assert excess_risk(found, vertices) == 0


@pytest.mark.parametrize(("t", "accuracies"), [(F(0), [F(3, 10), F(7, 10)]), (F(1), [F(3, 10), F(4, 10)])])
def test_exhibit_with_one_input_has_only_ties(t: Fraction, accuracies: list[Fraction]) -> None:
    """t = 0: classes 0 and 1 have the mean mu_1 and class 2 none; t = 1: every mean is mu_0."""
    found = exhibit(t)
    rows = [(row, h) for row, h in zip(found.joint, found.features, strict=True) if any(row)]
    means = [mean for mean in class_means(found) if mean]
    assert len(set(means)) == 1
    assert nearest_rule_accuracies(*zip(*rows, strict=True), means) == accuracies


def test_exhibit_in_float64() -> None:
    """The same means by numpy's average."""
    x, vertices = np.array([0.5, 0.5]), np.array([[0.0, 0.0], [2.0, 1.0], [-1.0, 3.0]])
    posteriors = np.array([[float(p) for p in row] for row in POSTERIORS])
    means = np.stack([np.average(vertices[:2], axis=0, weights=x * posteriors[:, c]) for c in range(3)])
    distances = np.linalg.norm(vertices[:2, None] - means, axis=2)
    assert distances.argmin(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize("digits", [1, 2, 4, 8])
def test_nearest_test_mean_may_lose_nearly_everything(digits: int) -> None:
    x = F(1, 10**digits)
    joint = (((1 - x) ** 2, F(0), (1 - x) * x), (x * x, x * (1 - x), F(0)))
    found = collapsed_on(joint, ((F(0),), (F(1),), (F(2),)), [0, 1])
    assert excess_risk(found, class_means(found)) == (1 - x) * (1 - 2 * x)


@given(case=distributions(classes=2))
def test_two_classes_may_go_by_the_test_means_where_both_vertices_are_hit(
    case: tuple[tuple[Vector, ...], tuple[Vector, ...]],
) -> None:
    joint, vertices = case
    decided = [int(row[1] > row[0]) for row in joint]
    hit = {c for c, row in zip(decided, joint, strict=True) if sum(row)}
    assume(hit == {0, 1})
    found = Finite(joint, tuple(vertices[c] for c in decided))
    assert excess_risk(found, class_means(found)) == 0


def test_two_classes_on_one_vertex_tie() -> None:
    """P(1|x) = .7 everywhere: both test means are mu_1."""
    found = Finite(((F(3, 10), F(7, 10)),), ((F(1),),))
    assert class_means(found) == [(F(1),), (F(1),)]
    assert excess_risk(found, class_means(found)) == F(4, 10)


# F1'.


@given(case=distributions(), data=st.data())
def test_distance_from_any_vertices_chosen(
    case: tuple[tuple[Vector, ...], tuple[Vector, ...]], data: st.DataObject
) -> None:
    joint, vertices = case
    features = data.draw(points(len(joint), len(vertices[0]), distinct=False))
    halves = [tuple(x / 2 for x in h) for h in features]
    least = min(square(a, b) for a, b in itertools.combinations(vertices, 2))
    apart, between, error = F(0), F(0), F(0)
    for row, h in zip(joint, halves, strict=True):
        distances = [square(h, v) for v in vertices]
        for y, p in enumerate(row):
            # The farthest of the tied ones, which is the worst.
            g = max(
                (k for k, d in enumerate(distances) if d == min(distances)),
                key=lambda k: square(vertices[k], vertices[y]),
            )
            apart += p * distances[y]
            between += p * square(vertices[g], vertices[y])
            error += p * (g != y)
    assert 4 * apart >= between >= least * error


@pytest.mark.parametrize("width", [1, 3])
def test_a_quarter_is_approached_and_attained(width: int) -> None:
    origin, other = (F(0),) * width, (F(1),) + (F(0),) * (width - 1)
    for over in (F(1, 10), F(1, 10**6), F(0)):
        h = tuple((F(1, 2) + over) * x for x in other)
        found = Finite(((F(1), F(0)),), (h,))
        lost = excess_risk(found, (origin, other))
        assert lost == 1
        assert square(h, origin) / lost == (F(1, 2) + over) ** 2
    before = Finite(((F(1), F(0)),), (tuple(F(49, 100) * x for x in other),))
    assert excess_risk(before, (origin, other)) == 0


@pytest.mark.parametrize("constant", [sympy.Rational(1, 4), sympy.Rational(1, 5)])
def test_a_quarter_or_less_is_proved(constant: sympy.Rational) -> None:
    proof = Proof()
    half_the_distance(proof, constant)
    assert all(step.holds for step in proof.steps)


@pytest.mark.parametrize("constant", [sympy.Rational(251, 1000), sympy.Rational(1)])
def test_more_than_a_quarter_is_refuted(constant: sympy.Rational) -> None:
    proof = Proof()
    half_the_distance(proof, constant)
    assert [step.holds for step in proof.steps][-1] is False


# F2.


@given(hits=confusions())
def test_variances_by_pairs_and_floors(hits: Hits) -> None:
    """The pair sums, every floor and the one above it, written out."""
    K, v = len(hits.vertices), hits.vertices
    d = [[square(v[j], v[k]) for k in range(K)] for j in range(K)]
    own, vertex, by_rates, by_least, by_vertex = (F(0) for _ in range(5))
    least = min(d[j][k] for j in range(K) for k in range(K) if j != k)
    for c, (share, q) in enumerate(zip(hits.shares, hits.rates, strict=True)):
        near, e = min(d[c][k] for k in range(K) if k != c), 1 - q[c]
        own += share * sum((q[j] * q[k] * d[j][k] for j in range(K) for k in range(j)), F(0))
        vertex += share * sum((q[j] * d[c][j] for j in range(K)), F(0))
        by_rates += share * e * (1 - e) * near
        by_least += share * e * (1 - e) * least
        by_vertex += share * e * near
    assert variance(hits) == own >= by_rates == error_rates_floor(hits)
    assert by_rates >= by_least == least_distance_floor(hits)
    assert variance_about_vertices(hits) == vertex >= by_vertex == vertex_floor(hits)
    assert vertex >= own


@given(hits=confusions(positive=True), shift=st.integers(-9, 9), factor=st.fractions(F(1, 9), 9))
def test_variance_is_shift_invariant_and_of_degree_two(hits: Hits, shift: int, factor: Fraction) -> None:
    moved = hits._replace(vertices=tuple(tuple(factor * x + shift for x in row) for row in hits.vertices))
    for quantity in (variance, variance_about_vertices, error_rates_floor, least_distance_floor, vertex_floor):
        assert quantity(moved) == factor**2 * quantity(hits)


@given(K=st.integers(2, 7), data=st.data())
def test_simplex_has_half_d_squared_of_the_impurity(K: int, data: st.DataObject) -> None:
    q = data.draw(masses(K))
    eye = tuple(tuple(F(int(j == c)) for j in range(K)) for c in range(K))
    hits = Hits((F(1), *[F(0)] * (K - 1)), (q, *eye[1:]), eye)
    assert variance(hits) == 1 - sum((x * x for x in q), F(0))


@given(e=st.fractions(0, 1), K=st.integers(2, 6))
def test_attained_by_one_wrong_vertex_at_every_rate_and_number_of_classes(e: Fraction, K: int) -> None:
    rates = [[F(int(j == c)) for j in range(K)] for c in range(K)]
    rates[0][0], rates[0][1] = 1 - e, e
    line = tuple((F(2**c),) for c in range(K))
    hits = Hits((F(1), *[F(0)] * (K - 1)), tuple(map(tuple, rates)), line)
    assert variance(hits) == e * (1 - e) == least_distance_floor(hits) == error_rates_floor(hits)
    assert variance_about_vertices(hits) == e == vertex_floor(hits)


@given(e=st.fractions(F(1, 9), 1), part=st.fractions(F(1, 9), F(8, 9)))
def test_missed_by_two_wrong_vertices(e: Fraction, part: Fraction) -> None:
    """Both at distance D on both sides: the mean's shift is smaller, so the variance is larger."""
    q = (1 - e, e * part, e * (1 - part))
    hits = Hits((F(1), F(0), F(0)), (q, (F(0), F(1), F(0)), (F(0), F(0), F(1))), ((F(0),), (F(1),), (F(-1),)))
    assert variance(hits) == e - (e * (2 * part - 1)) ** 2 > e * (1 - e)


def test_always_wrong_on_one_vertex_has_no_variance_about_its_mean() -> None:
    hits = hits_of(["0.5", "0.5"], [[0, 1], [1, 0]], [[0], [3]])
    assert variance(hits) == 0 == error_rates_floor(hits)
    assert variance_about_vertices(hits) == 9 == vertex_floor(hits)


def test_the_least_distance_of_a_class_is_worth_more_than_that_of_all() -> None:
    """The third case that attains d_c: its far class has mistakes that D undervalues."""
    hits = ATTAINED[2]
    assert variance(hits) == error_rates_floor(hits) > least_distance_floor(hits)
    assert variance(hits) == F(4, 10) * F(9, 100) * 1 + F(5, 10) * F(21, 100) * 4


def test_the_mean_error_rate_overstates_the_floor() -> None:
    """e (1-e) is concave: by Jensen the mean rate's value is never below the mean of the values."""
    for low, high in itertools.product([F(0), F(1, 10), F(1, 2)], [F(1, 2), F(9, 10), F(1)]):
        mean = (low + high) / 2
        assert mean * (1 - mean) >= (low * (1 - low) + high * (1 - high)) / 2


@pytest.mark.parametrize("factor", [F(1001, 1000), F(2)])
def test_smt_refutes_a_larger_floor(factor: Fraction) -> None:
    scale = sympy.Rational(factor.numerator, factor.denominator)
    proof, ratio = Proof(), float(factor)
    no_violation(proof, lambda e: ratio * e * (1 - e), lambda e: e)
    assert [step.holds for step in proof.steps] == [False, True]
    proof = Proof()
    moments_of_errors(proof, lambda e: scale * e * (1 - e), lambda e: e)
    assert False in [step.holds for step in proof.steps]


def test_links_of_the_proof_hold() -> None:
    proof = Proof()
    pair_sum(proof)
    moments_of_errors(proof, lambda e: e * (1 - e), lambda e: e)
    only_there(proof)
    assert all(step.holds for step in proof.steps)


def test_helpers_meet_hard_cases() -> None:
    """Ties of the Bayes classifier, absent classes and equal points occur in what the certificates draw."""
    source = random.Random(0)
    drawn = [random_joint(source, 3, 3) for _ in range(60)]
    assert any(bayes(Finite(rows, ())) != bayes(Finite(rows, ()), last=True) for rows in drawn)
    assert any(None in class_means(Finite(rows, random_points(source, 3, 2))) for rows in drawn)
    assert any(len(set(random_points(source, 4, 1))) < 4 for _ in range(20))
