"""B8 and B8c: bounds of kappa by how far a head is from collapsed outputs.

Oracles that share no code with the statements: impurities in rational arithmetic, sums over pairs of classes in numpy;
kappa by Hessian-vector products.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
import z3
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.rational import fractions, impurity
from tests.theory.strategies import random_heads, seeds
from theory import stability_near_collapse
from theory.algebra.stability import largest_slope
from theory.numeric.configurations import Head, collapsed, generator_of, nearly_collapsed, normal, rows, simplex
from theory.numeric.noncollapsed import with_noise_in_span
from theory.numeric.oracle import kappa_matrix_free
from theory.numeric.stability import Case, at_logits, cases, exponential, logits, oscillation, raised, uneven_rows
from theory.proof import Proof

gaps = st.floats(-6, 10)


def impurity_of(z: np.ndarray) -> float:
    """The same from logits."""
    p = np.exp(z - z.max())
    p /= p.sum()
    return 2 * float(sum(x * y for x, y in itertools.combinations(p, 2)))


# The lemma.


@given(masses=st.lists(fractions, min_size=2, max_size=6), data=st.data())
def test_impurity_grows_by_at_most_the_spread_of_the_factors(masses: list[Fraction], data: st.DataObject) -> None:
    """U(p') <= e^osc U(p) in rational numbers: e^(z' - z) are the factors; strict unless they are all equal."""
    factors = data.draw(st.lists(fractions, min_size=len(masses), max_size=len(masses)))
    moved = [mass * factor for mass, factor in zip(masses, factors, strict=True)]
    spread = max(factors) / min(factors)
    if spread == 1:
        assert impurity(moved) == impurity(masses)
    else:
        assert impurity(moved) < spread * impurity(masses)
        assert impurity(masses) < spread * impurity(moved)


@pytest.mark.parametrize("K", [2, 3, 10, 1000])
def test_exponent_one_is_sharp(K: int) -> None:
    """Others raised by a factor 7 against a true class of 10^9: the ratio is within 10^-4 of 7, exactly."""
    sure = [Fraction(10**9), *[Fraction(1)] * (K - 1)]
    ratio = impurity([sure[0], *[Fraction(7)] * (K - 1)]) / impurity(sure)
    assert Fraction(7) * (1 - Fraction(1, 10**4)) < ratio < 7


@given(K=st.integers(2, 7), seed=seeds, t=st.floats(-1, 1))
def test_slope_of_the_impurity(K: int, seed: int, t: float) -> None:
    """U' = -2 sum p_s^2 (d_s - dbar) by automatic differentiation, and within osc(d) U."""
    z, d = normal(generator_of(seed), 2, K)
    at = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    p = torch.softmax(3 * z + at * d, dim=0)
    (slope,) = torch.autograd.grad(1 - p.square().sum(), at)
    p = p.detach()
    assert float(slope) == pytest.approx(float(-2 * (p.square() * (d - p @ d)).sum()), rel=1e-9, abs=1e-13)
    assert abs(float(slope)) < float((d.max() - d.min()) * (1 - p.square().sum()))


@pytest.mark.parametrize("exponent", [sympy.Rational(1, 2), sympy.Rational(99, 100)])
def test_algebra_does_not_prove_a_smaller_exponent(exponent: sympy.Rational) -> None:
    proof = Proof()
    largest_slope(proof, exponent)
    assert not all(step.holds for step in proof.steps)


def test_slope_bound_has_no_slack() -> None:
    """Some sets of classes come within any factor below 1 of it: a model of z3 satisfies the reverse."""
    share, first, second = z3.Reals("a alpha beta")
    solver = z3.Solver()
    solver.add(share > 0, share < 1, first > 0, first <= share**2, second > 0, second <= (1 - share) ** 2)
    solver.add(2 * ((1 - share) * first - share * second) > z3.Q(9999, 10000) * (1 - first - second))
    assert solver.check() == z3.sat


# B8.


@given(head=random_heads(), gap=gaps)
def test_sandwich_at_any_head_and_gap(head: Head, gap: float) -> None:
    kappa, (lower, upper) = kappa_matrix_free(head), exponential(Case("", head, gap))
    assert lower <= kappa * (1 + 1e-8) + 1e-13
    assert kappa <= upper * (1 + 1e-8) + 1e-13


@given(head=random_heads(), gap=gaps)
def test_sides_by_hand(head: Head, gap: float) -> None:
    W, H = head.weight.numpy(), head.features.numpy()
    z = H @ W.T + head.bias.numpy()
    z[np.arange(len(z)), head.labels.numpy()] -= gap
    omega = z.max(axis=1) - z.min(axis=1)
    squares = [((W[s] - W[t]) ** 2).sum() for s, t in itertools.combinations(range(len(W)), 2)]
    U = impurity_of(np.array([gap, *[0.0] * (len(W) - 1)]))
    norms = (H**2).sum(axis=1)
    lower, upper = exponential(Case("", head, gap))
    assert lower == pytest.approx(min(squares) / 2 * U * (norms * np.exp(-omega)).mean(), rel=1e-9)
    assert upper == pytest.approx(max(squares) / 2 * U * (norms * np.exp(omega)).mean(), rel=1e-9)


@given(K=st.integers(2, 6), gap=st.floats(0.5, 7), seed=seeds)
def test_closes_at_the_predicted_rate(K: int, gap: float, seed: int) -> None:
    """z = Delta e_y + t d: log(upper/kappa) = t (osc(d) + g (d_y - mean of the others)) + O(t^2), g = -U'/U."""
    d, h, weight = normal(generator_of(seed), K), normal(generator_of(seed + 1), K), simplex(K, K, 1.3, seed)
    q = math.exp(-gap)
    g = 2 * (1 - q) / ((2 + (K - 2) * q) * (1 + (K - 1) * q))
    tilt, osc = g * float(d[0] - d[1:].mean()), float(d.max() - d.min())
    for t in (1e-3, 1e-4):
        case = Case("", at_logits(raised(K, gap, torch.arange(0), 0.0) + t * d, weight, h), gap)
        kappa, (lower, upper) = kappa_matrix_free(case.head), exponential(case)
        assert math.log(upper / kappa) / t == pytest.approx(osc + tilt, abs=20 * t * osc**2 + 1e-5)
        assert math.log(kappa / lower) / t == pytest.approx(osc - tilt, abs=20 * t * osc**2 + 1e-5)


@given(K=st.integers(2, 5), seed=seeds, gamma=st.floats(0.1, 2))
def test_closes_as_a_whole_head_collapses(K: int, seed: int, gamma: float) -> None:
    """Noise s on features, weight and biases: log(upper/lower) falls in proportion to s."""
    widths = []
    for noise in (1e-2, 1e-3, 1e-4):
        head = nearly_collapsed(seed, K=K, m=K + 1, noise=noise, gap=4.0, gamma=gamma, counts=3)
        lower, upper = exponential(Case("", head, 4.0))
        assert lower <= kappa_matrix_free(head) <= upper
        widths.append(math.log(upper / lower))
    assert widths[1] / widths[0] == pytest.approx(0.1, rel=0.2)
    assert widths[2] / widths[1] == pytest.approx(0.1, rel=0.02)


@pytest.mark.parametrize("K", [2, 3, 6])
def test_large_deviations_reach_the_upper_side(K: int) -> None:
    """y lowered from Delta = 16 to Delta - omega: log(kappa/kappa at collapse) = omega, not log(1 + omega)."""
    weight, h = simplex(K, K), torch.ones(K, dtype=torch.float64)
    at_collapse = kappa_matrix_free(at_logits(raised(K, 16.0, torch.arange(0), 0.0), weight, h))
    for omega in (1.0, 4.0, 8.0):
        case = Case("", at_logits(raised(K, 16.0, torch.arange(1), -omega), weight, h), 16.0)
        kappa = kappa_matrix_free(case.head)
        assert math.log(kappa / at_collapse) == pytest.approx(omega, rel=1e-3)
        assert kappa <= exponential(case).upper * (1 + 1e-7)
        assert kappa > at_collapse * (1 + omega)


@pytest.mark.parametrize("K", [3, 6])
def test_mean_row_distance_fails_at_collapsed_outputs(K: int) -> None:
    """The long row's sample has more than the mean square distance, a short row's less."""
    z, h = raised(K, 5.0, torch.arange(0), 0.0), torch.ones(K, dtype=torch.float64)
    long = Case("", at_logits(raised(K, 5.0, torch.arange(0), 0.0, K - 1), uneven_rows(K), h, K - 1), 5.0)
    short = Case("", at_logits(z, uneven_rows(K), h), 5.0)
    assert kappa_matrix_free(long.head) > exponential(long, most=torch.mean).upper * 1.05
    assert kappa_matrix_free(short.head) < exponential(short, least=torch.mean).lower * 0.95


@given(K=st.integers(2, 5), counts=st.integers(1, 3), gap=st.floats(-3, 8), gamma=st.floats(0.1, 2))
def test_equality_at_collapse_and_only_there(K: int, counts: int, gap: float, gamma: float) -> None:
    """At negative gaps too; and neither side is reached once one logit moves."""
    head = collapsed(K, K=K, m=K, gap=gap, gamma=gamma, counts=counts)
    kappa = kappa_matrix_free(head)
    if abs(gap) > 1e-2:
        assert exponential(Case("", head, gap)) == pytest.approx((kappa, kappa), rel=1e-6)
    moved = head._replace(bias=head.bias + 0.01 * torch.eye(K, dtype=torch.float64)[0])
    lower, upper = exponential(Case("", moved, gap))
    kappa = kappa_matrix_free(moved)
    assert lower <= kappa * (1 - 1e-6 * (kappa > 0)) + 1e-15
    assert kappa <= upper * (1 - 1e-6) + 1e-15


# B8c.


@given(head=random_heads(), gap=gaps)
def test_near_collapse_bounds_hold(head: Head, gap: float) -> None:
    case = Case("", head, gap)
    kappa, (lower, upper) = kappa_matrix_free(head), stability_near_collapse.sides(case)
    assert lower <= kappa * (1 + 1e-8) + 1e-13
    assert kappa <= upper * (1 + 1e-8) + 1e-13


@given(head=random_heads(samples=st.integers(4, 9)))
def test_second_moment_by_shares(head: Head) -> None:
    """mean ||h||^2 = sum pi_c ||mu_c||^2 + Tr Sigma_W, class by class in numpy, whatever the imbalance."""
    H, y = head.features.numpy(), head.labels.numpy()
    found = 0.0
    for c in set(y.tolist()):
        mine = H[y == c]
        mu = mine.mean(axis=0)
        found += len(mine) / len(H) * (mu @ mu + ((mine - mu) ** 2).sum(axis=1).mean())
    assert found == pytest.approx((H**2).sum(axis=1).mean(), rel=1e-12)


@given(K=st.integers(2, 5), size=st.floats(0.01, 3), seed=seeds)
def test_oscillation_of_a_deviation_is_attained(K: int, size: float, seed: int) -> None:
    """v along the difference of the two farthest rows: osc(Wv) = D+ ||v||; any other direction has less."""
    weight = normal(generator_of(seed), K, 3)
    s, t = max(itertools.combinations(range(K), 2), key=lambda pair: float((weight[pair[0]] - weight[pair[1]]).norm()))
    row = weight[s] - weight[t]
    for v, equal in ((size * row / row.norm(), True), (size * normal(generator_of(seed + 1), 3), False)):
        moved = weight @ v
        osc = float(moved.max() - moved.min())
        assert osc <= float(row.norm() * v.norm()) * (1 + 1e-12)
        if equal:
            assert osc == pytest.approx(float(row.norm()) * size, rel=1e-9)


@pytest.mark.parametrize("K", [2, 3, 5])
def test_relative_noise_moves_kappa_exponentially_in_the_gap(K: int) -> None:
    """Noise of size 0.2 M towards the boundary: log(kappa/kappa at collapse)/Delta nears eta, and the bound holds."""
    eta, rates = 0.2 * math.sqrt(2 * (K - 1) / K), []
    for gap in (10.0, 20.0):
        head = collapsed(K, K=K, m=K, gap=gap, counts=2)
        noisy = with_noise_in_span(head, 0.2)
        kappa, at_collapse = kappa_matrix_free(noisy), kappa_matrix_free(head)
        lower, upper = stability_near_collapse.sides(Case("", noisy, gap))
        assert lower <= kappa <= upper * (1 + 1e-6)
        assert math.log(upper / at_collapse) / gap == pytest.approx(eta, abs=0.04)
        rates.append(math.log(kappa / at_collapse) / gap)
    assert rates[0] < rates[1] < eta
    # Half of the samples move towards one of K - 1 rivals, half as far towards the rest, and become shorter.
    shorter = 1 + 0.2**2 - 2 * 0.2 * math.sqrt(K / (2 * (K - 1)))
    share = shorter * (1 + (K - 2) * math.exp(-eta * 20 / 2)) / (2 * (K - 1))
    assert rates[1] == pytest.approx(eta + math.log(share) / 20, abs=2e-3)


def test_cases_reach_the_edges() -> None:
    """What certifies B8 holds heads on each of its edges: no deviation, uneven rows, U near 0 and near its largest."""
    found = cases(4)
    spread = [float(oscillation(logits(c.head), c.head.labels, c.gap).max()) for c in found]
    assert min(spread) < 1e-12 < 5 < max(spread)
    assert {len(c.head.weight) for c in found} >= {2, 3, 6}
    assert any(c.head.features.shape[1] == 1 for c in found)
    tight = [exponential(c).upper / kappa_matrix_free(c.head) for c in found]
    assert min(tight) < 1 + 1e-3


def test_equal_rows_have_zero_on_both_sides() -> None:
    head = at_logits(torch.tensor([1.0, 2.0, 0.5]).double(), torch.ones(3, 2).double(), torch.ones(2).double())
    assert exponential(Case("", head, 1.0)) == (0.0, 0.0)
    assert kappa_matrix_free(head) == pytest.approx(0.0, abs=1e-15)


def test_features_of_zero_have_any_oscillation_at_equality() -> None:
    """Why the iff asks only where h_i is not 0: the idle sample deviates by 3, and both sides are kappa."""
    zero, one = torch.zeros(2, dtype=torch.float64), rows([2.0, 0.0])
    weight = rows([1.5, 0.0], [-1.5, 0.0])
    head = Head(torch.stack([zero, one[0]]), weight, torch.zeros(2, dtype=torch.float64), torch.tensor([0, 0]))
    kappa = kappa_matrix_free(head)
    assert exponential(Case("", head, 6.0)) == pytest.approx((kappa, kappa), rel=1e-9)
