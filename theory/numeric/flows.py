"""Gradient flow and gradient descent of explicit small models in float64: the numeric channel of D3.

A flow is integrated by the classical Runge-Kutta method of order 4; gradients are those of automatic
differentiation, and nothing here knows a conserved quantity or a rate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from theory.numeric.configurations import generator_of, normal

State = dict[str, Tensor]
Field = Callable[[float, State], State]
Loss = Callable[[Tensor, Tensor], Tensor]
"""Outputs (N, K) and labels (N,) to the mean loss."""


def runge_kutta(velocity: Field, state: State, time: float, steps: int) -> State:
    """The state at `time` of the flow d state/dt = velocity(t, state) that starts at 0 in `state`."""
    step = time / steps

    def moved(by: float, slope: State) -> State:
        return {name: value + by * slope[name] for name, value in state.items()}

    for index in range(steps):
        t = index * step
        first = velocity(t, state)
        second = velocity(t + step / 2, moved(step / 2, first))
        third = velocity(t + step / 2, moved(step / 2, second))
        fourth = velocity(t + step, moved(step, third))
        mean = {name: (first[name] + 2 * second[name] + 2 * third[name] + fourth[name]) / 6 for name in state}
        state = moved(step, mean)
    return state


def gradients(loss: Callable[[State], Tensor], state: State) -> State:
    """The gradient of a loss of all of the state's tensors."""
    leaves = {name: value.detach().requires_grad_() for name, value in state.items()}
    return dict(zip(leaves, torch.autograd.grad(loss(leaves), list(leaves.values())), strict=True))


def mean_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """The loss 1 - p_y, the probability of an error, mean over samples: smooth and not convex in the logits."""
    return (1 - torch.softmax(outputs, dim=1).gather(1, labels[:, None])).mean()


def same(values: Tensor) -> Tensor:
    """Nothing between two layers."""
    return values


@dataclass(frozen=True)
class Network:
    """f(x) = W_L between(W_{L-1} relu(V x + a) + inner) + b on fixed inputs, with weight decay on all but a and b.

    Attributes:
        decay: l, of V, W_L and inner; of W_{L-1} too unless `decay_before` is given.
        inner_bias: whether layer L - 1 has a bias.
        between: applied to the features (N, m) that leave layer L - 1.
        loss: mean over samples.
        seed: of the inputs and of the start.
        scale: of the start.
    """

    decay: float = 0.3
    decay_before: float | None = None
    inner_bias: bool = False
    between: Callable[[Tensor], Tensor] = same
    loss: Loss = torch.nn.functional.cross_entropy
    seed: int = 0
    scale: float = 1.0
    labels: Tensor = field(default_factory=lambda: torch.arange(8) % 3)

    @cached_property
    def inputs(self) -> Tensor:
        """The inputs, normal, (N, 3)."""
        return normal(generator_of(self.seed + 1000), len(self.labels), 3)

    def start(self) -> State:
        """Normal times `scale`: V (5, 3), a (5,), W_{L-1} (4, 5), W_L (3, 4), b (3,), and inner (4,) if any."""
        generator = generator_of(self.seed)
        shapes: dict[str, tuple[int, ...]] = {"V": (5, 3), "a": (5,), "before": (4, 5), "last": (3, 4), "b": (3,)}
        if self.inner_bias:
            shapes["inner"] = (4,)
        return {name: self.scale * normal(generator, *shape) for name, shape in shapes.items()}

    def data_loss(self, state: State) -> Tensor:
        """The mean loss without decay."""
        entering = torch.relu(self.inputs @ state["V"].T + state["a"]) @ state["before"].T
        if self.inner_bias:
            entering = entering + state["inner"]
        return self.loss(self.between(entering) @ state["last"].T + state["b"], self.labels)

    def descent(self, state: State) -> State:
        """Minus the gradient of the data loss and of the decay."""
        of_data = gradients(self.data_loss, state)
        decays = dict.fromkeys(("V", "last", "inner", "before"), self.decay)
        if self.decay_before is not None:
            decays["before"] = self.decay_before
        return {name: -of_data[name] - decays.get(name, 0.0) * value for name, value in state.items()}

    def flow(self, time: float = 1.0, steps: int = 50) -> tuple[State, State]:
        """The start and the state to which gradient flow comes."""
        start = self.start()
        return start, runge_kutta(lambda _, state: self.descent(state), start, time, steps)

    def gradient_descent(self, rate: float, steps: int) -> list[State]:
        """The start and each of the states after it."""
        states = [self.start()]
        for _ in range(steps):
            slope = self.descent(states[-1])
            states.append({name: value + rate * slope[name] for name, value in states[-1].items()})
        return states


def balance(state: State) -> Tensor:
    """W_L^T W_L - W_{L-1} W_{L-1}^T, (m, m)."""
    return state["last"].T @ state["last"] - state["before"] @ state["before"].T


def off_the_law(start: State, end: State, factor: float, quantity: Callable[[State], Tensor] = balance) -> float:
    """||Q(end) - factor Q(start)|| relative to ||Q(start)||, Q the balance of the last two layers by default."""
    expected = factor * quantity(start)
    return float((quantity(end) - expected).norm() / quantity(start).norm())


def free_features(
    head: Callable[[float, State], Tensor],
    labels: Tensor,
    decay: float,
    *,
    decay_head: float = 0.0,
    loss: Loss = torch.nn.functional.cross_entropy,
) -> Field:
    """The flow of mean loss(W h_i, y_i) + (decay/2)||H||_F^2 (+ (decay_head/2)||W||_F^2 where W is in the state).

    Args:
        head: W (K, m) at a time; a head that is in the state moves by its own gradient.
        labels: (N,).
        decay: l_H.
        decay_head: l_W.
        loss: mean over samples.
    """

    def velocity(t: float, state: State) -> State:
        slope = gradients(lambda leaves: loss(leaves["features"] @ head(t, leaves).T, labels), state)
        decays = {"features": decay, "head": decay_head}
        return {name: -slope[name] - decays[name] * value for name, value in state.items()}

    return velocity
