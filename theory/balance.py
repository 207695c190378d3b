"""The balance D = W_L^T W_L - W_{L-1} W_{L-1}^T of two linear layers under flow and descent (a clause of D3).

W = W_L, V = W_{L-1} and S = sum_i (dloss/dz_i) x_i^T, x_i what enters V: an identity between words in these and
their transposes holds for matrices of all sizes, whatever is below V, whatever the loss and the biases b of W_L.
"""

from __future__ import annotations

import itertools
import math

import sympy
import torch
from torch import Tensor

from theory.algebra.matrix_words import Words, letters
from theory.numeric.flows import Loss, Network, balance, gradients, off_the_law
from theory.numeric.oracle import mean_squared_loss
from theory.proof import Proof

_LAST, _BEFORE, _DATA = letters("W V S")
_ETA, _DECAY, _TIME = sympy.symbols("eta l t", positive=True)


def _data_gradients(proof: Proof) -> tuple[Words, Words]:
    last, before = (sympy.Matrix(2, 2, sympy.symbols(f"{name}:4")) for name in "wv")
    inputs, of_logits = (sympy.Matrix(2, 2, sympy.symbols(f"{name}:4")) for name in "xg")
    # The chain rule: the data gradients are those of <G, W V X + b 1^T> at fixed G = dloss/dz, whatever the loss.
    paired = (of_logits.T * last * before * inputs).trace()
    data = of_logits * inputs.T
    proof.identity("gradient in W_L: S W_{L-1}^T", sympy.derive_by_array(paired, last).tomatrix(), data * before.T)
    proof.identity("gradient in W_{L-1}: W_L^T S", sympy.derive_by_array(paired, before).tomatrix(), last.T * data)
    return _DATA @ _BEFORE.T, _LAST.T @ _DATA


def flow_by_algebra(proof: Proof) -> None:
    """d/dt D = -2 l D in words of matrices of any size, and its solution."""
    of_last, of_before = _data_gradients(proof)
    last, before = (-1) * of_last - _DECAY * _LAST, (-1) * of_before - _DECAY * _BEFORE
    slope = last.T @ _LAST + _LAST.T @ last - before @ _BEFORE.T - _BEFORE @ before.T
    balanced = _LAST.T @ _LAST - _BEFORE @ _BEFORE.T
    proof.require("d/dt D = -2 l D: the data terms cancel", slope.equals((-2 * _DECAY) * balanced))
    entry, factor = sympy.Function("D")(_TIME), sympy.exp(2 * _DECAY * _TIME)
    slope_of_scaled = sympy.diff(factor * entry, _TIME).subs(sympy.diff(entry, _TIME), -2 * _DECAY * entry)
    proof.identity("so d/dt (exp(2lt) D) = 0: no other solution than exp(-2lt) D(0)", slope_of_scaled, 0)


def descent_by_algebra(proof: Proof, *, exact: bool = False) -> None:
    """A step of gradient descent in words of matrices; nothing is added to (1 - eta l)^2 D where `exact`."""
    of_last, of_before = _data_gradients(proof)
    kept = 1 - _ETA * _DECAY
    last, before = kept * _LAST - _ETA * of_last, kept * _BEFORE - _ETA * of_before
    expected = kept**2 * (_LAST.T @ _LAST - _BEFORE @ _BEFORE.T)
    if not exact:
        expected = expected + _ETA**2 * (of_last.T @ of_last - of_before @ of_before.T)
    proof.require("a step of gradient descent", (last.T @ last - before @ before.T).equals(expected))


def many_steps_by_algebra(proof: Proof) -> None:
    """Steps D_{k+1} = r D_k + eta^2 E_k summed: what is added, by a geometric sum, and r^k against exp(-2lt)."""
    ratio, steps, start, added, now = sympy.symbols("r k D0 T E", positive=True)
    # D_k = r^k D_0 + eta^2 T_k with T_0 = 0: one more step, then the triangle inequality ||T_{k+1}|| <= r ||T_k|| + e,
    # e = max||E||, whose solution from 0 is the geometric sum times e.
    after = ratio * (ratio**steps * start + _ETA**2 * added) + _ETA**2 * now
    text = "induction: D_{k+1} = r^(k+1) D_0 + eta^2 T_{k+1}, T_{k+1} = r T_k + E_k"
    proof.identity(text, after, ratio ** (steps + 1) * start + _ETA**2 * (ratio * added + now))
    total = (1 - ratio**steps) / (1 - ratio)
    text = "the geometric sum: r (1 - r^k)/(1 - r) + 1 = (1 - r^(k+1))/(1 - r)"
    proof.identity(text, ratio * total + 1, total.subs(steps, steps + 1))
    kept = 1 - _ETA * _DECAY
    bound = _ETA / (_DECAY * (2 - _ETA * _DECAY))
    proof.identity("its bound: eta^2 / (1 - r) = eta / (l (2 - eta l))", _ETA**2 / (1 - kept**2), bound)
    factor = sympy.exp(2 * _TIME / _ETA * sympy.log(kept)) - sympy.exp(-2 * _DECAY * _TIME)
    first_order = sympy.limit(factor / _ETA, _ETA, 0)
    limit = -(_DECAY**2) * _TIME * sympy.exp(-2 * _DECAY * _TIME)
    proof.identity("(1 - eta l)^(2t/eta) - exp(-2lt) is O(eta)", first_order, limit)


def flow_measured(proof: Proof) -> None:
    """The law along simulated flows of a ReLU network whose last two layers are linear, for three losses."""
    losses: dict[str, Loss] = {
        "cross-entropy": torch.nn.functional.cross_entropy,
        "squared": mean_squared_loss,
        "sine": _sine_loss,
    }
    for seed, (name, loss) in enumerate(losses.items()):
        network = Network(loss=loss, seed=seed, scale=0.6)
        start, end = network.flow(steps=50)
        found = off_the_law(start, end, math.exp(-2 * network.decay))
        proof.close(f"{name}: ||D(1) - exp(-2l) D(0)|| / ||D(0)||", found, 0.0, rel=1e-5)
        moved = float((end["last"] - math.exp(-network.decay) * start["last"]).norm() / start["last"].norm())
        proof.at_most(f"{name}: the layers moved by more than the decay", 1e-2, moved)


def _sine_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return torch.sin(outputs + labels[:, None]).sum(dim=1).mean()


def descent_measured(proof: Proof, *, exact: bool = False) -> None:
    """Steps of gradient descent on that network, and how its error at time 1 falls with eta."""
    network = Network()
    for rate, steps in ((0.1, 10), (0.3, 4)):
        states, kept, largest = network.gradient_descent(rate, steps), (1 - rate * network.decay) ** 2, 0.0
        for before, after in itertools.pairwise(states):
            slope = gradients(network.data_loss, before)
            added = slope["last"].T @ slope["last"] - slope["before"] @ slope["before"].T
            expected = kept * balance(before) + (0.0 if exact else rate**2) * added
            proof.close(f"eta = {rate:g}: a step", balance(after), expected, rel=1e-11)
            largest = max(largest, float(added.norm()))
        left = float((balance(states[-1]) - kept**steps * balance(states[0])).norm())
        bound = rate * largest / (network.decay * (2 - rate * network.decay))
        proof.at_most(
            f"eta = {rate:g}, {steps} steps: off r^k D(0) by at most eta max||E|| / (l (2 - eta l))", left, bound
        )
    errors = [
        off_the_law(states[0], states[-1], math.exp(-2 * network.decay))
        for states in (network.gradient_descent(1 / steps, steps) for steps in (100, 200))
    ]
    ratio = errors[0] / errors[1]
    proof.require(f"at time 1: half of eta halves the error ({ratio:.4f} times)", abs(ratio - 2) < 0.05)
