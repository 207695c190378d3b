"""Two clocks: balance and within-class collapse take time of the order of 1/decay, early growth does not (D3).

Its clauses, a file each: :mod:`theory.balance`, :mod:`theory.contraction`, and the rates near optimum and
origin in :mod:`theory.algebra.ufm_rates` (algebra) and :mod:`theory.numeric.ufm_rates_measured` (exact
Hessians). The flows are in :mod:`theory.numeric.flows`.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from theory import balance as balance_law
from theory.algebra import ufm_rates as rates
from theory.algebra.class_symmetry import K
from theory.contraction import contraction_by_algebra, contraction_measured, spread
from theory.numeric import ufm_rates_measured as rates_measured
from theory.numeric.flows import Network, State, balance, free_features, gradients, mean_error, off_the_law, runge_kutta
from theory.proof import Proof
from theory.statement import Statement

TWO_CLOCKS = Statement(
    "two_clocks",
    label="D3",
    claim="Gradient flow: D = W_L^T W_L - W_{L-1} W_{L-1}^T is exp(-2lt) D(0), for any loss; a step eta of gradient "
    "descent multiplies it by r = (1 - eta l)^2 and adds eta^2 E, E = A^T A - B B^T, A and B the data gradients of W_L "
    "and W_{L-1}, so that k steps (0 < eta l < 2) leave it within eta max||E|| / (l (2 - eta l)) of r^k D(0), and "
    "r^k -> exp(-2lt) at t = k eta with an error O(eta). "
    "Free features: two samples of one class approach at least as exp(-l_H t), whatever W(t); linearised at the "
    "optimum at l_H (1 + Delta p_t) once, l_H (1 + Delta/K) K - 2 times, l_H m - K + 1 times; at the origin the "
    "fastest growth is 1/(K sqrt n) - l, at the optimum every rate is l times a function of (Delta, K).",
    latex=r"\tfrac{d}{dt}D=-2\lambda D,\quad \|h_i-h_j\|(t)\le e^{-\lambda_H t}\|h_i-h_j\|(0),\quad "
    r"\text{early } \tfrac1{K\sqrt n}-\lambda,\quad \text{late } \lambda\cdot f(\Delta,K)",
    assumptions={
        "linear_between": "layer L - 1 feeds W_L without a nonlinearity",
        "no_normalisation": "nor a normalisation, be it linear, by fixed statistics",
        "no_inner_bias": "layer L - 1 has no bias (with one, a, decayed too: D - a a^T follows the law)",
        "same_decay": "W_L and W_{L-1} have one decay l (l_W = l_H = l at the origin and in 'every rate')",
        "plain_gradient": "the velocity is minus the gradient: neither momentum nor coordinatewise scaling",
        "same_class": "the two samples that approach have one label",
        "convex_loss": "that two samples approach: the loss is convex in the logits, as the cross-entropy is",
        "cross_entropy": "the rates at optimum and origin: the loss is the cross-entropy",
        "free_features": "each feature is a variable of its own, with the gradient of the mean over N samples",
        "optimum": "the late rates: a global minimiser of D1, m >= K - 1 and sqrt(n l_W l_H) < 1/K (else the origin)",
        "balanced": "the rates at optimum and origin: n samples in every class",
    },
    source="balance: Arora et al. 2018, Du et al. 2018, with decay; descent, contraction and rates: new",
    kind="equality",
)


@TWO_CLOCKS.certificate("symbolic", covers="every size, loss, K, m, n, Delta", relies_on="sympy, z3", whole=True)
def _by_algebra(proof: Proof) -> None:
    """Balance in words of matrices of any size; contraction by Gronwall's lemma; rates with K, Delta, n as symbols."""
    balance_law.flow_by_algebra(proof)
    balance_law.descent_by_algebra(proof)
    balance_law.many_steps_by_algebra(proof)
    contraction_by_algebra(proof)
    rates.within_by_algebra(proof)
    rates.origin_by_algebra(proof)
    rates.optimum_by_algebra(proof)


@TWO_CLOCKS.certificate("numeric", covers="a ReLU network, free features", relies_on="Runge-Kutta, automatic gradients")
def _simulated(proof: Proof) -> None:
    """Simulated flows and descents: balance under three losses, steps of descent, distances within classes."""
    balance_law.flow_measured(proof)
    balance_law.descent_measured(proof)
    contraction_measured(proof)


@TWO_CLOCKS.certificate("numeric", covers="K = 2..5, m = K - 1 and more, n = 1..4", relies_on="exact joint Hessians")
def _by_hessians(proof: Proof) -> None:
    """Rates from the exact joint Hessian at minimisers, one of them found by L-BFGS, and at the origin."""
    rates_measured.within_measured(proof)
    rates_measured.within_found(proof)
    rates_measured.origin_measured(proof)
    rates_measured.optimum_measured(proof)


def _breaks(proof: Proof, network: Network) -> None:
    start, end = network.flow(steps=25)
    found = off_the_law(start, end, math.exp(-2 * network.decay))
    proof.exceeds("||D(1) - exp(-2l) D(0)|| / ||D(0)||", found, 1e-3)


@TWO_CLOCKS.without("linear_between")
def _relu_between(proof: Proof) -> None:
    """A ReLU between the last two layers."""
    _breaks(proof, Network(between=torch.relu))


@TWO_CLOCKS.without("no_normalisation")
def _normalised(proof: Proof) -> None:
    """Each feature divided by a fixed number, as batch normalisation does at evaluation: linear all the same."""
    deviations = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    _breaks(proof, Network(between=lambda entering: entering / deviations))


@TWO_CLOCKS.without("no_inner_bias")
def _inner_bias(proof: Proof) -> None:
    """A bias in layer L - 1: D breaks the law; D - a a^T keeps it."""
    network = Network(inner_bias=True)
    _breaks(proof, network)
    start, end = network.flow(steps=50)
    found = off_the_law(
        start, end, math.exp(-2 * network.decay), lambda s: balance(s) - torch.outer(s["inner"], s["inner"])
    )
    proof.close("D - a a^T", found, 0.0, rel=1e-5)


@TWO_CLOCKS.without("same_decay")
def _two_decays(proof: Proof) -> None:
    """Decay 0.3 on W_L and 0.1 on W_{L-1}: off both exponentials."""
    network = Network(decay_before=0.1)
    _breaks(proof, network)
    start, end = network.flow(steps=25)
    proof.exceeds("against exp(-2t 0.1)", off_the_law(start, end, math.exp(-0.2)), 1e-3)


@TWO_CLOCKS.without("plain_gradient")
def _scaled_gradient(proof: Proof) -> None:
    """Coordinatewise g / sqrt(g^2 + 0.01), as adaptive methods scale it, with the same decay."""
    network = Network()

    def velocity(_: float, state: State) -> State:
        slope = gradients(network.data_loss, state)
        return {
            name: -slope[name] / (slope[name].square() + 0.01).sqrt() - network.decay * value
            for name, value in state.items()
        }

    start = network.start()
    end = runge_kutta(velocity, start, 1.0, 25)
    proof.exceeds("||D(1) - exp(-2l) D(0)|| / ||D(0)||", off_the_law(start, end, math.exp(-0.6)), 1e-3)


_ROWS = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)


def _apart(proof: Proof, features: list[list[float]], labels: list[int], **options: Any) -> None:
    velocity = free_features(lambda _, __: _ROWS, torch.tensor(labels), 0.01, **options)
    start = {"features": torch.tensor(features, dtype=torch.float64)}
    end = runge_kutta(velocity, start, 2.0, 40)
    first, last = (float(spread(state["features"])[0]) for state in (start, end))
    proof.exceeds("distance after time 2 against exp(-2 l_H) of the first", last, math.exp(-0.02) * first)


@TWO_CLOCKS.without("same_class")
def _two_classes(proof: Proof) -> None:
    """Two samples of two classes part."""
    _apart(proof, [[0.1, 0.0], [-0.1, 0.5]], [0, 1])


@TWO_CLOCKS.without("convex_loss")
def _bounded_loss(proof: Proof) -> None:
    """The loss 1 - p_y, which is not convex: of two samples on the wrong side the nearer one leaves first."""
    _apart(proof, [[-1.0, 0.0], [-2.0, 0.0]], [0, 0], loss=mean_error)


@TWO_CLOCKS.without("free_features")
def _shared_layer(proof: Proof) -> None:
    """Features v x of a shared linear layer that grows: samples of one class part."""
    inputs = torch.tensor([[1.0], [3.0], [-1.0], [-3.0]], dtype=torch.float64)
    labels, decay = torch.tensor([0, 0, 1, 1]), 0.01

    def velocity(_: float, state: State) -> State:
        slope = gradients(lambda s: torch.nn.functional.cross_entropy(inputs @ s["v"].T @ s["w"].T, labels), state)
        return {name: -slope[name] - decay * value for name, value in state.items()}

    start = {"v": 0.2 * _ROWS[:1, :1], "w": 0.2 * _ROWS[:, :1]}
    end = runge_kutta(velocity, start, 2.0, 40)
    first, last = (float(spread(inputs @ state["v"].T)[0]) for state in (start, end))
    proof.exceeds("distance after time 2 against exp(-2 l) of the first", last, math.exp(-0.02) * first)


TWO_CLOCKS.without("cross_entropy")(rates_measured.another_loss_at_the_origin)
TWO_CLOCKS.without("optimum")(rates_measured.off_the_optimum)
TWO_CLOCKS.without("balanced")(rates_measured.unbalanced_origin)


@TWO_CLOCKS.sibling
def _exact_for_descent(proof: Proof) -> None:
    """Gradient descent multiplies D by (1 - eta l)^2 exactly, with nothing added."""
    balance_law.descent_by_algebra(proof, exact=True)
    balance_law.descent_measured(proof, exact=True)


@TWO_CLOCKS.sibling
def _twice_the_rate(proof: Proof) -> None:
    """Two samples of one class approach at least as exp(-2 l_H t)."""
    contraction_by_algebra(proof, rate=2)
    contraction_measured(proof, rate=2.0)


@TWO_CLOCKS.sibling
def _no_slow_direction(proof: Proof) -> None:
    """Near the optimum every within-class rate is at least l_H (1 + Delta/K)."""
    once, between, _ = rates.WITHIN
    rates.within_by_algebra(proof, (once, between, between))
    rates_measured.within_measured(proof, (once, between, between))


@TWO_CLOCKS.sibling
def _early_by_all_samples(proof: Proof) -> None:
    """Early growth is 1/(K n) - l."""
    claimed = 1 / (rates.SAMPLES * K) - rates.DECAY
    rates.origin_by_algebra(proof, claimed)
    rates_measured.origin_measured(proof, claimed)
