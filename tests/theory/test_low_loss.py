"""B2, B3 and B4: the theorem, the published bound and the shape of the curve.

Independent channels: dense Hessians of explicit heads, a search on a grid that knows no root equation, and mpmath
at 50 digits for the limits; the statements themselves use sympy, flint and z3.
"""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.strategies import collapsed_heads
from theory.formulas import gap_of_loss, kappa_at_collapse
from theory.low_loss import published
from theory.numeric.collapse_spectrum import aligned_head
from theory.numeric.configurations import Head, collapsed
from theory.numeric.oracle import kappa_by_hessian
from theory.rise_then_fall import MAXIMA


def bound(loss: float, K: int, gamma: float = 0.0, *, mass: float | None = None) -> float:
    x = -math.expm1(-loss) if mass is None else mass
    return 2 * (1 + gamma**2) * (K - 1) / K * x * float(gap_of_loss(loss, K)) ** 2


@given(case=collapsed_heads(classes=st.integers(2, 6)))
def test_measured_kappa_is_below_the_bound_of_the_measured_loss(case: tuple[Head, int, float, float]) -> None:
    head, K, _, gamma = case
    assert kappa_by_hessian(head) <= bound(head.loss, K, gamma) * (1 + 1e-6)


@given(K=st.integers(2, 10_000), share=st.floats(1e-9, 0.999))
def test_bound_by_the_loss(K: int, share: float) -> None:
    loss = share * math.log(K)
    kappa = float(kappa_at_collapse(gap_of_loss(loss, K), K))
    assert kappa <= bound(loss, K) * (1 + 1e-12)
    assert bound(loss, K) <= bound(loss, K, mass=loss) * (1 + 1e-12)


@given(K=st.integers(3, 50), over=st.floats(1.01, 3))
def test_the_bound_goes_on_above_log_k(K: int, over: float) -> None:
    """Beyond the statement: with a negative gap the loss passes log K, and formula and bound still hold."""
    loss = over * math.log(K)
    assert float(gap_of_loss(loss, K)) < 0
    assert float(kappa_at_collapse(gap_of_loss(loss, K), K)) <= bound(loss, K) * (1 + 1e-12)


@pytest.mark.parametrize("K", [2, 10, 97])
def test_bound_is_sharp(K: int) -> None:
    """kappa/bound = 1 - Kx/(2(K-1)), so it reaches 1 linearly in the loss."""
    for loss in (1e-3, 1e-6, 1e-9):
        ratio = float(kappa_at_collapse(gap_of_loss(loss, K), K)) / bound(loss, K)
        assert 1 - ratio == pytest.approx(K * -math.expm1(-loss) / (2 * (K - 1)), rel=1e-6, abs=1e-14)


def test_kappa_over_eps_log_squared_converges_only_logarithmically() -> None:
    """So it is no test of sharpness: at a loss of 1e-100 it is still 4 % off its limit 2 (K-1)/K."""
    with mpmath.workdps(150):
        ratios = []
        for exponent in (10, 100):
            eps = mpmath.mpf(10) ** -exponent
            x = -mpmath.expm1(-eps)
            kappa = mpmath.mpf(9) / 10 * mpmath.log(9 / mpmath.expm1(eps)) ** 2 * x * (2 - 10 * x / 9)
            ratios.append(float(kappa / (eps * mpmath.log(eps) ** 2)) / 1.8)
    assert ratios[0] == pytest.approx((1 + math.log(9) / math.log(1e10)) ** 2, rel=1e-6)
    assert 1.01 < ratios[1] < 1.05 < ratios[0]


def test_kappa_vanishes_with_the_loss_and_not_without_it() -> None:
    K = 10
    assert float(kappa_at_collapse(gap_of_loss(1e-12, K), K)) < 2e-9
    assert float(kappa_at_collapse(gap_of_loss(0.3, K), K)) > 3


def test_the_loss_alone_bounds_nothing() -> None:
    """Collapse to the same loss with a far global mean: kappa is 101 times as large."""
    near, far = (kappa_by_hessian(collapsed(1, K=3, m=3, gap=5.0, gamma=gamma)) for gamma in (0.0, 10.0))
    assert far == pytest.approx(101 * near, rel=1e-8)


@given(case=collapsed_heads(classes=st.integers(2, 6), gammas=st.just(0.0), counts=st.just(1)))
def test_published_bound_holds_without_a_global_mean(case: tuple[Head, int, float, float]) -> None:
    head, K, gap, _ = case
    radius = float(head.features.norm(dim=1).mean())
    ratio = published(gap, K, radius) / kappa_by_hessian(head)
    q = math.exp(-gap)
    assert ratio == pytest.approx(K**2 / (2 + (K - 2) * q), rel=1e-6)
    assert K * (1 - 1e-6) <= ratio <= K**2 / 2 * (1 + 1e-6)


@given(K=st.integers(2, 5), gap=st.floats(0.2, 9), factor=st.sampled_from([0.9, 0.999, 1.001, 1.3]))
def test_published_bound_fails_exactly_past_the_edge(K: int, gap: float, factor: float) -> None:
    edge = math.sqrt(K**2 / (2 + (K - 2) * math.exp(-gap)) - 1)
    kappa = kappa_by_hessian(collapsed(1, K=K, m=K, gap=gap, radius=1.3, gamma=factor * edge))
    assert (kappa > published(gap, K, 1.3)) == (factor > 1)


@pytest.mark.parametrize("gap", [0.1, 2.0, 9.0])
def test_published_bound_survives_the_least_mean_of_relu_features(gap: float) -> None:
    """One-hot means have gamma^2 = 1/(K-1), inside the edge: at K = 2 it is attained for every gap."""
    for K in range(2, 6):
        kappa = kappa_by_hessian(aligned_head(torch.eye(K, dtype=torch.float64), gap))
        assert kappa <= published(gap, K, math.sqrt(1 - 1 / K)) * (1 + 1e-9)


@given(case=collapsed_heads(classes=st.integers(2, 6), gammas=st.just(0.0), counts=st.just(1)))
def test_published_bound_holds_with_a_factor_k_less(case: tuple[Head, int, float, float]) -> None:
    """K^2 for K^3: an equality at K = 2."""
    head, K, gap, _ = case
    ratio = published(gap, K, float(head.features.norm(dim=1).mean())) / K / kappa_by_hessian(head)
    assert ratio >= 1 - 1e-6
    assert K > 2 or ratio == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize(("K", "place", "height"), [(K, float(p), float(h)) for K, (p, h) in MAXIMA.items()])
def test_maximum_of_the_curve_by_search(K: int, place: float, height: float) -> None:
    gaps = np.linspace(0, 20, 200_001)
    curve = kappa_at_collapse(gaps, K)
    assert gaps[np.argmax(curve)] == pytest.approx(place, abs=2e-4)
    assert curve.max() == pytest.approx(height, rel=1e-8)


@given(K=st.integers(2, 3000))
def test_the_curve_has_one_maximum_for_any_number_of_classes(K: int) -> None:
    slopes = np.sign(np.diff(kappa_at_collapse(np.linspace(0, 40, 4001), K)))
    assert slopes[0] > 0 > slopes[-1]
    assert np.count_nonzero(np.diff(slopes)) == 1


@given(K=st.integers(3, 50), gap=st.floats(5, 500))
def test_a_head_that_points_away_has_no_bound(K: int, gap: float) -> None:
    """lambda < 0: kappa grows like Delta^2 (K-2)/K."""
    ratio = float(kappa_at_collapse(-gap, K)) / gap**2
    assert ratio >= (K - 2) / K * (1 - 1e-9)


@given(gap=st.floats(0, 30))
def test_two_classes_are_even_in_the_gap(gap: float) -> None:
    assert float(kappa_at_collapse(-gap, 2)) == pytest.approx(float(kappa_at_collapse(gap, 2)), rel=1e-12)


def test_the_peak_grows_with_the_classes() -> None:
    heights = [float(height) for _, height in MAXIMA.values()]
    assert heights == sorted(heights)
