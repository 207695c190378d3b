"""D3: balance of two linear layers, and contraction within classes (rates: test_rates.py).

Channels that share no code: simulated flows (Runge-Kutta on automatic gradients) know no law; derivatives at one
point come from automatic gradients alone; the algebra is words in matrices of any size.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.theory.strategies import seeds
from theory.balance import descent_by_algebra, flow_by_algebra
from theory.numeric.configurations import generator_of, normal
from theory.numeric.flows import Network, State, balance, free_features, gradients, off_the_law, runge_kutta
from theory.proof import Proof

few = settings(max_examples=5)  # each example integrates a flow


def law_error(network: Network, steps: int = 40) -> float:
    start, end = network.flow(steps=steps)
    return off_the_law(start, end, math.exp(-2 * network.decay))


# Runge-Kutta itself, on equations with known solutions.


def test_runge_kutta_has_order_four() -> None:
    exact = math.exp(math.sin(1.5))

    def velocity(t: float, state: State) -> State:
        return {"x": math.cos(t) * state["x"]}

    start = {"x": torch.ones((), dtype=torch.float64)}
    errors = [abs(float(runge_kutta(velocity, start, 1.5, steps)["x"]) - exact) for steps in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.1)


# Balance.


@few
@given(seed=seeds, decay=st.floats(0, 1))
def test_balance_decays_exponentially(seed: int, decay: float) -> None:
    assert law_error(Network(seed=seed, decay=decay, scale=0.6)) < 1e-4


def test_balance_error_is_that_of_the_integrator() -> None:
    """Half the step, a sixteenth of the error: nothing but Runge-Kutta is left."""
    coarse, fine = law_error(Network(), 40), law_error(Network(), 80)
    assert coarse / fine == pytest.approx(16, rel=0.15)


def test_inner_bias_breaks_balance_and_its_square_mends_it() -> None:
    """d/dt (D - a a^T) = -2l (D - a a^T) where the bias a of layer L - 1 decays too."""
    network = Network(inner_bias=True)
    start, end = network.flow(steps=80)
    factor = math.exp(-2 * network.decay)
    assert off_the_law(start, end, factor) > 1e-2
    assert off_the_law(start, end, factor, lambda s: balance(s) - torch.outer(s["inner"], s["inner"])) < 1e-6


def test_inner_bias_breaks_it_through_the_last_bias_gradient() -> None:
    """dD/dt + 2lD = -(W^T G 1 a^T + a 1^T G^T W): it vanishes once the bias of the last layer is stationary."""
    network = Network(inner_bias=True)
    state = network.start()
    velocity = network.descent(state)
    slope = velocity["last"].T @ state["last"] - velocity["before"] @ state["before"].T
    slope = slope + slope.T + 2 * network.decay * balance(state)
    pushed = torch.outer(state["last"].T @ gradients(network.data_loss, state)["b"], state["inner"])
    assert float(slope.norm()) > 1e-2
    assert torch.allclose(slope, -(pushed + pushed.T), atol=1e-12)


def test_relu_between_keeps_the_diagonal_only() -> None:
    """Neuron by neuron the law survives a positively homogeneous activation."""
    network = Network(between=torch.relu)
    start, end = network.flow(steps=60)
    factor = math.exp(-2 * network.decay)
    assert off_the_law(start, end, factor) > 1e-2
    assert off_the_law(start, end, factor, lambda s: balance(s).diagonal()) < 1e-4


def test_tanh_between_keeps_nothing() -> None:
    network = Network(between=torch.tanh)
    start, end = network.flow()
    assert off_the_law(start, end, math.exp(-2 * network.decay), lambda s: balance(s).diagonal()) > 1e-3


def test_different_decays_leave_a_source() -> None:
    """dD/dt = -2 l_L D - 2 (l_L - l_{L-1}) W_{L-1} W_{L-1}^T."""
    network = Network(decay=0.3, decay_before=0.1)
    state = network.start()
    velocity = network.descent(state)
    slope = velocity["last"].T @ state["last"] - velocity["before"] @ state["before"].T
    expected = -0.6 * balance(state) - 0.4 * state["before"] @ state["before"].T
    assert torch.allclose(slope + slope.T, expected, atol=1e-12)


def test_any_stochastic_gradient_flow_keeps_balance() -> None:
    """The law asks nothing of the labels: they change halfway."""
    first, second = Network(scale=0.7), Network(scale=0.7, labels=torch.arange(8).flip(0) % 3)
    start, middle = first.flow(time=0.5, steps=50)
    end = runge_kutta(lambda _, state: second.descent(state), middle, 0.5, 50)
    assert off_the_law(start, end, math.exp(-2 * first.decay)) < 1e-6


def test_without_decay_balance_is_conserved() -> None:
    start, end = Network(decay=0.0, scale=0.7).flow(steps=80)
    assert off_the_law(start, end, 1.0) < 1e-6


def test_gradient_descent_errors_by_orders() -> None:
    """Against exp(-2 l eta) a step is off by O(eta^2), and 1/eta steps by O(eta)."""
    network = Network()
    steps, runs = [], []
    for rate in (0.02, 0.01):
        states = network.gradient_descent(rate, round(1 / rate))
        steps.append(off_the_law(states[0], states[1], math.exp(-2 * network.decay * rate)))
        runs.append(off_the_law(states[0], states[-1], math.exp(-2 * network.decay)))
    assert steps[0] / steps[1] == pytest.approx(4, rel=0.05)
    assert runs[0] / runs[1] == pytest.approx(2, rel=0.1)


def test_momentum_breaks_balance() -> None:
    network, state = Network(scale=0.7), Network(scale=0.7).start()

    def velocity(_: float, both: State) -> State:
        place = {name: both[name] for name in state}
        push = network.descent(place)
        speed = {f"speed {name}": push[name] - both[f"speed {name}"] for name in state}
        return {name: both[f"speed {name}"] for name in state} | speed

    start = state | {f"speed {name}": torch.zeros_like(value) for name, value in state.items()}
    end = runge_kutta(velocity, start, 2.0, 40)
    errors = [off_the_law(start, end, math.exp(-2 * network.decay * time)) for time in np.linspace(0, 2, 21)]
    assert min(errors) > 1e-2


# Contraction within a class.


def contract(seed: int, *, K: int, m: int, decay: float, time: float, swing: float = 2.0) -> tuple[Tensor, Tensor]:
    """Distances of all pairs of a class, before and after a flow under a head that swings."""
    generator = generator_of(seed)
    labels = torch.arange(K).repeat_interleave(3)
    fixed, moving = normal(generator, K, m), swing * normal(generator, K, m)
    velocity = free_features(lambda t, _: fixed + math.cos(5 * t) * moving, labels, decay)
    start = {"features": normal(generator, 3 * K, m)}
    end = runge_kutta(velocity, start, time, 40)
    pairs = labels[:, None] == labels
    first, last = (torch.cdist(state["features"], state["features"])[pairs] for state in (start, end))
    return first, last


@few
@given(seed=seeds, K=st.integers(2, 5), m=st.integers(1, 4), decay=st.floats(0, 1), time=st.floats(0.1, 2))
def test_one_class_contracts_whatever_the_head_does(seed: int, K: int, m: int, decay: float, time: float) -> None:
    first, last = contract(seed, K=K, m=m, decay=decay, time=time)
    assert bool((last <= math.exp(-decay * time) * first * (1 + 1e-6) + 1e-12).all())


def test_rate_is_attained_where_no_row_looks() -> None:
    """A difference orthogonal to all rows decays as exp(-l_H t) exactly: no larger rate holds."""
    weight = torch.cat([normal(generator_of(0), 3, 3), torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    features = normal(generator_of(1), 1, 4).repeat(2, 1)
    features[1, 3] += 2.0
    velocity = free_features(lambda _, __: weight, torch.tensor([1, 1]), 0.4)
    ended = runge_kutta(velocity, {"features": features}, 1.0, 40)["features"]
    assert float((ended[0] - ended[1]).norm()) == pytest.approx(2 * math.exp(-0.4), rel=1e-7)


@given(seed=seeds, K=st.integers(2, 8), scale=st.floats(0.01, 10))
def test_softmax_is_monotone(seed: int, K: int, scale: float) -> None:
    """<z - z', p - p'> is the symmetrised divergence of p and p'."""
    z, other = (scale * normal(generator_of(seed), 2, K)).unbind()
    p, q = torch.softmax(z, dim=0), torch.softmax(other, dim=0)
    inner = float((z - other) @ (p - q))
    log_p, log_q = torch.log_softmax(z, dim=0), torch.log_softmax(other, dim=0)
    assert inner >= 0
    assert inner == pytest.approx(float((p * (log_p - log_q)).sum() + (q * (log_q - log_p)).sum()), rel=1e-7, abs=1e-10)


def test_per_sample_flow_is_n_times_as_fast() -> None:
    """Without the 1/N of the mean, and with N l_H for l_H, it is the same path N times as fast."""
    labels, weight = torch.tensor([0, 0, 1, 1]), normal(generator_of(2), 2, 3)
    start = {"features": normal(generator_of(3), 4, 3)}

    def summed(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs, targets, reduction="sum")

    slow = runge_kutta(free_features(lambda _, __: weight, labels, 0.1), start, 2.0, 40)
    fast = runge_kutta(free_features(lambda _, __: weight, labels, 0.4, loss=summed), start, 0.5, 40)
    assert torch.allclose(slow["features"], fast["features"], atol=1e-12)


def test_algebra_refutes_exact_descent_only() -> None:
    flow, descent = Proof(), Proof()
    flow_by_algebra(flow)
    descent_by_algebra(descent, exact=True)
    assert all(step.holds for step in flow.steps)
    assert [step.text for step in descent.steps if not step.holds] == ["a step of gradient descent"]


def test_two_samples_of_a_convex_loss_that_is_not_the_cross_entropy_approach() -> None:
    """Sums of |z_s - y|^4 are convex; softmax plays no part."""

    def quartic(outputs: Tensor, labels: Tensor) -> Tensor:
        return ((outputs - labels[:, None]) ** 4).sum(dim=1).mean()

    generator = generator_of(4)
    weight, features = normal(generator, 3, 2) / 2, normal(generator, 2, 2)
    velocity = free_features(lambda t, _: math.cos(5 * t) * weight, torch.tensor([1, 1]), 0.3, loss=quartic)
    ended = runge_kutta(velocity, {"features": features}, 1.0, 80)["features"]
    first, last = (float((state[0] - state[1]).norm()) for state in (features, ended))
    assert last < math.exp(-0.3) * first


@few
@given(seed=seeds, rate=st.floats(0.05, 0.6), steps=st.integers(1, 12))
def test_descent_is_the_geometric_sum_of_what_its_steps_add(seed: int, rate: float, steps: int) -> None:
    """D_k = r^k D_0 + eta^2 sum_j r^(k-1-j) E_j, whose sum of weights is (1 - r^k)/(1 - r) <= 1/(eta l (2 - eta l))."""
    network = Network(seed=seed, scale=0.6)
    states, kept = network.gradient_descent(rate, steps), (1 - rate * network.decay) ** 2
    total = kept**steps * balance(states[0])
    for j, state in enumerate(states[:-1]):
        slope = gradients(network.data_loss, state)
        added = slope["last"].T @ slope["last"] - slope["before"] @ slope["before"].T
        total = total + rate**2 * kept ** (steps - 1 - j) * added
    assert torch.allclose(balance(states[-1]), total, atol=1e-10)
    weights = sum(kept**j for j in range(steps))
    assert weights <= 1 / (rate * network.decay * (2 - rate * network.decay)) + 1e-12
