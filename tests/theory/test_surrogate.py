"""C1, C2 and C3: the surrogate that published code logs, against kappa.

Channels that share no code: the surrogate is the library's formula, kappa here comes from the dense Hessian of the
definition (torch.func), from Hessian-vector products, or from enumerations over pairs of rows written out in numpy.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore.flatness import frobenius_surrogate, relative_flatness
from tests.theory.strategies import random_heads, seeds
from theory.algebra.class_symmetry import K
from theory.numeric.configurations import Head, collapsed, generator_of, normal, random_head, rotation, simplex
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free
from theory.numeric.surrogate import head_of, surrogate
from theory.proof import Proof
from theory.surrogate_is_gameable import _cap_by_squares as cap_by_squares
from theory.surrogate_ratio import _ratio_at_a_simplex as ratio_at_a_simplex
from theory.surrogate_upper_bound import _bound_by_pairs as bound_by_pairs


def shifted(head: Head, vector: torch.Tensor) -> Head:
    return head._replace(weight=head.weight + vector)


# C1.


@given(head=random_heads(), temperature=st.floats(1, 20))
def test_bound_at_temperatures_of_at_least_one(head: Head, temperature: float) -> None:
    assert kappa_by_hessian(head) <= surrogate(head, temperature=temperature) * (1 + 1e-9) + 1e-14


@given(head=random_heads(), low=st.floats(0.2, 5), high=st.floats(0.2, 5))
def test_surrogate_rises_with_the_temperature(head: Head, low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    assert surrogate(head, temperature=low) <= surrogate(head, temperature=high) * (1 + 1e-9) + 1e-14


@given(head=random_heads())
def test_gap_is_a_sum_over_pairs(head: Head) -> None:
    """s2 - kappa = mean ||h||^2 sum_{s<t} p_s p_t (||w_s + w_t||^2 + 2 sum of the other rows' squared norms)."""
    weight, p = head.weight.numpy(), head.probabilities.numpy()
    rows = (weight**2).sum(axis=1)
    gap = np.zeros(len(p))
    for s, t in itertools.combinations(range(len(weight)), 2):
        gap += p[:, s] * p[:, t] * (((weight[s] + weight[t]) ** 2).sum() + 2 * (rows.sum() - rows[s] - rows[t]))
    expected = float((gap * (head.features.numpy() ** 2).sum(axis=1)).mean())
    found = surrogate(head) - kappa_by_hessian(head)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9 * surrogate(head))


@given(seed=seeds, m=st.integers(1, 5), scale=st.floats(0.05, 2))
def test_two_opposite_rows_attain_it(seed: int, m: int, scale: float) -> None:
    head = random_head(seed, K=2, m=m, n=3, scale=scale)
    head = head._replace(weight=torch.stack([head.weight[0], -head.weight[0]]))
    assert surrogate(head) == pytest.approx(kappa_matrix_free(head), rel=1e-9)


@given(seed=seeds, K=st.integers(3, 6))
def test_never_attained_by_three_classes(seed: int, K: int) -> None:
    head = random_head(seed, K=K, m=3, n=3, scale=0.5)
    assert kappa_by_hessian(head) < surrogate(head) * (1 - 1e-6)


@pytest.mark.parametrize("K", [3, 4, 10])
def test_approached_by_every_number_of_classes(K: int) -> None:
    """Without biases too: the other rows are short and a feature along them is long."""
    ratios = []
    for short, long in ((1e-1, 1e1), (1e-3, 1e4), (1e-4, 3e5)):
        weight = torch.zeros(K, 2, dtype=torch.float64)
        weight[0, 0], weight[1, 0], weight[2:, 1] = 1.0, -1.0, -short
        features = torch.tensor([[0.0, long]], dtype=torch.float64)
        ratios.append(float(relative_flatness(features, weight)) / float(frobenius_surrogate(features, weight)))
    assert ratios[0] < ratios[1] < ratios[2] < 1 + 1e-12
    assert ratios[2] == pytest.approx(1, abs=1e-6)


def test_fails_at_a_low_temperature_only() -> None:
    """Opposite rows: s2 = kappa at 1, below it under 1 and above it over 1."""
    head = head_of(torch.tensor([[1.0, 0.5]], dtype=torch.float64), simplex(2, 2))
    kappa = kappa_by_hessian(head)
    assert surrogate(head, temperature=0.99) < kappa < surrogate(head, temperature=1.01)


@given(seed=seeds, temperature=st.floats(1, 5), norm=st.floats(0.05, 1))
def test_normalised_features_are_safe_inside_the_unit_ball(seed: int, temperature: float, norm: float) -> None:
    head = random_head(seed, K=4, m=3, n=4)
    head = head._replace(features=norm * head.features / head.features.norm(dim=1, keepdim=True))
    s2 = surrogate(head, temperature=temperature, normalize_features=True)
    assert kappa_by_hessian(head) <= s2 * (1 + 1e-9)


@given(norm=st.floats(1.1, 8), seed=seeds)
def test_normalised_features_fail_outside_it(norm: float, seed: int) -> None:
    """Opposite rows and temperature 1: kappa is ||h||^2 times the published penalty."""
    direction = rotation(seed, 3)[0]
    head = head_of(norm * direction[None], torch.stack([direction, -direction]) / 4)
    s2 = surrogate(head, normalize_features=True)
    assert kappa_by_hessian(head) == pytest.approx(norm**2 * s2, rel=1e-9)


@pytest.mark.parametrize("constant", [sympy.Rational(999, 1000), sympy.Rational(1, 2)])
def test_pairs_refute_a_smaller_constant(constant: sympy.Rational) -> None:
    proof = Proof()
    bound_by_pairs(proof, constant)
    assert [step.holds for step in proof.steps].count(False) == 1
    assert proof.steps[-1].holds is False


@pytest.mark.parametrize("classes", [2, 4])
def test_features_of_zero_attain_it_with_any_weight(classes: int) -> None:
    """Why the equality cases ask for some h_i that is not 0."""
    zero = head_of(torch.zeros(2, 3, dtype=torch.float64), normal(generator_of(classes), classes, 3))
    assert surrogate(zero) == kappa_by_hessian(zero) == 0.0


@given(seed=seeds, lean=st.floats(0.01, 1))
def test_two_rows_that_are_not_opposite_miss_it(seed: int, lean: float) -> None:
    """K = 2: s2 - kappa = mean ||h||^2 p (1 - p) ||w_1 + w_2||^2."""
    head = random_head(seed, K=2, m=2, n=3)
    head = head._replace(weight=torch.stack([head.weight[0], (lean - 1) * head.weight[0]]))
    p = head.probabilities[:, 0]
    gap = (
        float((head.features.square().sum(dim=1) * p * (1 - p)).mean())
        * lean**2
        * float(head.weight[0] @ head.weight[0])
    )
    assert surrogate(head) - kappa_matrix_free(head) == pytest.approx(gap, rel=1e-6, abs=1e-12)


def test_single_feature_dimension() -> None:
    """m = 1, K = 3, rows 2, -2, 1 and p uniform: kappa = Var = 3 - 1/9, s2 = 9 (2/3) = 6."""
    head = Head(
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([[2.0], [-2.0], [1.0]], dtype=torch.float64),
        torch.tensor([-2.0, 2.0, -1.0], dtype=torch.float64),
        torch.tensor([0]),
    )
    assert kappa_by_hessian(head) == pytest.approx(3 - 1 / 9)
    assert surrogate(head) == pytest.approx(6)


# C2.


@given(seed=seeds, classes=st.integers(2, 6), gap=st.floats(0.05, 6), gamma=st.floats(0, 3))
def test_ratio_at_collapse(seed: int, classes: int, gap: float, gamma: float) -> None:
    head = collapsed(seed, K=classes, m=classes, gap=gap, gamma=gamma)
    assert surrogate(head) == pytest.approx((classes - 1) * kappa_by_hessian(head), rel=1e-8)


@given(classes=st.integers(2, 6), seed=seeds, size=st.floats(0.1, 2))
def test_ratio_for_any_features_and_biases(classes: int, seed: int, size: float) -> None:
    """The features and the biases are random: no collapse."""
    weight = simplex(classes, classes - 1, size, seed)
    head = random_head(seed, K=classes, m=classes - 1, n=4)._replace(weight=weight)
    assert surrogate(head) == pytest.approx((classes - 1) * kappa_matrix_free(head), rel=1e-8)


@pytest.mark.parametrize(("classes", "ratio"), [(10, 9.0), (97, 96.0)])
def test_published_settings(classes: int, ratio: float) -> None:
    head = collapsed(K=classes, m=classes, gap=6.0)
    kappa = relative_flatness(head.features, head.weight, head.bias)
    assert surrogate(head) / float(kappa) == pytest.approx(ratio, rel=1e-9)


@given(seed=seeds, classes=st.integers(2, 6), size=st.floats(0.1, 3))
def test_shift_of_a_simplex_adds_to_the_ratio(seed: int, classes: int, size: float) -> None:
    """Rows of norm 1 and a shift v orthogonal to all of them: the ratio is (K - 1)(1 + ||v||^2)."""
    basis = rotation(seed, classes)
    weight = simplex(classes, classes - 1) @ basis[:-1]
    head = shifted(head_of(normal(generator_of(seed), 3, classes), weight), size * basis[-1])
    assert surrogate(head) == pytest.approx((classes - 1) * (1 + size**2) * kappa_by_hessian(head), rel=1e-8)


@given(seed=seeds)
def test_ratio_is_not_a_bound(seed: int) -> None:
    """Two opposite rows among five: the ratio may lie below K - 1 too."""
    bias = torch.tensor([0.0, 0.0, -4.0, -4.0, -4.0], dtype=torch.float64)
    weight = torch.zeros(5, 2, dtype=torch.float64)
    weight[0, 0], weight[1, 0] = 0.3, -0.3
    head = head_of(normal(generator_of(seed), 3, 2), weight, bias)
    assert surrogate(head) < 2 * kappa_by_hessian(head)


@pytest.mark.parametrize("claimed", [K, K - 2, sympy.Integer(1)])
def test_algebra_refutes_other_ratios(claimed: sympy.Expr) -> None:
    proof = Proof()
    ratio_at_a_simplex(proof, claimed)
    assert [step.holds for step in proof.steps] == [True, True, False]


# C3.


@given(head=random_heads(), size=st.floats(-30, 30), seed=seeds)
def test_shift_changes_neither_outputs_nor_kappa(head: Head, size: float, seed: int) -> None:
    moved = shifted(head, size * normal(generator_of(seed), head.weight.shape[1]))
    assert torch.allclose(moved.probabilities, head.probabilities, rtol=1e-8, atol=1e-12)
    assert kappa_by_hessian(moved) == pytest.approx(kappa_by_hessian(head), rel=1e-6, abs=1e-9)


@given(head=random_heads(), seed=seeds)
def test_shift_drives_the_surrogate_to_infinity(head: Head, seed: int) -> None:
    """s2 / t^2 -> K ||v||^2 mean (1 - ||p||^2) ||h||^2."""
    v = normal(generator_of(seed), head.weight.shape[1])
    moved = shifted(head, 1e6 * v)
    p = head.probabilities.numpy()
    factor = float(((1 - (p**2).sum(axis=1)) * (head.features.numpy() ** 2).sum(axis=1)).mean())
    expected = len(head.weight) * float(v.square().sum()) * factor
    assert surrogate(moved) / 1e12 == pytest.approx(expected, rel=1e-3)


@given(head=random_heads(), temperature=st.floats(0.3, 4))
def test_cap_holds_at_every_temperature(head: Head, temperature: float) -> None:
    cap = float(head.weight.square().sum()) * (1 - 1 / len(head.weight))
    assert surrogate(head, temperature=temperature, normalize_features=True) <= cap * (1 + 1e-12)


@pytest.mark.parametrize(("cap", "classes", "value"), [(50.0, 10, 2250), (150.0, 100, 22275), (30.0, 5, 720)])
def test_published_caps(cap: float, classes: int, value: float) -> None:
    weight = torch.zeros(classes, 4, dtype=torch.float64)
    weight += rotation(0, 4)[0] * cap / math.sqrt(classes)
    features = normal(generator_of(0), 5, 4)
    assert float(weight.norm()) == pytest.approx(cap)
    assert float(frobenius_surrogate(features, weight, normalize_features=True)) == pytest.approx(value)
    assert float(relative_flatness(features, weight)) < 1e-12


def test_maximiser_may_be_sharp_where_features_do_not_span() -> None:
    """Rows apart in a direction that no feature has: s2 at its cap, kappa at its largest for uniform p."""
    features = torch.tensor([[1.0, 0.0, 0.0], [-2.0, 0.0, 0.0]], dtype=torch.float64)
    weight = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    head = head_of(features, weight)
    assert surrogate(head, normalize_features=True) == pytest.approx(2 * (1 - 1 / 2))
    assert kappa_by_hessian(head) == pytest.approx(2.5 * 2 / 2)


def test_unequal_biases_miss_the_cap() -> None:
    head = head_of(torch.eye(2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64))
    tilted = head._replace(bias=torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))
    assert surrogate(head, normalize_features=True) == pytest.approx(4.0)
    assert surrogate(tilted, normalize_features=True) < 3.9


def test_no_cap_of_zero_has_the_converse() -> None:
    """B = 0 is excluded from the iff: W = 0 attains the cap of 0 whatever the biases make of p."""
    zero = head_of(torch.eye(2, dtype=torch.float64), torch.zeros(3, 2, dtype=torch.float64))
    tilted = zero._replace(bias=torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64))
    assert surrogate(tilted, normalize_features=True) == 0.0
    assert float(tilted.probabilities[0].max()) > 0.9


@pytest.mark.parametrize("claimed", [1 - 2 / K, 1 - 1 / (K - 1), (K - 1) / (K + 1)])
def test_squares_refute_a_lower_cap(claimed: sympy.Expr) -> None:
    proof = Proof()
    cap_by_squares(proof, claimed)
    assert not any(step.holds for step in proof.steps)
