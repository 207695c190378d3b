"""A6: the closed form of any linear layer's kappa.

`layer_kappa` (forward over reverse in the weight) and `layer_closed_form` (reverse over reverse in the
pre-activations) share no differentiation; the head's closed forms and the numbers by hand differentiate nothing.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grokcore.flatness import relative_flatness
from tests.theory.strategies import random_heads, seeds
from theory.head_closed_form import FORMS, closed_form
from theory.layer import layer_closed_form
from theory.numeric.configurations import Head, generator_of, normal, random_head, random_mlp, rows
from theory.numeric.oracle import LOSSES, kappa_by_hessian, layer_kappa


@given(random_heads(), st.sampled_from(sorted(LOSSES)))
def test_head_as_a_layer(head: Head, loss: str) -> None:
    """The curvature in the logits gives A2 and ||W||_F^2 mean ||h||^2."""
    model = nn.Sequential(nn.Linear(*head.weight.shape[::-1], dtype=torch.float64))
    model.load_state_dict({"0.weight": head.weight, "0.bias": head.bias})
    found = layer_closed_form(model, 0, loss, head.features, head.labels)
    expected = relative_flatness(head.features, head.weight, head.bias, loss=loss)
    assert found == pytest.approx(float(expected), rel=1e-8, abs=1e-13)


@given(seeds, st.sampled_from([nn.ReLU(), nn.Tanh(), nn.Identity(), nn.GELU()]), st.sampled_from(sorted(LOSSES)))
@settings(max_examples=10)
def test_hidden_layers(seed: int, activation: nn.Module, loss: str) -> None:
    """The first and the second of three layers."""
    model, inputs, labels = (
        random_mlp(seed, [2, 3, 2, 3], activation),
        normal(generator_of(seed), 3, 2),
        torch.arange(3),
    )
    for index in (0, 2):
        exact = layer_kappa(model, LOSSES[loss], inputs, labels, str(index))
        assert layer_closed_form(model, index, loss, inputs, labels) == pytest.approx(exact, rel=1e-7, abs=1e-10)


def test_hidden_layer_may_curve_down() -> None:
    """f = tanh(w), target 0.5 from above: kappa = w^2 d2l/da2 < 0, while ReLU, linear on each side, gives w^2."""
    inputs, target, w = rows([1.0]), rows([0.5]), 1.5
    slope, value = 1 - math.tanh(w) ** 2, math.tanh(w)
    for activation, expected in ((nn.Tanh(), slope**2 - 2 * (value - 0.5) * value * slope), (nn.ReLU(), 1.0)):
        model = nn.Sequential(nn.Linear(1, 1, bias=False, dtype=torch.float64), activation)
        model.load_state_dict({"0.weight": rows([w])})
        found = layer_kappa(model, LOSSES["squared"], inputs, target, "0")
        assert found == pytest.approx(w**2 * expected)
        assert layer_closed_form(model, 0, "squared", inputs, target) == pytest.approx(found)
        assert (found < 0) == isinstance(activation, nn.Tanh)


def test_several_places_at_once_need_their_cross_terms() -> None:
    """Logits W (h_1 + h_2) from one layer at two places: sum_uv <h_u, h_v> = ||h_1 + h_2||^2, not sum ||h_u||^2."""
    first, second = normal(generator_of(1), 2, 4, 3)
    head = random_head(2, K=3, m=3, n=4)._replace(features=first + second)
    apart = sum(closed_form(head, features=h) for h in (first, second))
    crossed = 2 * ((first * second).sum(dim=1) * FORMS["pairs"](head.probabilities, head.weight)).mean()
    assert kappa_by_hessian(head) == pytest.approx(apart + float(crossed), rel=1e-10)
    assert abs(apart / kappa_by_hessian(head) - 1) > 0.05
