"""A3: what leaves kappa alone.

Independent of the statement's own numeric channel (forward over reverse): Hessian-vector products
(`kappa_matrix_free`) and numbers worked out by hand; the layers' kappas (`layer_kappa`) share its differentiation.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.theory.by_hand import one_sample
from tests.theory.strategies import random_heads, seeds
from theory.head_closed_form import closed_form
from theory.invariance import changed_heads, rescaled, shifted
from theory.numeric.configurations import Head, generator_of, normal, random_mlp
from theory.numeric.oracle import LOSSES, kappa_by_hessian, kappa_matrix_free, kappa_of_hessian, layer_kappa
from theory.numeric.other_heads import trained_with


@given(random_heads(), seeds)
def test_what_leaves_kappa_alone(head: Head, seed: int) -> None:
    """By Hessian-vector products; the outputs too stay what they were."""
    expected = closed_form(head)
    for changed in (*changed_heads(head, seed).values(), shifted(head, seed)):
        torch.testing.assert_close(changed.probabilities, head.probabilities, rtol=1e-8, atol=1e-10)
        assert kappa_matrix_free(changed) == pytest.approx(expected, rel=1e-7, abs=1e-12)


@given(random_heads(classes=st.integers(2, 4), widths=st.integers(1, 3)), seeds)
def test_row_shifts_under_any_loss_of_the_softmax(head: Head, seed: int) -> None:
    """The focal loss, whose Hessian in the logits is not diag p - pp^T and contains the label."""

    def focal(output: Tensor, target: Tensor) -> Tensor:
        p = torch.softmax(output, dim=1).gather(1, target[:, None])
        return -((1 - p).square() * p.log()).mean()

    before, after = (kappa_of_hessian(trained_with(x, focal), x.weight) for x in (head, shifted(head, seed)))
    assert after == pytest.approx(before, rel=1e-7, abs=1e-10)


@given(
    seeds,
    st.lists(st.floats(0.05, 20), min_size=3, max_size=3),
    st.sampled_from([nn.ReLU(), nn.LeakyReLU(0.1), nn.LeakyReLU(3.0), nn.Identity()]),
    st.sampled_from(sorted(LOSSES)),
)
@settings(max_examples=10)
def test_rescaled_neurons(seed: int, factors: list[float], activation: nn.Module, loss: str) -> None:
    """Any factor for every neuron, every positively homogeneous activation, both losses."""
    model, inputs, labels = (
        random_mlp(seed, [2, 3, 2], activation),
        normal(generator_of(seed + 1), 3, 2),
        torch.arange(3) % 2,
    )
    changed = rescaled(model, torch.tensor(factors, dtype=torch.float64))
    torch.testing.assert_close(changed(inputs), model(inputs))
    before, after = (layer_kappa(m, LOSSES[loss], inputs, labels, "0") for m in (model, changed))
    assert after == pytest.approx(before, rel=1e-8, abs=1e-12)


def test_next_layer_sees_a_column_scaling() -> None:
    """Its kappa moves, to the closed form of (W D^-1, D h)."""
    model, inputs, labels = (
        random_mlp(4, [2, 3, 2], nn.ReLU()),
        normal(generator_of(8), 4, 2),
        torch.tensor([0, 1, 1, 0]),
    )
    factors = torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)
    with torch.no_grad():
        head = Head(model[:2](inputs) * factors, model[2].weight / factors, model[2].bias.clone(), labels)
    found = layer_kappa(rescaled(model, factors), cross_entropy, inputs, labels, "2")
    assert found == pytest.approx(closed_form(head), rel=1e-10)
    assert abs(found / layer_kappa(model, cross_entropy, inputs, labels, "2") - 1) > 0.05


def test_row_shift_under_squared_loss_by_hand() -> None:
    """kappa = ||W||_F^2 ||h||^2: the shift (1, 1) of W = 0 with K = 3 and ||h||^2 = 5 takes it from 0 to 30."""
    head = one_sample(torch.zeros(3, 2).double(), [1.0, 2.0])
    assert kappa_by_hessian(head, "squared") == 0.0
    assert kappa_by_hessian(head._replace(weight=torch.ones(3, 2).double()), "squared") == pytest.approx(30.0)
    assert kappa_by_hessian(head._replace(weight=torch.ones(3, 2).double())) == pytest.approx(0.0, abs=1e-14)
