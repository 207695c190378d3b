"""A4: kappa as a mean over rotated copies of the weight.

Independent of the statement's own numeric channel (forward over reverse, dense): products along one direction
(`torch.func.jvp`), differences of the loss, and numbers worked out by hand.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore.curvature import exact_hessian
from tests.theory.by_hand import one_sample
from theory.head_closed_form import closed_form
from theory.layer import Twice
from theory.numeric.configurations import generator_of, normal, random_head, random_mlp, rows
from theory.numeric.oracle import head_hessian, layer_kappa
from theory.why_kappa import curvatures, plane_rotations, rise, sign_diagonals, sign_matrices, signed_permutations


@pytest.mark.parametrize(
    "matrices",
    [signed_permutations(3), sign_matrices(3) / math.sqrt(3), plane_rotations(5)],
    ids=["B_3", "signs", "O(2)"],
)
def test_second_moments(matrices: Tensor) -> None:
    """E A_ab A_cd = d_ac d_bd / m, entry by entry, and A and -A alike."""
    m = matrices.shape[1]
    moments = torch.einsum("nab,ncd->abcd", matrices, matrices) / len(matrices)
    eye = torch.eye(m, dtype=torch.float64)
    torch.testing.assert_close(moments, torch.einsum("ac,bd->abcd", eye, eye) / m)
    assert float(matrices.mean(dim=0).abs().max()) < 1e-15


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
def test_rademacher_estimator_without_a_hessian(activation: nn.Module) -> None:
    """<WZ, H[WZ]> by forward over reverse along WZ alone, for every Z of signs, on a hidden layer."""
    model, inputs, labels = random_mlp(5, [2, 4, 3], activation), normal(generator_of(1), 5, 2), torch.arange(5) % 3
    state = {name: value.detach() for name, value in model.named_parameters()}
    weight = state.pop("0.weight")

    def loss(w: Tensor) -> Tensor:
        return cross_entropy(torch.func.functional_call(model, {**state, "0.weight": w}, (inputs,)), labels)

    def along(direction: Tensor) -> float:
        return float((direction * torch.func.jvp(torch.func.grad(loss), (weight,), (direction,))[1]).sum())

    signs = sign_matrices(2)
    mean = sum(along(weight @ z) for z in signs) / len(signs)
    assert mean == pytest.approx(layer_kappa(model, cross_entropy, inputs, labels, "0"), rel=1e-9)


@pytest.mark.parametrize("m", [1, 2, 3])
def test_rise_of_the_loss(m: int) -> None:
    """kappa d^2/(2m) to a relative O(d^2), by the exact mean over signed permutations."""
    head = random_head(m, K=3, m=m, n=5)
    ratios = [rise(head, d, signed_permutations(m)) / (closed_form(head) * d**2 / (2 * m)) for d in (0.1, 0.01, 0.001)]
    assert abs(ratios[1] - 1) < 0.02 * abs(ratios[0] - 1)
    assert ratios[2] == pytest.approx(1, abs=1e-4)


def test_each_sample_may_have_its_own_rotation() -> None:
    """Two samples, all 64 pairs of signed permutations: the second order is that of one rotation for both."""
    head, d = random_head(3, K=3, m=2, n=2), 1e-3
    group, total = signed_permutations(2), 0.0
    for pair in itertools.product(group, repeat=2):
        turned = head.features + d * torch.einsum("iab,ib->ia", torch.stack(pair), head.features)
        total += head._replace(features=turned).loss - head.loss
    assert total / 64 == pytest.approx(closed_form(head) * d**2 / 4, rel=1e-4)


def test_rotations_without_reflections() -> None:
    """SO(2) is enough for a head, whose blocks are symmetric, and not for a layer that is applied twice."""
    turns = plane_rotations()[:48]
    head = random_head(1, K=4, m=2, n=3)
    assert float(curvatures(head_hessian(head), head.weight, turns).mean()) == pytest.approx(closed_form(head) / 2)
    shared, out = list(random_mlp(3, [2, 2, 2], nn.Tanh()))[::2]
    model, data = nn.Sequential(Twice(shared), out), (normal(generator_of(8), 4, 2), torch.arange(4) % 2)
    hessian, weight = exact_hessian(model, cross_entropy, [data], "0.layer"), shared.weight.detach()
    kappa = layer_kappa(model, cross_entropy, *data, "0.layer")
    assert float(curvatures(hessian, weight, plane_rotations()).mean()) == pytest.approx(kappa / 2)
    assert abs(float(curvatures(hessian, weight, turns).mean()) / (kappa / 2) - 1) > 0.01


def test_diagonal_signs_see_the_diagonal_of_h_alone() -> None:
    """Rows (1, 1) and -(1, 1), h = (3, 4), p = 1/2: 25 each, against kappa/m = 25; with rows e_1: 9 against 12.5."""
    for row, bias, diagonal, haar in (([1.0, 1.0], 7.0, 25.0, 25.0), ([1.0, 0.0], 3.0, 9.0, 12.5)):
        head = one_sample(rows(row, [-x for x in row]), [3.0, 4.0], [-bias, bias])
        hessian = head_hessian(head)
        assert float(curvatures(hessian, head.weight, sign_diagonals(2)).mean()) == pytest.approx(diagonal)
        assert float(curvatures(hessian, head.weight, signed_permutations(2)).mean()) == pytest.approx(haar)
