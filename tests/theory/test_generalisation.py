"""E1, E1' and E1'': finite laws with exact probabilities, against bounds written out by hand in numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.algebra.cantelli import attained, by_total_variance, direction, one_sided, t, union, v
from theory.directional_cantelli import ALONG, _disjoint
from theory.generalisation import E1, larger
from theory.nearest_boundary import _SMALLER, CHEBYSHEV, NEAREST, _around, _distance
from theory.numeric.cantelli import CANTELLI, Atom, Law, Rule, vector
from theory.numeric.cantelli_laws import around_the_centre, disjoint_errors, random_law, two_points
from theory.proof import Proof

fractions = st.fractions(min_value=-4, max_value=4, max_denominator=6)
positive = st.fractions(min_value=Fraction(1, 50), max_value=20, max_denominator=50)
shares = st.fractions(min_value=Fraction(1, 20), max_value=1, max_denominator=20)


@st.composite
def laws(draw: st.DrawFn) -> Law:
    """Any finite law, K = 2 to 4; the last class may have equal rows with the first."""
    K, m = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    vectors = st.lists(fractions, min_size=m, max_size=m).map(tuple)
    weight = draw(st.lists(vectors, min_size=K, max_size=K))
    if draw(st.booleans()):
        weight[-1] = weight[0]
    drawn = []
    for c in range(K):
        for _ in range(draw(st.integers(1, 3))):
            pull = draw(st.sampled_from([0, 3]))
            point = tuple(x + pull * w for x, w in zip(draw(vectors), weight[c], strict=True))
            drawn.append((draw(st.integers(1, 9)), c, point))
    total = sum(count for count, _, _ in drawn)
    bias = tuple(draw(st.lists(fractions, min_size=K, max_size=K)))
    return Law([Atom(Fraction(count, total), c, h) for count, c, h in drawn], weight, bias)


def in_numpy(law: Law, *, directional: bool = False, nearest: bool = False) -> float:
    """The bound by its definition, in float64, without any function of the theory."""
    W, b = np.array(law.weight, dtype=float), np.array(law.bias, dtype=float)
    mass, label = np.array([float(a.mass) for a in law.atoms]), np.array([a.label for a in law.atoms])
    points, total = np.array([a.point for a in law.atoms], dtype=float), 0.0
    for c in np.unique(label):
        p, h = mass[label == c], points[label == c]
        mean = p @ h / p.sum()
        terms = []
        for k in range(len(W)):
            if k == c:
                continue
            row, offset = W[c] - W[k], b[c] - b[k]
            length = np.linalg.norm(row)
            if length == 0:
                terms.append(0.0 if offset > 0 else 1.0)
                continue
            off = (h - mean) @ row / length if directional else np.linalg.norm(h - mean, axis=1)
            variance, margin = p @ off**2 / p.sum(), max((row @ mean + offset) / length, 0.0)
            if margin < 1e-12:
                terms.append(1.0)
            elif nearest:
                terms.append(min(1.0, variance / margin**2))
            else:
                terms.append(1 / (1 + margin**2 / variance) if variance > 1e-25 else 0.0)
        total += p.sum() * (max(terms) if nearest else sum(terms))
    return float(min(total, 1.0))


def brute_force(law: Law) -> Fraction:
    """P(some other logit >= the true one), in integers over a common denominator."""
    wrong = Fraction(0)
    for mass, c, h in law.atoms:
        logits = [sum(x * y for x, y in zip(w, h, strict=True)) + b for w, b in zip(law.weight, law.bias, strict=True)]
        wrong += mass if max(z for k, z in enumerate(logits) if k != c) >= logits[c] else 0
    return wrong


@given(law=laws())
def test_all_three_hold_and_are_their_definitions(law: Law) -> None:
    plain, along, nearest, smaller = E1.of(law), ALONG.of(law), NEAREST.of(law), _SMALLER.of(law)
    assert law.error == brute_force(law)
    assert law.error <= along <= plain <= 1
    assert law.error <= smaller <= min(plain, nearest)
    assert float(plain) == pytest.approx(in_numpy(law), rel=1e-9)
    assert float(along) == pytest.approx(in_numpy(law, directional=True), rel=1e-9, abs=1e-20)
    assert float(nearest) == pytest.approx(in_numpy(law, nearest=True), rel=1e-9)


@settings(max_examples=10)
@given(law=laws())
def test_one_feature_has_one_direction(law: Law) -> None:
    narrow = Law([a._replace(point=a.point[:1]) for a in law.atoms], [w[:1] for w in law.weight], law.bias)
    assert ALONG.of(narrow) == E1.of(narrow)


@settings(max_examples=10)
@given(law=laws(), scale=positive)
def test_invariant_as_the_head_is(law: Law, scale: Fraction) -> None:
    """(aW, ab) and (W/a, ah) have the same errors and the same bounds."""
    louder = Law(law.atoms, [tuple(scale * x for x in w) for w in law.weight], tuple(scale * b for b in law.bias))
    longer = Law(
        [a._replace(point=tuple(scale * x for x in a.point)) for a in law.atoms],
        [tuple(x / scale for x in w) for w in law.weight],
        law.bias,
    )
    for other in (louder, longer):
        assert [c.of(other) for c in (E1, ALONG, NEAREST)] == [c.of(law) for c in (E1, ALONG, NEAREST)]


@given(values=st.lists(st.tuples(fractions, st.integers(1, 9)), min_size=1, max_size=4))
def test_cantelli_itself(values: list[tuple[Fraction, int]]) -> None:
    n = sum(count for _, count in values)
    mean = sum(x * count for x, count in values) / n
    variance = sum((x - mean) ** 2 * count for x, count in values) / n
    below = Fraction(sum(count for x, count in values if x <= 0), n)
    if mean > 0:
        assert below <= (CANTELLI.ahead(mean**2, variance) if variance else 0)


@given(gap=positive, variance=positive, share=shares)
def test_two_points_attain_it(gap: Fraction, variance: Fraction, share: Fraction) -> None:
    law = two_points(gap, variance, share)
    assert law.variance(0) == variance
    assert law.error == share * variance / (variance + gap**2) == E1.of(law) == ALONG.of(law)
    assert E1.of(law) < NEAREST.of(law)


@pytest.mark.parametrize("gap", [Fraction(1, 100), Fraction(1), Fraction(50)])
def test_closes_as_the_wrong_point_nears_the_boundary(gap: Fraction) -> None:
    """Wrong by `beyond`, with margin and variance held: p = V/(V + (m + beyond)^2)."""
    distances = []
    for beyond in (Fraction(1), Fraction(1, 10), Fraction(1, 1000), Fraction(0)):
        moved = two_points(gap + beyond, 1, 1)
        law = Law([a._replace(point=(a.point[0] - beyond,)) for a in moved.atoms], moved.weight, moved.bias)
        assert law.means[0] == (gap,)
        assert law.variance(0) == 1
        distances.append(E1.of(law) - law.error)
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] == 0


@given(
    tied=st.lists(st.fractions(Fraction(1, 40), Fraction(1, 5), max_denominator=40), min_size=1, max_size=5), q=shares
)
def test_disjoint_errors_attain_the_directional_one(tied: list[Fraction], q: Fraction) -> None:
    law = disjoint_errors(tied, [Fraction(1 + k, 2) for k in range(len(tied))], share=q)
    assert law.error == q * sum(tied) == ALONG.of(law)
    assert (E1.of(law) > ALONG.of(law)) == (len(tied) > 1)


def test_disjoint_errors_may_be_all_of_the_class() -> None:
    law = disjoint_errors([Fraction(1, 4), Fraction(3, 4)], [Fraction(1), Fraction(5)], share=Fraction(2, 3))
    assert law.error == ALONG.of(law) == Fraction(2, 3)
    assert [pair.square for pair in law.own_pairs[0][1]] == [1, 25]


@given(classes=st.integers(3, 6), radius=positive, tied=shares, q=shares)
def test_boundaries_all_around_attain_the_nearest(classes: int, radius: Fraction, tied: Fraction, q: Fraction) -> None:
    law = around_the_centre(classes, radius, tied, share=q)
    assert law.error == q * tied == NEAREST.of(law)
    # V = p m^2: above E1 only where p > K - 2.
    assert NEAREST.of(law) <= E1.of(law)


@given(K=st.integers(3, 10), variance=positive)
def test_at_equal_margins_nearest_is_never_looser_for_three_classes(K: int, variance: Fraction) -> None:
    nearest = min(CHEBYSHEV.ahead(Fraction(1), variance), 1)
    cantelli = CANTELLI.ahead(Fraction(1), variance)
    assert cantelli < nearest <= (K - 1) * cantelli
    assert (nearest == (K - 1) * cantelli) == (K == 3 and variance == 1)


def test_nearest_is_below_e1_where_it_says_nothing_of_a_class() -> None:
    """K = 3, m = 2, V = 9: above (K-2) m^2, and still 1 against E1's 2 V/(V + m^2)."""
    atoms = [Atom(Fraction(1, 4), 0, vector(sign * 3)) for sign in (1, -1)]
    atoms += [Atom(Fraction(1, 4), c, vector(h)) for c, h in ((1, -50), (2, 50))]
    law = Law(atoms, [vector(0), vector(-1), vector(1)], vector(0, -2, -2))
    assert (law.error, NEAREST.of(law), E1.of(law)) == (Fraction(1, 2), Fraction(1, 2), Fraction(9, 13))


def one_point(*points: int, weight: list[int], bias: list[int]) -> Law:
    """One class's point each, equally likely."""
    atoms = [Atom(Fraction(1, len(points)), c, vector(h)) for c, h in enumerate(points)]
    return Law(atoms, [vector(w) for w in weight], vector(*bias))


def test_conventions() -> None:
    same = one_point(3, 3, weight=[2, 2], bias=[0, 0])
    assert same.error == E1.of(same) == ALONG.of(same) == NEAREST.of(same) == 1
    same = one_point(3, 3, weight=[2, 2], bias=[1, 0])
    assert same.error == E1.of(same) == NEAREST.of(same) == Fraction(1, 2)
    right = one_point(3, -3, weight=[1, -1], bias=[0, 0])
    assert right.error == E1.of(right) == NEAREST.of(right) == 0
    tie = one_point(0, -3, weight=[1, -1], bias=[0, 0])
    assert tie.error == E1.of(tie) == ALONG.of(tie) == NEAREST.of(tie) == Fraction(1, 2)
    nothing = one_point(1, 1, 1, weight=[0, 0, 0], bias=[0, 0, 0])
    assert nothing.error == E1.of(nothing) == 1


def test_a_tie_stays_an_error_however_small_the_variance() -> None:
    """m = 0 with V -> 0: half of the class is wrong, the bound is 1; with any m > 0 it falls to 0."""
    for size in (Fraction(1), Fraction(1, 10**6)):
        atoms = [Atom(Fraction(1, 2), 0, vector(sign * size)) for sign in (1, -1)]
        law = Law(atoms, [vector(1), vector(-1)], vector(0, 0))
        assert (law.error, E1.of(law)) == (Fraction(1, 2), 1)
        moved = Law([a._replace(point=(a.point[0] + 1,)) for a in atoms], law.weight, law.bias)
        assert E1.of(moved) == size**2 / (1 + size**2)


def test_a_rare_class_counts_by_its_share() -> None:
    """One in a million, always wrong, beside a class that never is."""
    rare = Fraction(1, 10**6)
    law = Law([Atom(1 - rare, 0, vector(5)), Atom(rare, 1, vector(5))], [vector(1), vector(-1)], vector(0, 0))
    assert law.error == E1.of(law) == rare


def holds(check: object, *args: object) -> list[bool | None]:
    proof = Proof()
    check(proof, *args)  # type: ignore[operator]
    return [step.holds for step in proof.steps]


def test_both_proofs_hold_for_cantelli_alone() -> None:
    for check in (one_sided, by_total_variance, attained, direction):
        assert set(holds(check, CANTELLI)) == {True}
    assert holds(union, sum) == [True]
    assert holds(union, larger) == [False]
    assert set(holds(_distance, CHEBYSHEV)) == set(holds(_around, CHEBYSHEV)) == {True}
    assert False in holds(_distance, CANTELLI)
    assert set(holds(_disjoint)) == {True}


def almost(parts: int) -> Rule:
    """1/(1 + (1 + 1/parts) m^2/V): below Cantelli by as little as one likes."""
    return Rule(ahead=lambda square, variance: parts * variance / (parts * variance + (parts + 1) * square))


@pytest.mark.parametrize(
    "rule",
    [
        almost(1),
        almost(1000),
        Rule(ahead=lambda square, variance: variance / (2 * square)),
        Rule(ahead=lambda square, variance: 999 * variance / (1000 * (variance + square))),
        Rule(behind=CANTELLI.ahead),
        Rule(tie=0),
        Rule(behind=lambda square, variance: 0),
    ],
)
def test_both_proofs_refuse_less(rule: Rule) -> None:
    assert not all(holds(one_sided, rule))
    assert False in holds(by_total_variance, rule)


def test_chebyshev_is_a_looser_bound_that_nothing_attains() -> None:
    """V/m^2 on one side: both proofs accept it, and no law has it as its error."""
    assert set(holds(one_sided, CHEBYSHEV)) == set(holds(by_total_variance, CHEBYSHEV)) == {True}
    assert holds(attained, CHEBYSHEV)[-1] is False
    assert CHEBYSHEV.ahead(t**2, v) != CANTELLI.ahead(t**2, v)


@pytest.mark.parametrize("seed", range(5))
def test_random_laws_are_what_they_say(seed: int) -> None:
    law = random_law(seed)
    assert sum(law.shares.values()) == sum(a.mass for a in law.atoms) == 1
    assert law.error == brute_force(law)
    assert law.computed() == pytest.approx(in_numpy(law), rel=1e-9)
