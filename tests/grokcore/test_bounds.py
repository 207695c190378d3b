"""margin_error_bound: exact rational arithmetic on finite distributions, where the error itself is known."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import ClassMoments, NonFiniteError, UsageError
from grokcore.bounds import margin_error_bound
from tests.cases import collapsed, random_head
from theory.numeric.configurations import rotation

Vector = list[Fraction]
Term = Callable[[Fraction, Fraction, Fraction], Fraction]


class Case(NamedTuple):
    """A finite distribution, one list of equally likely points a class, and a head."""

    points: list[list[Vector]]
    weight: list[Vector]
    bias: Vector


def case(points: list[list[list[int]]], weight: list[list[int]], bias: list[int]) -> Case:
    exact = [[[Fraction(x) for x in point] for point in of_class] for of_class in points]
    return Case(exact, [[Fraction(x) for x in row] for row in weight], [Fraction(x) for x in bias])


@st.composite
def cases(draw: st.DrawFn) -> Case:
    K, m = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    numbers = st.integers(-3, 3)
    vectors = st.lists(numbers, min_size=m, max_size=m)
    weight = draw(st.lists(vectors, min_size=K, max_size=K))
    if draw(st.booleans()):
        # Without help the head is nearly always wrong: points around a multiple of each class's own row.
        points = [draw(st.lists(vectors, min_size=1, max_size=4)) for _ in range(K)]
        points = [[[x + 3 * w for x, w in zip(p, weight[c], strict=True)] for p in points[c]] for c in range(K)]
    else:
        points = draw(st.lists(st.lists(vectors, min_size=1, max_size=4), min_size=K, max_size=K))
    return case(points, weight, draw(st.lists(numbers, min_size=K, max_size=K)))


def dot(a: Vector, b: Vector) -> Fraction:
    return sum((x * y for x, y in zip(a, b, strict=True)), Fraction(0))


def minus(a: Vector, b: Vector) -> Vector:
    return [x - y for x, y in zip(a, b, strict=True)]


def mean(rows: list[Vector]) -> Vector:
    return [sum(column, Fraction(0)) / len(rows) for column in zip(*rows, strict=True)]


def cantelli(gap: Fraction, length: Fraction, variance: Fraction) -> Fraction:
    """One pair's term from w_c - w_k: its gap at the mean, its squared length, and the variance; all conventions."""
    if gap <= 0:
        return Fraction(1)
    if length == 0 or variance == 0:
        return Fraction(0)
    return 1 / (1 + gap**2 / (length * variance))


def bound(found: Case, term: Term = cantelli, *, directional: bool = False, shares: Vector | None = None) -> Fraction:
    """The bound before it is clipped, by its definition."""
    n = sum(map(len, found.points))
    total = Fraction(0)
    for c, rows in enumerate(found.points):
        centre = mean(rows)
        share = Fraction(len(rows), n) if shares is None else shares[c]
        for k in range(len(found.points)):
            if k == c:
                continue
            along = minus(found.weight[c], found.weight[k])
            length = dot(along, along)
            offs = [minus(row, centre) for row in rows]
            squares = [dot(o, along) ** 2 / length if directional and length else dot(o, o) for o in offs]
            gap = dot(along, centre) + found.bias[c] - found.bias[k]
            total += share * term(gap, length, sum(squares, Fraction(0)) / len(rows))
    return total


def error(found: Case) -> Fraction:
    """The share of points on which another class's logit is as large."""
    wrong = 0
    for c, rows in enumerate(found.points):
        for row in rows:
            logits = [dot(w, row) + b for w, b in zip(found.weight, found.bias, strict=True)]
            wrong += any(logits[k] >= logits[c] for k in range(len(logits)) if k != c)
    return Fraction(wrong, sum(map(len, found.points)))


def computed(found: Case, *, directional: bool = False, dtype: torch.dtype = torch.float64) -> float:
    features = torch.tensor([[float(x) for x in row] for rows in found.points for row in rows], dtype=dtype)
    labels = torch.repeat_interleave(torch.tensor([len(rows) for rows in found.points]))
    weight = torch.tensor([[float(x) for x in row] for row in found.weight], dtype=dtype)
    bias = torch.tensor([float(b) for b in found.bias], dtype=dtype)
    moments = ClassMoments(*weight.shape, scatter="per_class" if directional else "pooled").update(features, labels)
    return margin_error_bound(moments, weight, bias, directional=directional)


@given(found=cases())
def test_it_is_its_definition_and_holds(found: Case) -> None:
    plain, along, truth = bound(found), bound(found, directional=True), error(found)
    assert truth <= along <= plain
    assert computed(found) == pytest.approx(float(min(plain, 1)), rel=1e-12)
    assert computed(found, directional=True) == pytest.approx(float(min(along, 1)), rel=1e-12)


# One wide class and one that never errs. P(error) = P(0) / 4, and Cantelli's inequality is an equality for these
# two values: margin 3, variance 3, and the quarter of class 0 at 0 ties.
TIGHT = case([[[0], [4], [4], [4]], [[-9]] * 4], [[1], [-1]], [0, 0])
NARROW = case([[[1], [3]], [[-9]]], [[1], [-1]], [0, 0])
"""No errors, margin 2, variance 1."""


def test_attained_by_two_points() -> None:
    assert error(TIGHT) == bound(TIGHT) == Fraction(1, 8)
    assert computed(TIGHT) == computed(TIGHT, directional=True) == 0.125


def test_what_the_conventions_say() -> None:
    same_rows = [[2], [2]]
    points = [[[1], [5]], [[0], [1]]]
    assert computed(case(points, same_rows, [0, 0])) == 1  # every point ties
    assert computed(case(points, same_rows, [1, 0])) == 0.5 == float(error(case(points, same_rows, [1, 0])))
    assert computed(case([[[1]], [[-1]]], [[1], [-1]], [0, 0])) == 0  # no variance, positive margins
    assert computed(case([[[0]], [[-1]]], [[1], [-1]], [0, 0])) == 0.5  # no variance, one tie
    assert computed(case([[[-1], [-2]], [[1], [2]]], [[1], [-1]], [0, 0])) == 1  # everything wrong
    assert computed(case([[[0]] * 3] * 3, [[0]] * 3, [0, 0, 0])) == 1  # a sum of 2, clipped


def by_deviation(gap: Fraction, length: Fraction, variance: Fraction) -> Fraction:
    return cantelli(gap, length, Fraction(float(variance) ** 0.5))


def without_sign(gap: Fraction, length: Fraction, variance: Fraction) -> Fraction:
    return cantelli(abs(gap), length, variance)


def ties_are_right(gap: Fraction, length: Fraction, variance: Fraction) -> Fraction:
    return Fraction(0) if gap == 0 and length * variance == 0 else cantelli(gap, length, variance)


def one_sided_twice(gap: Fraction, length: Fraction, variance: Fraction) -> Fraction:
    return cantelli(2 * gap, length, variance)


def without_length(gap: Fraction, length: Fraction, variance: Fraction) -> Fraction:
    return cantelli(gap, Fraction(1), variance)


@pytest.mark.parametrize(
    ("sibling", "where"),
    [
        (by_deviation, TIGHT),
        (one_sided_twice, TIGHT),
        (without_length, TIGHT),
        (without_sign, case([[[-3]], [[-9]]], [[1], [-1]], [0, 0])),
        (ties_are_right, case([[[1]], [[1]]], [[2], [2]], [0, 0])),
    ],
)
def test_stronger_siblings_are_false(sibling: Term, where: Case) -> None:
    assert bound(where, sibling) < error(where) <= bound(where)
    assert computed(where) >= float(error(where))


def test_shares_and_scatters_are_the_classes_own() -> None:
    """Equal shares fail where the classes are unbalanced; so does the pooled scatter for each class's own."""
    wide = TIGHT.points[0] * 4
    unbalanced = case([[[int(p[0])] for p in wide], [[-9]]], [[1], [-1]], [0, 0])
    assert bound(unbalanced, shares=[Fraction(1, 2)] * 2) < error(unbalanced) == Fraction(4, 17)
    assert computed(unbalanced) == pytest.approx(4 / 17)
    pooled = Fraction(3, 2)  # half of class 0's variance
    assert bound(TIGHT, lambda gap, length, _: cantelli(gap, length, pooled)) < error(TIGHT)


def test_the_bias_counts() -> None:
    moved = NARROW._replace(bias=[Fraction(0), Fraction(4)])  # 2h against 4: one of the two points is wrong
    assert float(error(moved)) == pytest.approx(1 / 3)
    assert computed(moved) == pytest.approx(2 / 3)
    assert bound(NARROW) == Fraction(2, 15)
    assert computed(NARROW) == pytest.approx(2 / 15)
    assert bound(NARROW) < error(moved)


def test_the_direction_is_what_counts() -> None:
    """Variance across w_c - w_k costs the plain bound alone."""
    across = case([[[2, 9], [2, -9]], [[-2, 9], [-2, -9]]], [[1, 0], [-1, 0]], [0, 0])
    assert computed(across) == pytest.approx(81 / 85)
    assert computed(across, directional=True) == 0 == error(across)


def test_a_common_offset_and_narrow_dtypes() -> None:
    """An offset that the bias takes out again changes nothing; float32 numbers give their float64 answer."""
    offset = 2**13
    points = [[[offset], [offset + 4], [offset + 4], [offset + 4]], [[offset - 9]]]
    shifted = case(points, [[1], [-1]], [-offset, offset])
    assert bound(shifted) == error(shifted) == Fraction(1, 5)
    assert computed(shifted, dtype=torch.float32) == computed(shifted) == pytest.approx(0.2, rel=1e-12)


def test_a_small_bound_keeps_its_digits() -> None:
    far = case([[[10**9 - 1], [10**9 + 1]], [[-1]]], [[1], [-1]], [0, 0])
    assert float(bound(far)) == pytest.approx(2 / 3 * 1e-18)
    assert computed(far) == pytest.approx(float(bound(far)), rel=1e-12)


def test_collapse_has_no_errors_and_its_ties_are_no_margins() -> None:
    """Rounding alone may make a tied logit positive; it is no margin."""
    features, weight, bias, labels = collapsed(0, K=5, m=8, gamma=0.7)
    moments = ClassMoments(5, 8, scatter="per_class").update(features, labels)
    assert margin_error_bound(moments, weight, bias) < 1e-25
    assert margin_error_bound(moments, weight, bias, directional=True) < 1e-25
    for seed in range(20):
        # The second class's row lets every mean of the first tie, up to rounding.
        h = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        tie = h.roll(1, dims=1)
        tie = tie - h * ((tie * h).sum() / h.square().sum())
        found = ClassMoments(2, 8).update(torch.cat([h, -h]), torch.tensor([0, 1]))
        assert margin_error_bound(found, torch.cat([tie, torch.zeros_like(tie)])) == 1


@pytest.mark.parametrize("scale", [2.0**-1060, 1e-300, 1e-170, 1e-160, 1e153, 1e155, 1e307])
@pytest.mark.parametrize("directional", [False, True])
def test_the_size_of_the_head_is_nothing(scale: float, directional: bool) -> None:
    """Squared margins and lengths of this size are no float64 numbers: 0/0 would say nothing, and a 0 too much."""
    weight, bias = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), torch.tensor([0.0, 0.0], dtype=torch.float64)
    features = torch.tensor([[0.0], [4], [4], [4], [-9], [-9], [-9], [-9]], dtype=torch.float64)
    moments = ClassMoments(2, 1, scatter="per_class").update(features, torch.arange(8) // 4)
    found = margin_error_bound(moments, weight * scale, bias, directional=directional)
    assert found == pytest.approx(0.125, rel=1e-12)
    assert found >= 0.125 * (1 - 1e-15)  # its error


@pytest.mark.parametrize("scale", [1e-300, 1e-165, 1e-155, 1e-140, 1e140, 1e149])
def test_features_whose_squares_underflow_say_nothing(scale: float) -> None:
    """Below 1e-150 a variance may look like none: the bound is 1 and not 0."""
    features = scale * torch.tensor([[0.0], [4], [4], [4], [-9], [-9], [-9], [-9]], dtype=torch.float64)
    moments = ClassMoments(2, 1).update(features, torch.arange(8) // 4)
    found = margin_error_bound(moments, torch.tensor([[1.0], [-1.0]], dtype=torch.float64))
    assert found == (1 if scale < 1e-150 else pytest.approx(0.125, rel=1e-12))


def test_rows_of_very_different_sizes() -> None:
    """K = 3: the margin between two tiny rows counts beside a row of size 1."""
    weight = torch.tensor([[1e-170, 0], [-1e-170, 0], [0, 1]], dtype=torch.float64)
    features = torch.tensor([[0.0, -1], [4, -1], [4, -1], [4, -1], [-9, -1], [-9, -1], [0, 1], [0, 1]]).double()
    moments = ClassMoments(3, 2).update(features, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    # Class 0 ties with class 1 in a quarter, and its distance from class 2's boundary is 1 at variance 3.
    assert margin_error_bound(moments, weight) == pytest.approx(0.5 * (0.25 + 0.75), rel=1e-12)
    assert margin_error_bound(moments.merge(ClassMoments(3, 2)), weight * 1e300) == pytest.approx(0.5, rel=1e-12)


@given(seed=st.integers(0, 10_000), small=st.sampled_from([1e-7, 1e-9, 1e-12]))
def test_a_direction_whose_variance_cancels_is_not_still(seed: int, small: float) -> None:
    """Noise of size 1 across w_0 - w_1, rotated, and a tie of half of the class along it at distance `small`."""
    turn = rotation(seed, 2)
    points = torch.tensor([[0, 1], [2 * small, -1], [0, -1], [2 * small, 1]], dtype=torch.float64)
    points = torch.cat([points, torch.tensor([[-1.0, 0]] * 4, dtype=torch.float64)]) @ turn
    moments = ClassMoments(2, 2, scatter="per_class").update(points, torch.arange(8) // 4)
    weight = torch.tensor([[1.0, 0], [-1, 0]], dtype=torch.float64) @ turn
    found = margin_error_bound(moments, weight, directional=True)
    assert 0.25 * (1 - 1e-2) <= found <= margin_error_bound(moments, weight)


def test_bad_input(no_shape_checks: None) -> None:
    features, weight, bias, labels = random_head(0, n=20, m=6, K=4)
    moments = ClassMoments(4, 6).update(features, labels)
    with pytest.raises(UsageError, match='these have scatter="pooled"'):
        margin_error_bound(moments, weight, bias, directional=True)
    with pytest.raises(UsageError, match="no samples of class 4"):
        margin_error_bound(ClassMoments(5, 6).update(features, labels), torch.ones(5, 6))
    with pytest.raises(UsageError, match=r"weight \(4, 6\)"):
        margin_error_bound(moments, weight.T, bias)
    with pytest.raises(UsageError, match=r"bias \(4,\)"):
        margin_error_bound(moments, weight, torch.zeros(6))
    for broken in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteError, match="head"):
            margin_error_bound(moments, weight, torch.full((4,), broken))
        with pytest.raises(NonFiniteError, match="head"):
            margin_error_bound(moments, torch.full((4, 6), broken), bias)
