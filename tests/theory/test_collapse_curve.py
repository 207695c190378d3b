"""B1, B2 and B4 against exact Hessians on explicitly collapsed configurations.

Two channels that share no code: the dense Hessian of the definition by torch.func, and the formula.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cases import collapsed
from theory.formulas import gap_of_loss, kappa_at_collapse, softmax_impurity


def kappa_by_hessian(features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, labels: torch.Tensor) -> float:
    def loss(w: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(features @ w.T + bias, labels)

    return float(torch.einsum("sjtj,st->", torch.func.hessian(loss)(weight), weight @ weight.T))


@given(
    K=st.integers(2, 8),
    extra=st.integers(1, 3),
    gap=st.floats(0.1, 12),
    gamma=st.sampled_from([0.0, 0.7, 3.0]),
    radius=st.floats(0.2, 5),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_collapse_curve_is_the_hessians(K: int, extra: int, gap: float, gamma: float, radius: float, seed: int) -> None:
    configuration = collapsed(seed, K=K, m=K - 1 + extra, gap=gap, gamma=gamma, radius=radius, per_class=1)
    expected = kappa_by_hessian(*configuration)
    assert float(kappa_at_collapse(gap, K, gamma)) == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_fails_without_the_nc4_biases() -> None:
    """With a bias that is not NC4's the equality is lost."""
    features, weight, bias, labels = collapsed(1, K=4, m=6, gamma=1.0)
    wrong = bias + torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert kappa_by_hessian(features, weight, wrong, labels) != pytest.approx(
        float(kappa_at_collapse(4.0, 4, 1.0)), rel=1e-2
    )


def test_gamma_cannot_be_left_out() -> None:
    features, weight, bias, labels = collapsed(2, K=4, m=6, gamma=1.0)
    expected = kappa_by_hessian(features, weight, bias, labels)
    assert expected == pytest.approx(2 * float(kappa_at_collapse(4.0, 4)), rel=1e-8)


@pytest.mark.parametrize(
    ("K", "where", "value"),
    [
        (2, 2.39935728052, 0.439228839891),
        (3, 2.58384724609, 1.05272743555),
        (5, 2.84523200084, 2.15519586467),
        (10, 3.24671315743, 4.21153993851),
        (100, 4.87224052546, 15.8526667205),
    ],
)
def test_maximum_of_the_curve(K: int, where: float, value: float) -> None:
    """B4: the tabled maximum, found here by a search that knows nothing of the root equation."""
    gaps = np.linspace(0, 20, 200_001)
    curve = kappa_at_collapse(gaps, K)
    assert gaps[np.argmax(curve)] == pytest.approx(where, abs=2e-4)
    assert curve.max() == pytest.approx(value, rel=1e-8)


@given(K=st.integers(2, 200), loss=st.floats(1e-12, 0.6))
@settings(max_examples=100, deadline=None)
def test_gap_and_loss_are_inverse(K: int, loss: float) -> None:
    q = math.exp(-float(gap_of_loss(loss, K)))
    assert math.log1p((K - 1) * q) == pytest.approx(loss, rel=1e-9)


@given(K=st.integers(2, 200), share=st.floats(1e-9, 0.999))
@settings(max_examples=200, deadline=None)
def test_bound_by_the_loss(K: int, share: float) -> None:
    """B2: kappa <= 2 ((K-1)/K) x log^2((K-1)/(e^eps - 1)) for 0 < eps < log K."""
    loss = share * math.log(K)
    gap, x = float(gap_of_loss(loss, K)), -math.expm1(-loss)
    assert float(kappa_at_collapse(gap, K)) <= 2 * (K - 1) / K * x * gap**2 * (1 + 1e-12)


@pytest.mark.parametrize("K", [2, 10, 97])
def test_bound_is_sharp(K: int) -> None:
    """The ratio goes to 1, so the bound with any smaller constant is false."""
    loss = 1e-10
    gap, x = float(gap_of_loss(loss, K)), -math.expm1(-loss)
    assert float(kappa_at_collapse(gap, K)) / (2 * (K - 1) / K * x * gap**2) == pytest.approx(1, abs=1e-8)


def test_impurity_of_negative_gaps() -> None:
    p = torch.softmax(torch.tensor([-3.0, 0.0, 0.0, 0.0], dtype=torch.float64), dim=0)
    assert float(softmax_impurity(-3.0, 4)) == pytest.approx(float(1 - p.square().sum()), rel=1e-12)
    assert np.isfinite(softmax_impurity(-2000.0, 4))


def test_limits_are_numbers() -> None:
    assert float(gap_of_loss(1000.0, 10)) == pytest.approx(math.log(9) - 1000)
    assert float(kappa_at_collapse(float("inf"), 10)) == 0.0
    assert float(kappa_at_collapse(800.0, 10)) == 0.0
