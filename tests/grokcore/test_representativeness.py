"""generalisation_gap: its parts by quadrature, by kappa, by its bounds; and what they are not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grokcore import NonFiniteError, UsageError, generalisation_gap, relative_flatness
from tests.cases import collapsed, random_head


def problem(seed: int, **sizes: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    train, weight, bias, labels = random_head(seed, **sizes)
    test, _, _, test_labels = random_head(seed + 1, **sizes)
    return train, labels, test, test_labels, weight, bias


def two_class_rise(gap: float, deviation: float) -> float:
    """E log(1 + e^-(gap + deviation N)) - log(1 + e^-gap) by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    values = np.logaddexp(0, -(gap + deviation * nodes))
    return float(weights @ values / math.sqrt(2 * math.pi) - np.logaddexp(0, -gap))


@pytest.mark.parametrize("gap", [0.0, 2.0, 12.0])
@pytest.mark.parametrize("spread", [0.05, 1.0, 8.0])
def test_two_classes_by_quadrature(gap: float, spread: float) -> None:
    """Rows +-(1, 0): the logits' difference moves by a normal number of deviation 2 sigma."""
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    train, labels = torch.tensor([[gap / 2, 3.0]], dtype=torch.float64), torch.tensor([0])
    expected = two_class_rise(gap, 2 * spread)
    norm = float(torch.linalg.vector_norm(train))
    for found in (
        generalisation_gap(train, labels, train, labels, weight, noise=spread, probes=20_000),
        generalisation_gap(train, labels, train, labels, weight, size=spread * math.sqrt(2) / norm, probes=20_000),
    ):
        rob = found.robustness
        assert abs(rob.value - expected) <= 4 * rob.stderr + 1e-12
        assert rob.stderr < 0.05 * expected
        assert found.representativeness.value == pytest.approx(-rob.value)  # the test set is the train set


@given(seed=st.integers(0, 10_000), K=st.integers(2, 5), m=st.integers(1, 4))
def test_the_parts_are_the_gap_and_flatness_is_the_leading_one(seed: int, K: int, m: int) -> None:
    train, labels, test, test_labels, weight, bias = problem(seed, n=4, m=m, K=K)
    losses = [
        float(torch.nn.functional.cross_entropy(torch.nn.functional.linear(h, weight, bias), y))
        for h, y in ((test, test_labels), (train, labels))
    ]
    kappa = float(relative_flatness(train, weight, bias))
    for size in (1e-3, 0.5):
        found = generalisation_gap(train, labels, test, test_labels, weight, bias, size=size, probes=16)
        assert found.gap == pytest.approx(losses[0] - losses[1], abs=1e-12)
        assert found.representativeness.value + found.robustness.value == pytest.approx(found.gap, abs=1e-12)
        assert found.leading == pytest.approx(kappa * size**2 / (2 * m), rel=1e-9)
        assert found.robustness.value >= -1e-14
        assert found.robustness.value <= found.bound + 5 * found.robustness.stderr
    small = generalisation_gap(train, labels, test, test_labels, weight, bias, size=1e-3, probes=16)
    assert small.robustness.value == pytest.approx(small.leading, rel=1e-3)
    assert small.robustness.stderr <= 1e-3 * small.leading


def test_noise_of_one_size_is_not_what_kappa_bounds() -> None:
    """Halving the features and doubling the head leaves kappa and the relative densities alone, not a kernel's."""
    train, labels, test, test_labels, weight, bias = problem(3, n=50, m=6, K=4)
    plain = (train, labels, test, test_labels, weight, bias)
    scaled = (train / 2, labels, test / 2, test_labels, weight * 2, bias)
    relative = [generalisation_gap(*each, size=0.3).robustness.value for each in (plain, scaled)]
    assert relative[0] == pytest.approx(relative[1])
    kernel = [generalisation_gap(*each, noise=0.3).robustness.value for each in (plain, scaled)]
    assert kernel[1] > 2 * kernel[0]
    same = generalisation_gap(*scaled, noise=0.15).robustness.value
    assert same == pytest.approx(kernel[0])


def test_the_spread_of_the_test_losses() -> None:
    train, labels, test, test_labels, weight, bias = problem(5, n=40, m=6, K=4)
    found = generalisation_gap(train, labels, test, test_labels, weight, bias, size=0.1)
    losses = torch.nn.functional.cross_entropy(
        torch.nn.functional.linear(test, weight, bias), test_labels, reduction="none"
    )
    assert found.gap_stderr == pytest.approx(float(losses.std()) / math.sqrt(40))


def test_sure_heads_and_many_probes() -> None:
    """A saturated head's rise keeps its digits, and its probes are the same however they are cut into blocks."""
    train, weight, bias, labels = collapsed(0, K=4, m=5, gap=30.0, gamma=0.3)
    few = generalisation_gap(train, labels, train, labels, weight, bias, size=0.02, probes=4)
    assert few.robustness.value == pytest.approx(few.leading, rel=0.1)
    large = train.repeat(2**20 // len(train), 1)
    many = generalisation_gap(
        large, labels.repeat(len(large) // len(train)), train, labels, weight, bias, size=0.02, probes=4
    )
    assert many.robustness.value == pytest.approx(few.robustness.value, rel=1e-3)


@pytest.mark.parametrize("gap", [20.0, 40.0, 100.0])
def test_a_sure_heads_rise_is_not_rounded_away(gap: float) -> None:
    """In float64 log(1 + e^-40) is 0: a narrow density's rise is its leading term all the same, between 0 and bound."""
    train, weight, bias, labels = collapsed(0, K=4, m=5, gap=gap, gamma=0.3)
    found = generalisation_gap(train, labels, train, labels, weight, bias, size=1e-5, probes=64)
    assert found.leading > 0
    assert found.robustness.value == pytest.approx(found.bound, rel=1e-6, abs=0)
    assert found.robustness.stderr < 1e-6 * found.leading
    still = generalisation_gap(train, labels, train, labels, weight, bias, size=0.0, probes=4)
    assert (still.robustness.value, still.robustness.stderr, still.leading, still.bound) == (0, 0, 0, 0)


def test_wide_densities_and_the_ends_of_float64() -> None:
    train, labels, test, test_labels, weight, bias = problem(2, n=5, m=3, K=4)
    data = (train, labels, test, test_labels, weight, bias)
    plain = generalisation_gap(*data, size=0.5)
    for scale in (1e200, 1e-200):
        found = generalisation_gap(train * scale, labels, test * scale, test_labels, weight / scale, bias, size=0.5)
        assert found.robustness.value == pytest.approx(plain.robustness.value, rel=1e-9)
        assert found.leading == pytest.approx(plain.leading, rel=1e-9)
    # Far out the loss is linear in the width: exponents beyond the largest float64 among them.
    far, farther = (generalisation_gap(*data, noise=width).robustness for width in (1e4, 1e5))
    assert farther.value == pytest.approx(10 * far.value, rel=1e-3)
    with pytest.raises(NonFiniteError, match="too wide"):
        generalisation_gap(*data, noise=1e200)


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_input() -> None:
    train, labels, test, test_labels, weight, bias = problem(0, n=3, m=4, K=3)
    good = (train, labels, test, test_labels, weight, bias)
    with pytest.raises(UsageError, match="two probes"):
        generalisation_gap(*good, size=0.1, probes=1)
    for sizes in ({}, {"size": 0.1, "noise": 0.1}):
        with pytest.raises(UsageError, match="one of size and noise"):
            generalisation_gap(*good, **sizes)
    with pytest.raises(UsageError, match="noise must be a finite number"):
        generalisation_gap(*good, noise=-1.0)
    with pytest.raises(UsageError, match=r"labels in \[0, 3\)"):
        generalisation_gap(train, labels + 3, *good[2:], size=0.1)
    with pytest.raises(UsageError, match="labels in"):
        generalisation_gap(train, labels, test, test_labels[:2], weight, bias, size=0.1)
    with pytest.raises(UsageError, match="head's m"):
        generalisation_gap(train, labels, test[:, :2], test_labels, weight, bias, size=0.1)
    with pytest.raises(UsageError, match="as many labels"):
        generalisation_gap(train, labels[:, None], test, test_labels, weight, bias, size=0.1)
    with pytest.raises(NonFiniteError):
        generalisation_gap(train, labels, test * math.nan, test_labels, weight, bias, size=0.1)
