"""B9: the price of non-negative features.

Independent channels: inner products of class means, written out here, and exact Hessians.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.theory.strategies import collapsed_heads, seeds
from theory.formulas import softmax_impurity
from theory.numeric.collapse_spectrum import aligned_head
from theory.numeric.configurations import Head, collapsed, generator_of, normal, simplex
from theory.numeric.noncollapsed import collapse_of
from theory.numeric.oracle import kappa_by_hessian
from theory.relu_price import nonnegative_simplices

FEW = st.integers(2, 4)


@given(seed=seeds, K=st.integers(2, 12), m=st.integers(1, 12))
def test_nonnegative_means_force_a_global_mean(seed: int, K: int, m: int) -> None:
    """(K-1) ||mu_G||^2 >= M^2 for any non-negative means, simplex or not: rows after a ReLU."""
    means = normal(generator_of(seed), K, m).relu()
    centre = means.mean(dim=0)
    assert (K - 1) * float(centre.square().sum()) >= float((means - centre).square().sum()) / K - 1e-12


@given(seed=seeds, K=st.integers(2, 8))
def test_disjoint_supports_are_the_equality(seed: int, K: int) -> None:
    """Any non-negative rows on their own blocks, of any norms: equality; one shared entry: strict."""
    rows = normal(generator_of(seed), K, 2).abs() + 0.1
    means = torch.block_diag(*rows.unbind(0))

    def excess(means: Tensor) -> float:
        centre = means.mean(dim=0)
        return (K - 1) * float(centre.square().sum()) - float((means - centre).square().sum()) / K

    assert excess(means) == pytest.approx(0.0, abs=1e-12 * float(means.square().sum()))
    means[1, 0] += 0.2
    assert excess(means) == pytest.approx(2 * float(means[0, 0]) * 0.2 / K)


@given(drawn=collapsed_heads(classes=FEW, gaps=st.floats(0.1, 9)))
def test_exact_price_for_any_sign(drawn: tuple[Head, int, float, float]) -> None:
    """kappa = Delta^2 U (1 + S/(K M)^2) at every collapsed head, S the sum of <mu_j, mu_c> over pairs."""
    head, K, gap, _ = drawn
    means = head.features[:: len(head.features) // K]
    overlap = float((means @ means.T).fill_diagonal_(0.0).sum())
    square = float((means - means.mean(dim=0)).square().sum()) / K
    claimed = gap**2 * float(softmax_impurity(gap, K)) * (1 + overlap / (K**2 * square))
    assert kappa_by_hessian(head) == pytest.approx(claimed, rel=1e-8)


def test_one_hot_by_hand() -> None:
    """K = 3, Delta = log 4: U = 1/2, kappa = log(4)^2/2 by the exact Hessian; a centred simplex pays 2/3 of it."""
    one_hot = aligned_head(torch.eye(3, dtype=torch.float64), math.log(4))
    assert kappa_by_hessian(one_hot) == pytest.approx(math.log(4) ** 2 / 2, rel=1e-11)
    centred = kappa_by_hessian(collapsed(K=3, m=2, gap=math.log(4)))
    assert centred == pytest.approx(math.log(4) ** 2 / 3, rel=1e-11)


@pytest.mark.parametrize("K", [2, 3, 6])
def test_simplices_are_nonnegative_and_simplices(K: int) -> None:
    for name, means in nonnegative_simplices(K).items():
        assert float(means.min()) >= 0, name
        assert collapse_of(aligned_head(means, 3.0)).nc2_etf < 1e-12, name


def test_two_classes_of_unequal_norms() -> None:
    """K = 2: means 3 e_1 and e_2 are disjoint, so kappa = Delta^2 U although mu_G leans."""
    means = torch.tensor([[3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    expected = 4.0 * float(softmax_impurity(2.0, 2))
    assert kappa_by_hessian(aligned_head(means, 2.0)) == pytest.approx(expected, rel=1e-11)


def test_too_few_features_for_disjoint_supports() -> None:
    """m = K - 1: a non-negative simplex exists (an equilateral triangle in the quadrant) but pays strictly more."""
    triangle = simplex(3, 2, 1.0)
    means = triangle - triangle.min(dim=0).values
    gamma_squared = float(means.mean(dim=0).square().sum())
    assert gamma_squared > 0.5 + 0.1
    expected = 9.0 * float(softmax_impurity(3.0, 3)) * (1 + gamma_squared) * 2 / 3
    assert kappa_by_hessian(aligned_head(means, 3.0)) == pytest.approx(expected, rel=1e-10)


@given(seed=seeds, K=FEW, extra=st.integers(-1, 3), gap=st.floats(0.1, 9), lift=st.floats(0, 2))
def test_any_simplex_pushed_into_the_orthant_pays(seed: int, K: int, extra: int, gap: float, lift: float) -> None:
    """A simplex in a random rotation, shifted until every entry is >= 0: never below Delta^2 U."""
    centred = simplex(K, K + extra, 1.0, seed=seed)
    raised = lift * normal(generator_of(seed), K + extra).abs()
    head = aligned_head(centred - centred.min(dim=0).values + raised, gap)
    assert kappa_by_hessian(head) >= gap**2 * float(softmax_impurity(gap, K)) * (1 - 1e-9)
