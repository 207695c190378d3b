"""variance_floor: sums written out by hand, and test sets measured as experiments measure them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from grokcore import ClassMoments, NonFiniteError, UsageError
from grokcore.accumulate import variance_ratio
from grokcore.agreement import nearest_mean
from grokcore.collapse_limits import VarianceFloor, variance_floor


def floats(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


LINE = floats([0.0], [1.0], [3.0])
COUNTS = torch.tensor([[8, 2, 0], [0, 6, 4], [0, 0, 0]])


@st.composite
def counted(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Counts of at least one sample, (K, K), and integer vertices, (K, m)."""
    K, m = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    rows = st.lists(st.integers(0, 5), min_size=K, max_size=K)
    counts = torch.tensor(draw(st.lists(rows, min_size=K, max_size=K)))
    assume(int(counts.sum()))
    vectors = st.lists(st.integers(-4, 4), min_size=m, max_size=m)
    points = draw(st.lists(vectors, min_size=K, max_size=K, unique_by=tuple))
    return counts, torch.tensor(points, dtype=torch.float64)


def samples(counts: Tensor, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Each class's samples on the vertices that it lands on."""
    pairs = [(c, j) for c, row in enumerate(counts.tolist()) for j, n in enumerate(row) for _ in range(n)]
    labels, hit = (torch.tensor(column) for column in zip(*pairs, strict=True))
    return vertices[hit], labels


def test_by_hand_about_the_class_means() -> None:
    """Vertices 0, 1, 3; 8 of 10 right with 2 at distance 1; 6 of 10 right with 4 at distance 2; no third class.

    Variances 0.16 and 0.96. d_c^2 = 1, 1, 4, so 0.16 and 0.24. D^2 = 1. The vertices' spread: (16 + 1 + 25)/27.
    """
    found = variance_floor(COUNTS, LINE)
    assert found.confusion == pytest.approx((0.16 + 0.96) / 2)
    assert found.error_rates == pytest.approx((0.16 + 0.24) / 2)
    assert found.least_distance == pytest.approx((0.16 + 0.24) / 2)
    assert found.spread == pytest.approx(42 / 27)
    assert found.confusion_ratio == pytest.approx(0.56 * 27 / 42)
    assert found.error_rates_ratio == found.least_distance_ratio == pytest.approx(0.2 * 27 / 42)


def test_by_hand_about_the_vertices() -> None:
    """Squared distances: 0.2 * 1, 0.4 * 4."""
    found = variance_floor(COUNTS, LINE, about="vertices")
    assert found.confusion == pytest.approx((0.2 + 1.6) / 2)
    assert found.error_rates == pytest.approx((0.2 + 0.4) / 2)


def test_the_nearest_vertex_of_a_class_counts() -> None:
    """Only class 2, at 3, errs: its nearest other vertex is 2 away, where D = 1."""
    found = variance_floor(torch.tensor([0.0, 0.0, 0.5]), LINE, torch.tensor([1, 1, 2]))
    assert math.isnan(found.confusion)
    assert math.isnan(found.confusion_ratio)
    assert found.error_rates == pytest.approx(0.5 * 0.25 * 4)
    assert found.least_distance == pytest.approx(0.5 * 0.25 * 1)


@given(case=counted())
def test_what_is_measured_less_the_floor_is_zero_at_weak_collapse(case: tuple[Tensor, Tensor]) -> None:
    """Paper C's V as measure() takes it, about the train means and about the test data's own."""
    counts, vertices = case
    K, m = vertices.shape
    test = ClassMoments(K, m).update(*samples(counts, vertices))
    train = ClassMoments(K, m).update(vertices, torch.arange(K))
    about_vertices = variance_floor(counts, vertices, about="vertices")
    assert variance_ratio(test, train) == pytest.approx(about_vertices.confusion_ratio, rel=1e-9)
    if not test.absent and not math.isnan(variance_ratio(test, test)):
        own = variance_floor(counts, vertices, spread_of=test.means)
        assert variance_ratio(test, test) == pytest.approx(own.confusion_ratio, rel=1e-9, abs=1e-12)


@given(case=counted(), about=st.sampled_from(["class_means", "vertices"]))
def test_the_more_is_known_the_higher(case: tuple[Tensor, Tensor], about: Any) -> None:
    """And rates with shares, joint probabilities and error rates alone say the same."""
    counts, vertices = case
    found = variance_floor(counts, vertices, about=about)
    assert found.confusion * (1 + 1e-12) >= found.error_rates >= found.least_distance * (1 - 1e-12) >= 0
    totals = counts.sum(dim=1)
    rates = counts.double() / totals.clamp_min(1)[:, None]
    for other in (
        variance_floor(rates, vertices, totals, about=about),
        variance_floor(counts.double() / counts.sum(), vertices, about=about),
    ):
        assert values(other) == pytest.approx(values(found), rel=1e-12, abs=1e-12)
    errors = 1 - rates.diagonal()
    alone = variance_floor(errors, vertices, totals, about=about)
    assert values(alone)[1:] == pytest.approx(values(found)[1:], rel=1e-12, abs=1e-12)


def values(found: VarianceFloor) -> list[float]:
    return [found.confusion, found.error_rates, found.least_distance, found.spread]


@given(case=counted(), about=st.sampled_from(["class_means", "vertices"]), exponent=st.integers(-30, 60))
def test_ratios_have_no_unit_and_no_origin(case: tuple[Tensor, Tensor], about: Any, exponent: int) -> None:
    counts, vertices = case
    found = variance_floor(counts, vertices, about=about)
    scaled = variance_floor(counts, vertices * 2.0**exponent, about=about)
    moved = variance_floor(counts, vertices + 2.0**20, about=about)
    assert scaled.confusion == pytest.approx(found.confusion * 4.0**exponent, rel=1e-12)
    for other in (scaled, moved):
        assert other.confusion_ratio == pytest.approx(found.confusion_ratio, rel=1e-9)
        assert other.error_rates_ratio == pytest.approx(found.error_rates_ratio, rel=1e-9)


def test_a_simplex_is_exact_in_its_impurity() -> None:
    """D^2 = 2: the variance is sum_c P(c) (1 - sum_j q_cj^2); numpy's sums."""
    counts = torch.randint(0, 50, (10, 10), generator=torch.Generator().manual_seed(0))
    q = counts.numpy() / counts.numpy().sum(axis=1, keepdims=True)
    impurity = np.average(1 - (q**2).sum(axis=1), weights=counts.numpy().sum(axis=1))
    found = variance_floor(counts, torch.eye(10))
    assert found.confusion == pytest.approx(impurity, rel=1e-12)
    assert found.spread == pytest.approx(0.9)


def test_features_off_the_vertices_may_have_less() -> None:
    """A hundredth either side of the middle, a quarter on the wrong one: V less the floor is negative.

    About the vertices no less than a quarter of it.
    """
    features = floats([0.49], [0.49], [0.49], [0.51]).repeat(2, 1)
    features[4:] = 1 - features[4:]
    labels = torch.tensor([0] * 4 + [1] * 4)
    vertices, counts = floats([0.0], [1.0]), torch.tensor([[3, 1], [1, 3]])
    test, train = ClassMoments(2, 1).update(features, labels), ClassMoments(2, 1).update(vertices, torch.arange(2))
    floor = variance_floor(counts, vertices, about="vertices")
    assert floor.confusion_ratio == pytest.approx(1.0)
    assert floor.confusion_ratio / 4 < variance_ratio(test, train) < floor.confusion_ratio
    assert float(test.within.sum()) / 8 < 1e-3 * variance_floor(counts, vertices).least_distance


def test_few_errors_keep_their_digits() -> None:
    counts = torch.tensor([[1e18, 1.0], [0.0, 1e18]], dtype=torch.float64)
    found = variance_floor(counts, floats([0.0], [1.0]))
    assert found.confusion == pytest.approx(0.5e-18, rel=1e-12)
    assert found.error_rates == pytest.approx(0.5e-18, rel=1e-12)


@pytest.mark.parametrize("unit", [5e-324, 1e-310, 1e308])
def test_counts_have_no_unit(unit: float) -> None:
    """Of sums that are not finite, and of some below the normal numbers, less than the share was right."""
    counts = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64) * unit
    units = torch.tensor([unit, unit], dtype=torch.float64)
    vertices = floats([0.0], [1.0])
    assert variance_floor(counts, vertices).confusion == pytest.approx(0.25 * 2 / 3)
    assert variance_floor(counts, vertices, units).confusion == pytest.approx(0.25 / 2)
    assert variance_floor(torch.tensor([0.0, 0.5]), vertices, units).error_rates == pytest.approx(0.25 / 2)


def test_about_the_class_means_regions_of_nearest_vertices_that_do_not_meet_cost_variance() -> None:
    """Vertices 0, 1, 2, half of class 0 nearest to 0 and half to 2: at least (1/2)^2, where a simplex has no least."""
    half = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 1]])
    least = ClassMoments(3, 1).update(floats([0.5], [1.5]), torch.tensor([0, 0])).within[0] / 2
    floor = variance_floor(half, floats([0.0], [1.0], [2.0]), torch.tensor([1, 0, 0]))
    assert float(least) == pytest.approx(0.25)
    assert floor.confusion == pytest.approx(1.0)
    simplex, centre = torch.eye(3, dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    near = centre + 1e-6 * (simplex[[0, 2]] - centre)
    assert nearest_mean(near, simplex).tolist() == [0, 2]
    within = ClassMoments(3, 3).update(near, torch.tensor([0, 0])).within[0] / 2
    assert float(within) < 1e-11 * variance_floor(half, simplex, torch.tensor([1, 0, 0])).error_rates


def test_always_wrong_and_coinciding_vertices() -> None:
    swapped = torch.tensor([[0, 1], [1, 0]])
    assert variance_floor(swapped, floats([0.0], [2.0])).error_rates == 0
    assert variance_floor(swapped, floats([0.0], [2.0]), about="vertices").error_rates == 4
    together = variance_floor(swapped, floats([1.0], [1.0]), about="vertices")
    assert (together.confusion, together.spread) == (0, 0)
    assert math.isnan(together.confusion_ratio)
    partly = variance_floor(torch.ones(3, 3), floats([0.0], [0.0], [1.0]))
    assert partly.least_distance == 0 < partly.error_rates < partly.confusion


@pytest.mark.parametrize(
    ("confusion", "shares", "message"),
    [
        (torch.ones(2, 3), None, r"got \(3, 1\) and \(2, 3\)"),
        (torch.ones(3), None, "need the shares"),
        (torch.tensor([0.1, 0.2, 1.5]), torch.ones(3), "at most 1, got 1.5"),
        (-torch.ones(3, 3), None, "must not be negative"),
        (torch.zeros(3, 3), None, "no share at all"),
        (torch.ones(3, 3), torch.ones(2), r"shares must be \(3,\)"),
        (COUNTS, torch.ones(3), "class 2 has a share and no counts"),
    ],
)
def test_variance_floor_refuses(confusion: Tensor, shares: Tensor | None, message: str, no_shape_checks: None) -> None:
    with pytest.raises(UsageError, match=message):
        variance_floor(confusion, LINE, shares)


def test_variance_floor_refuses_other_vertices(no_shape_checks: None) -> None:
    with pytest.raises(UsageError, match=r"got \(1, 1\)"):
        variance_floor(torch.ones(1, 1), torch.ones(1, 1))
    with pytest.raises(UsageError, match=r"got \(\) and"):
        variance_floor(COUNTS, torch.tensor(1.0))
    with pytest.raises(UsageError, match="spread_of"):
        variance_floor(COUNTS, LINE, spread_of=torch.ones(3, 2))
    with pytest.raises(UsageError, match="about must be"):
        variance_floor(COUNTS, LINE, about="means")  # type: ignore[arg-type]
    for broken in (math.nan, math.inf, 1e200):
        with pytest.raises(NonFiniteError, match="class means"):
            variance_floor(COUNTS, torch.full((3, 1), broken, dtype=torch.float64))
    with pytest.raises(NonFiniteError, match="confusion"):
        variance_floor(torch.full((3, 3), math.nan), LINE)
