"""B1 and its formulas against exact Hessians on explicitly collapsed configurations.

Channels that share no code: the dense Hessian of the definition (forward over reverse), Hessian-vector products
(reverse over reverse), and the formulas of theory.formulas, which know nothing of features.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import ClassMoments, collapse_report, relative_flatness
from tests.theory.strategies import collapsed_heads, nearly_collapsed_heads, seeds
from theory.formulas import gap_of_loss, kappa_at_collapse, softmax_impurity
from theory.numeric.broken_collapse import COLLAPSE, broken, gap_and_gamma
from theory.numeric.configurations import Head, collapsed, rotation
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free

Collapsed = tuple[Head, int, float, float]


@given(case=collapsed_heads(classes=st.integers(2, 7)))
def test_curve_is_the_dense_hessians(case: Collapsed) -> None:
    head, K, gap, gamma = case
    expected = kappa_by_hessian(head)
    assert float(kappa_at_collapse(gap, K, gamma)) == pytest.approx(expected, rel=1e-7, abs=1e-12)


@given(case=collapsed_heads(classes=st.integers(2, 12), counts=st.just(1)))
def test_curve_is_the_hessian_vector_products(case: Collapsed) -> None:
    head, K, gap, gamma = case
    assert float(kappa_at_collapse(gap, K, gamma)) == pytest.approx(kappa_matrix_free(head), rel=1e-7, abs=1e-12)


@given(case=collapsed_heads(classes=st.integers(2, 12)), direction=seeds, size=st.floats(0, 3))
def test_the_global_mean_may_point_anywhere(case: Collapsed, direction: int, size: float) -> None:
    """Only its norm enters, though an oblique mean gives the classes features of different norms."""
    head, K, gap, _ = case
    m = head.weight.shape[1]
    radius = float((head.features - head.features.mean(dim=0)).norm(dim=1).mean())
    mean = size * radius * rotation(direction, m)[0]
    oblique = collapsed(1, K=K, m=m, gap=gap, radius=radius, mean=mean)
    kappa = float(relative_flatness(oblique.features, oblique.weight, oblique.bias))
    assert kappa == pytest.approx(float(kappa_at_collapse(gap, K, size)), rel=1e-9)


@given(case=collapsed_heads())
def test_the_configurations_are_collapsed(case: Collapsed) -> None:
    """The strategy makes what it says, by metrics that do not come from it."""
    head, K, gap, gamma = case
    moments = ClassMoments(K, head.weight.shape[1]).update(head.features, head.labels)
    report = collapse_report(moments, head.weight, head.bias)
    assert report.nc1_trace_ratio < 1e-20
    assert report.nc2_etf < 1e-7
    assert report.nc3_duality < 1e-7
    assert report.global_mean_ratio == pytest.approx(gamma, abs=1e-7)
    assert gap_and_gamma(head)[0] == pytest.approx(gap, rel=1e-9)


@given(seed=seeds, shares=st.lists(st.integers(1, 5), min_size=2, max_size=5), size=st.floats(0, 3))
def test_class_shares_enter_with_an_oblique_mean(seed: int, shares: list[int], size: float) -> None:
    """Imbalance replaces 1 + gamma^2 by 1 + gamma^2 + 2 sum_c pi_c <mu_c - mu_G, mu_G>/M^2."""
    K = len(shares)
    mean = size * rotation(seed, K)[0]
    head = collapsed(seed, K=K, m=K, gap=3.0, radius=1.0, mean=mean, counts=shares)
    tilt = float((head.features - mean).mean(dim=0) @ mean)
    expected = (1 + size**2 + 2 * tilt) * float(kappa_at_collapse(3.0, K))
    assert kappa_by_hessian(head) == pytest.approx(expected, rel=1e-9)


@given(head=nearly_collapsed_heads(classes=st.integers(2, 6)))
def test_near_collapse_the_closed_form_is_still_the_hessians(head: Head) -> None:
    """Where the curve no longer holds, relative_flatness does: weight and features nearly aligned, biases noisy."""
    closed = float(relative_flatness(head.features, head.weight, head.bias))
    assert closed == pytest.approx(kappa_by_hessian(head), rel=1e-8)


def test_near_collapse_tends_to_the_curve() -> None:
    """The deviation is of second order in a within-class noise that averages to zero."""
    errors = []
    for noise in (0.02, 0.01):
        head = collapsed(2, K=4, m=5, gap=3.0, counts=2)
        direction = rotation(5, 5)[:1] * noise
        shaken = head._replace(features=head.features + direction * torch.tensor([[1.0], [-1.0]] * 4).double())
        errors.append(abs(kappa_by_hessian(shaken) - float(kappa_at_collapse(3.0, 4))))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("assumption", list(COLLAPSE))
def test_each_broken_configuration_breaks_one_assumption(assumption: str) -> None:
    """The counterexamples keep what they say they keep."""
    head = broken(assumption)
    moments = ClassMoments(3, 4).update(head.features, head.labels)
    report = collapse_report(moments, head.weight, head.bias)
    means = torch.stack([head.features[head.labels == c].mean(dim=0) for c in range(3)])
    nc4 = head.bias + head.weight @ means.mean(dim=0)
    state = {
        "NC1": report.nc1_trace_ratio < 1e-9,
        "NC2": report.nc2_etf < 1e-7,
        "NC3": report.nc3_duality < 1e-7,
        "NC4": float(nc4.std()) < 1e-9,
        "balanced": bool((head.labels.bincount() == head.labels.bincount()[0]).all()),
    }
    assert [name for name, holds in state.items() if not holds] == [assumption]


def test_gamma_cannot_be_left_out() -> None:
    head = collapsed(2, K=4, m=6, gamma=1.0)
    assert kappa_by_hessian(head) == pytest.approx(2 * float(kappa_at_collapse(4.0, 4)), rel=1e-8)


@given(K=st.integers(2, 200), share=st.floats(1e-12, 0.999))
def test_gap_and_loss_are_inverse(K: int, share: float) -> None:
    loss = share * math.log(K)
    q = math.exp(-float(gap_of_loss(loss, K)))
    assert math.log1p((K - 1) * q) == pytest.approx(loss, rel=1e-9)


def test_gap_of_the_measured_loss() -> None:
    """The loss by torch, the gap by the configuration."""
    assert float(gap_of_loss(collapsed(1, K=5, m=5, gap=3.3).loss, 5)) == pytest.approx(3.3, rel=1e-12)


@given(K=st.integers(2, 300), gap=st.floats(-30, 30))
def test_impurity_is_one_minus_the_squared_norm(K: int, gap: float) -> None:
    logits = torch.zeros(K, dtype=torch.float64)
    logits[0] = gap
    p = torch.softmax(logits, dim=0)
    off = float(p[1:].sum())
    direct = off * (1 + float(p[0])) - float(p[1:].square().sum())
    assert float(softmax_impurity(gap, K)) == pytest.approx(direct, rel=1e-9)


def test_impurity_of_negative_gaps() -> None:
    p = torch.softmax(torch.tensor([-3.0, 0.0, 0.0, 0.0], dtype=torch.float64), dim=0)
    assert float(softmax_impurity(-3.0, 4)) == pytest.approx(float(1 - p.square().sum()), rel=1e-12)
    assert np.isfinite(softmax_impurity(-2000.0, 4))


def test_limits_are_numbers() -> None:
    assert float(gap_of_loss(1000.0, 10)) == pytest.approx(math.log(9) - 1000)
    assert float(kappa_at_collapse(float("inf"), 10)) == 0.0
    assert float(kappa_at_collapse(800.0, 10)) == 0.0


def test_arrays_go_through_elementwise() -> None:
    gaps = np.array([0.5, 3.0, 9.0])
    curve = kappa_at_collapse(gaps, 7, 0.5)
    assert curve.shape == (3,)
    assert curve.tolist() == [float(kappa_at_collapse(float(gap), 7, 0.5)) for gap in gaps]
