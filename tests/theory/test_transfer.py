"""F3 and F3': the ceiling of transfer, against every head on distributions written out here in rational arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from theory.numeric.finite_distributions import (
    Finite,
    best_accuracy,
    ceiling,
    entropy_as_information,
    heads,
    linear_accuracy,
    powers_of_information,
    same_information,
    split,
)
from theory.proof import Proof
from theory.transfer import _head_by_head as head_by_head
from theory.transfer_at_weak_collapse import ERRING, m_largest
from theory.transfer_at_weak_collapse import _by_duality as by_duality
from theory.transfer_at_weak_collapse import _small_by_smt as small_by_smt

F = Fraction
Vector = tuple[Fraction, ...]


@st.composite
def masses(draw: st.DrawFn, size: int) -> Vector:
    weights = draw(st.lists(st.integers(0, 6), min_size=size, max_size=size).filter(any))
    return tuple(F(w, sum(weights)) for w in weights)


@st.composite
def splits(draw: st.DrawFn) -> tuple[Vector, list[int]]:
    """Shares of at most 6 fine classes and the super-class of each."""
    fine = draw(st.integers(1, 6))
    return draw(masses(fine)), draw(st.lists(st.integers(0, 2), min_size=fine, max_size=fine))


def on_line(count: int) -> tuple[Vector, ...]:
    return tuple((F(s), F(s * s)) for s in range(count))


# F3.


@given(case=splits())
def test_ceiling_is_the_best_of_every_head(case: tuple[Vector, list[int]]) -> None:
    fine, of = case
    best = F(0)
    for head in itertools.product(range(len(fine)), repeat=3):
        best = max(best, sum((p for y, (p, s) in enumerate(zip(fine, of, strict=True)) if head[s] == y), F(0)))
    found = split(fine, of, on_line(3))
    assert ceiling(found) == best == best_accuracy(found) == linear_accuracy(found)


@given(case=splits(), data=st.data())
def test_randomised_heads_and_noise_that_does_not_know_the_class_stay_below(
    case: tuple[Vector, list[int]], data: st.DataObject
) -> None:
    fine, of = case
    found = split(fine, of, on_line(3))
    # A row of decisions for each of 4 features, which each super-class reaches at its own rates.
    decides = [data.draw(masses(len(fine))) for _ in range(4)]
    rates = [data.draw(masses(4)) for _ in range(3)]
    right = F(0)
    for y, (p, s) in enumerate(zip(fine, of, strict=True)):
        right += p * sum((rates[s][j] * decides[j][y] for j in range(4)), F(0))
    assert right <= ceiling(found)


@given(fine=st.integers(2, 12), data=st.data())
def test_balanced_classes_have_the_ratio_of_the_numbers(fine: int, data: st.DataObject) -> None:
    supers = data.draw(st.integers(1, fine))
    of = [*range(supers), *(data.draw(st.integers(0, supers - 1)) for _ in range(fine - supers))]
    assert ceiling(split([F(1, fine)] * fine, of, on_line(supers))) == F(supers, fine)


@given(case=splits())
def test_information_is_the_entropy_of_the_super_class(case: tuple[Vector, list[int]]) -> None:
    """Exactly, and in float64 by numpy with logarithms."""
    fine, of = case
    found = split(fine, of, on_line(3))
    super_shares = [sum((p for p, s in zip(fine, of, strict=True) if s == j), F(0)) for j in range(3)]
    known = powers_of_information(list(heads(found).values()))
    assert same_information(known, entropy_as_information(super_shares))
    joint = np.array([[float(p) for p in row] for row in found.joint])
    product = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    nats = float((joint[joint > 0] * np.log(joint[joint > 0] / product[joint > 0])).sum())
    entropy = -sum(float(p) * math.log(p) for p in super_shares if p)
    assert nats == pytest.approx(entropy, abs=1e-12)
    assert math.log(known[0]) / known[1] == pytest.approx(entropy, abs=1e-12)


def test_animals_and_vehicles_know_less_than_a_bit() -> None:
    """Six of ten and four of ten: 0.673 nats against log 2 = 0.693."""
    power, scale = entropy_as_information([F(6, 10), F(4, 10)])
    assert math.log(power) / scale == pytest.approx(0.6730116670092565)
    assert not same_information((power, scale), (F(2), 1))


@given(gap=st.fractions(F(1, 10**12), 1))
def test_any_distance_within_a_super_class_ends_the_ceiling(gap: Fraction) -> None:
    """Within-class variance as small as one likes: the ceiling is of exact collapse."""
    found = Finite(((F(1, 2), F(0)), (F(0), F(1, 2))), ((F(0),), (gap,)))
    assert best_accuracy(found) == 1 > ceiling(split([F(1, 2)] * 2, [0, 0], on_line(1)))


def test_merged_vertices_reach_less() -> None:
    merged = split([F(1, 2), F(1, 4), F(1, 4)], [0, 1, 1], ((F(0),), (F(0),)))
    assert best_accuracy(merged) == F(1, 2) < ceiling(merged) == F(3, 4)


@pytest.mark.parametrize("share", [sympy.Rational(1), sympy.Rational(101, 100)])
def test_links_hold_at_the_ceiling_and_above(share: sympy.Rational) -> None:
    proof = Proof()
    head_by_head(proof, share)
    assert all(step.holds for step in proof.steps[:2])


def test_links_refute_less() -> None:
    proof = Proof()
    head_by_head(proof, sympy.Rational(99, 100))
    assert [step.holds for step in proof.steps] == [None, False, False, True]


# F3'.


@st.composite
def joints(draw: st.DrawFn) -> tuple[int, int, Vector]:
    """m values, F fine classes and P(y, h = v_j), row after row of values."""
    m, fine = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    return m, fine, draw(masses(m * fine))


@given(case=joints())
def test_few_values_are_below_the_largest_shares(case: tuple[int, int, Vector]) -> None:
    m, fine, flat = case
    rows = [flat[j * fine : (j + 1) * fine] for j in range(m)]
    fine_shares = sorted((sum(column, F(0)) for column in zip(*rows, strict=True)), reverse=True)
    best = F(0)
    for head in itertools.product(range(fine), repeat=m):
        best = max(best, sum((rows[j][y] for j, y in enumerate(head)), F(0)))
    found = Finite(tuple(rows), on_line(m))
    assert best == best_accuracy(found) <= sum(fine_shares[:m]) == m_largest(found)
    power, scale = powers_of_information(rows)
    assert power <= F(m) ** scale


@given(fine=st.integers(2, 6), m=st.integers(1, 6), data=st.data())
def test_few_values_attain_them(fine: int, m: int, data: st.DataObject) -> None:
    """The m - 1 most frequent classes alone on a value each, all others on the last."""
    fine_shares = sorted(data.draw(masses(fine)), reverse=True)
    m = min(m, fine)
    rows = [tuple(p if min(y, m - 1) == j else F(0) for y, p in enumerate(fine_shares)) for j in range(m)]
    assert best_accuracy(Finite(tuple(rows), on_line(m))) == sum(fine_shares[:m])


def test_more_values_than_classes_tell_them_all_apart() -> None:
    """Two balanced classes, three values: 1, where m/#fine would be 3/2."""
    found = Finite(((F(1, 4), F(0)), (F(1, 4), F(0)), (F(0), F(1, 2))), on_line(3))
    assert best_accuracy(found) == 1 == m_largest(found)


def test_balanced_classes_in_overlapping_super_classes_reach_less_than_the_ratio_of_the_numbers() -> None:
    """The most frequent class of each of two super-classes is the same one: .3 + .2, where #super/#fine is 1."""
    found = Finite(((F(3, 10), F(3, 10)), (F(2, 10), F(2, 10))), on_line(2))
    assert ceiling(found) == best_accuracy(found) == F(1, 2)


def test_errors_that_know_the_class_pass_the_ceiling_of_the_super_classes() -> None:
    """Shares .25 .25 .4 .1, super-classes {0, 1, 2} and {3}: F3 says .4 + .1; class 2 on the other vertex gives .65."""
    assert best_accuracy(ERRING) == F(65, 100)
    assert ceiling(split([F(25, 100), F(25, 100), F(4, 10), F(1, 10)], [0, 0, 0, 1], on_line(2))) == F(1, 2)
    assert m_largest(ERRING) == F(65, 100)


@pytest.mark.parametrize(("fewer", "holds"), [(0, True), (1, False)])
def test_smt_tells_m_from_one_less(fewer: int, holds: bool) -> None:
    proof = Proof()
    small_by_smt(proof, fewer)
    assert {step.holds for step in proof.steps} == {holds}


def test_duality_needs_every_value() -> None:
    m = sympy.Symbol("m", nonnegative=True)
    for values, last in ((m, True), (m - 1, False)):
        proof = Proof()
        by_duality(proof, values)
        assert [step.holds for step in proof.steps] == [True, True, True, last]
