"""D3: rates within the classes at the optimum of the free features, and growth at the origin.

Channels that share no code: exact joint Hessians and simulated flows know no rate; the numbers and formulas here are
written out in plain floats; the algebra has K, n, Delta as symbols.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.strategies import seeds
from theory.algebra.ufm_rates import EARLY, WITHIN, origin_by_algebra, within_by_algebra
from theory.numeric.configurations import Head, generator_of, normal, rotation
from theory.numeric.flows import free_features, runge_kutta
from theory.numeric.ufm_rates_measured import (
    joint_gradient,
    joint_hessian,
    minimised,
    optimum,
    rates_of,
    within_class,
    within_rates,
)
from theory.proof import Proof


@settings(max_examples=5)
@given(
    seed=seeds,
    K=st.integers(2, 4),
    extra=st.integers(0, 2),
    n=st.integers(2, 3),
    gap=st.floats(0.1, 8),
    ratio=st.floats(0.2, 5),
)
def test_within_class_rates(seed: int, K: int, extra: int, n: int, gap: float, ratio: float) -> None:
    m = K - 1 + extra
    head, decays = optimum(K, m, n, gap, ratio, seed)
    q = math.exp(-gap)
    one = [1 + gap / (1 + (K - 1) * q)] + [1 + gap / K] * (K - 2) + [1.0] * extra
    found = rates_of(joint_hessian(head, decays), within_class(head)) / decays[1]
    assert sorted(found.tolist()) == pytest.approx(sorted(one * (K * (n - 1))), rel=1e-8)


def test_optimum_is_stationary_and_an_optimiser_gets_no_lower() -> None:
    head, decays = optimum(3, 2, 2, 3.0, 0.5)
    assert float(joint_gradient(head, decays).abs().max()) < 1e-14
    found = minimised(3, 2, head.labels, decays, seed=0)
    assert torch.allclose(found.probabilities, head.probabilities, atol=1e-6)


def test_rates_in_numbers() -> None:
    """K = 3, Delta = 3, m = 3: 1 + 3/(1 + 2 e^-3) = 3.728332, 1 + 3/3 = 2 and 1."""
    head, decays = optimum(3, 3, 2, 3.0)
    found = rates_of(joint_hessian(head, decays), within_class(head)) / decays[1]
    assert found.unique_consecutive().numel() >= 3
    assert sorted(found.tolist())[::3] == pytest.approx([1.0, 2.0, 3.728331], rel=1e-6)


def test_within_class_perturbations_decay_at_their_rates() -> None:
    """A simulated flow of W and H from a small within-class perturbation at the optimum."""
    head, (decay_head, decay) = optimum(3, 3, 2, 2.0)
    hessian, basis = joint_hessian(head, (decay_head, decay)), within_class(head)
    values, vectors = torch.linalg.eigh(basis.T @ hessian @ basis)
    for index in (0, 4, 8):
        direction = (basis @ vectors[:, index])[head.weight.numel() :].reshape(head.features.shape)
        start = {"head": head.weight, "features": head.features + 1e-4 * direction}
        velocity = free_features(lambda _, state: state["head"], head.labels, decay, decay_head=decay_head)
        end = runge_kutta(velocity, start, 5.0, 40)
        left = float(((end["features"] - head.features) * direction).sum()) / 1e-4
        assert left == pytest.approx(math.exp(-5 * float(values[index])), rel=1e-4)


def test_rates_are_no_function_of_the_gap_where_the_optimum_is_the_origin() -> None:
    """K = 2, n = 1, l >= 1/2: Delta = 0 at every l, but the rates over l are 1 and 1 +- 1/(2l)."""
    zero = Head(*(torch.zeros(*shape, dtype=torch.float64) for shape in ((2, 1), (2, 1), (2,))), torch.arange(2))
    for decay in (0.6, 0.9):
        found = rates_of(joint_hessian(zero, (decay, decay))) / decay
        assert found.tolist() == pytest.approx([1 - 0.5 / decay, 1, 1, 1 + 0.5 / decay])


def test_rates_merge_at_gap_zero() -> None:
    """Where L >= 1/K the optimum is the origin and every within-class rate is l_H."""
    zero = Head(*(torch.zeros(*shape, dtype=torch.float64) for shape in ((4, 3), (2, 3), (2,))), torch.arange(4) % 2)
    found = rates_of(joint_hessian(zero, (0.9, 0.7)), within_class(zero))
    assert torch.allclose(found, torch.full_like(found, 0.7))
    assert torch.allclose(within_rates(zero, 0.0), torch.ones(6, dtype=torch.float64))


@pytest.mark.parametrize(("K", "n", "decay"), [(2, 1, 0.05), (3, 2, 0.02)])
def test_early_growth_of_a_simulated_flow(K: int, n: int, decay: float) -> None:
    """From 1e-6 the logarithm of the norm grows at 1/(K sqrt n) - l once the fastest directions lead."""
    generator, labels = generator_of(4), torch.arange(K).repeat_interleave(n)
    start = {"head": 1e-6 * normal(generator, K, 3), "features": 1e-6 * normal(generator, K * n, 3)}
    velocity = free_features(lambda _, state: state["head"], labels, decay, decay_head=decay)
    middle = runge_kutta(velocity, start, 20.0, 80)
    end = runge_kutta(velocity, middle, 2.0, 10)
    growth = math.log(float(end["head"].norm() / middle["head"].norm())) / 2
    assert growth == pytest.approx(1 / (K * math.sqrt(n)) - decay, rel=1e-2)


def test_early_clock_has_no_decay_and_the_late_one_has() -> None:
    """As l goes down a hundredfold growth at the origin stays, and the slowest late rates go down with it."""
    early, late = [], []
    for decay in (1e-2, 1e-4):
        gap = math.log(1 / decay - 1)  # K = 2, n = 1: L = l
        head, decays = optimum(2, 2, 1, gap)
        assert decays[0] == pytest.approx(decay)
        zero = head._replace(features=0 * head.features, weight=0 * head.weight)
        early.append(-float(rates_of(joint_hessian(zero, decays))[0]))
        rates = rates_of(joint_hessian(head, decays))
        late.append(float(rates[rates > 1e-9][0]))
    assert early == pytest.approx([0.49, 0.4999])
    assert late == pytest.approx([1e-2, 1e-4])


def test_all_rates_scale_with_the_decay_at_one_gap() -> None:
    """K = 3: n from 1 to 16 at one gap divides l and every rate by 4."""
    few_samples, many = (optimum(3, 2, n, 2.5) for n in (1, 16))
    assert few_samples[1][0] == pytest.approx(4 * many[1][0])
    slow = set(np.round(rates_of(joint_hessian(*many)).numpy() * 4, 9))
    assert set(np.round(rates_of(joint_hessian(*few_samples)).numpy(), 9)) <= slow


def test_rates_do_not_depend_on_the_rotation() -> None:
    head, decays = optimum(3, 3, 2, 2.0)
    turn = rotation(7, 3)
    turned = head._replace(features=head.features @ turn, weight=head.weight @ turn)
    assert torch.allclose(rates_of(joint_hessian(turned, decays)), rates_of(joint_hessian(head, decays)), atol=1e-12)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_algebra_refutes_another_rate(index: int) -> None:
    """One of the three rates off by a hundredth: its own step fails, and the trace of all."""
    claimed = list(WITHIN)
    claimed[index] = claimed[index] + sympy.Rational(1, 100)
    proof = Proof()
    within_by_algebra(proof, (claimed[0], claimed[1], claimed[2]))
    failed = [step.text.split(":")[0] for step in proof.steps if not step.holds]
    names = ("W^T u_c, once", "W^T x for x orthogonal to e_c and the ones, K - 2 times", "W x = 0, m - K + 1 times")
    assert failed == [names[index], "these are all"]


def test_algebra_refutes_growth_without_the_decay() -> None:
    proof = Proof()
    origin_by_algebra(proof, 2 * EARLY)
    assert not all(step.holds for step in proof.steps)
