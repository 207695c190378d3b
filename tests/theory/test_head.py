"""A1 to A6: the head's Hessian, kappa's closed form and invariances, why it is this sum, its bounds, any layer.

Channels here that share no code with the statements' formulas: Hessians by reverse over reverse (`reverse_hessian`),
Hessian-vector products (`kappa_matrix_free`, `torch.func.jvp`), and numbers worked out by hand. `exact_hessian` and
`layer_kappa` share forward-over-reverse differentiation with the statements' own numeric channel.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from grokcore.curvature import exact_hessian
from grokcore.flatness import relative_flatness
from tests.theory.strategies import random_heads, seeds
from theory.configurations import Head, generator_of, nearly_collapsed, normal, random_head, random_mlp
from theory.head import FORMS, closed_form, softmax_curvature, trained_with
from theory.head_bounds import (
    LOWER,
    UPPER,
    directional,
    equidistant_head,
    error,
    from_distances,
    from_loss,
    impurity,
    squared_distances_of_pairs,
)
from theory.invariance import rescaled, transformed_heads
from theory.layer import Twice, layer_closed_form
from theory.oracle import LOSSES, head_hessian, kappa_by_hessian, kappa_matrix_free, layer_kappa
from theory.why_kappa import curvatures, plane_rotations, rise, sign_diagonals, sign_matrices, signed_permutations


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def one_sample(weight: Tensor, h: list[float], bias: list[float] | None = None) -> Head:
    b = torch.zeros(len(weight)) if bias is None else torch.tensor(bias)
    return Head(matrix(h), weight, b.double(), torch.tensor([0]))


def reverse_hessian(head: Head) -> Tensor:
    """Reverse over reverse, (K, m, K, m)."""

    def loss(weight: Tensor) -> Tensor:
        return cross_entropy(head.features @ weight.T + head.bias, head.labels)

    return torch.func.jacrev(torch.func.jacrev(loss))(head.weight)


# A1


@given(random_heads(classes=st.integers(2, 4), samples=st.integers(1, 3)))
def test_blocks_of_the_hessian(head: Head) -> None:
    """Reverse over reverse against the blocks added up one sample, s and t at a time."""
    expected = torch.zeros_like(head_hessian(head))
    for h, p in zip(head.features, head.probabilities, strict=True):
        for s, t in itertools.product(range(len(p)), repeat=2):
            expected[s, :, t] += (p[s] * (s == t) - p[s] * p[t]) * torch.outer(h, h) / len(head.labels)
    torch.testing.assert_close(reverse_hessian(head), expected, rtol=1e-9, atol=1e-12)


def test_block_by_hand() -> None:
    """Two equal logits: p_s (1 - p_s) = 1/4."""
    block = matrix([1.0, 2.0], [2.0, 4.0]) / 4
    hessian = head_hessian(one_sample(torch.zeros(2, 2).double(), [1.0, 2.0]))
    torch.testing.assert_close(hessian[0, :, 0], block)
    torch.testing.assert_close(hessian[0, :, 1], -block)


@pytest.mark.parametrize(("K", "m"), [(2, 1), (2, 3), (4, 2)])
def test_rank_of_one_sample(K: int, m: int) -> None:
    """diag p - p p^T has rank K - 1 and h h^T rank 1."""
    hessian = head_hessian(random_head(1, K=K, m=m, n=1)).reshape(K * m, K * m)
    assert int(torch.linalg.matrix_rank(hessian)) == K - 1


@given(random_heads(), seeds)
def test_row_shifts_are_flat_directions(head: Head, seed: int) -> None:
    """H vec(1 v^T) = 0, so no head's Hessian is positive definite."""
    shift = normal(generator_of(seed), head.weight.shape[1]).expand_as(head.weight)
    product = torch.einsum("sjtk,tk->sj", head_hessian(head), shift)
    assert float(product.abs().max()) < 1e-12 * (1 + float(head.features.square().sum()))


def test_mixed_targets_leave_the_hessian() -> None:
    head = random_head(2, K=4, m=3, n=5)
    mixed = torch.softmax(normal(generator_of(1), 5, 4), dim=1)
    smoothed = trained_with(head, lambda z, y: cross_entropy(z, y, label_smoothing=0.3))
    torch.testing.assert_close(trained_with(head, cross_entropy, mixed), head_hessian(head))
    torch.testing.assert_close(smoothed, head_hessian(head))


def test_fisher_is_the_hessian_in_the_mean_over_the_models_labels() -> None:
    """The sibling that A1 refutes for one label holds in the mean over y ~ p."""
    p = torch.softmax(normal(generator_of(4), 1, 5), dim=1)
    residuals = p - torch.eye(5, dtype=torch.float64)
    fisher = torch.einsum("y,ys,yt->st", p[0], residuals, residuals)
    torch.testing.assert_close(fisher, softmax_curvature(p, torch.tensor([0]))[0])


# A2


@given(random_heads())
def test_closed_form_against_hessian_vector_products(head: Head) -> None:
    expected = kappa_matrix_free(head)
    assert float(relative_flatness(head.features, head.weight, head.bias)) == pytest.approx(expected, rel=1e-8)
    for form in ("deviations", "pairs"):
        assert closed_form(head, FORMS[form]) == pytest.approx(expected, rel=1e-8)


def test_kappa_by_hand() -> None:
    """Rows e_1 and -e_1 with h off their span: p = 1/2, Var = 1, ||h||^2 = 25."""
    head = one_sample(matrix([1.0, 0.0], [-1.0, 0.0]), [0.0, 5.0])
    assert closed_form(head) == pytest.approx(25.0)
    assert kappa_by_hessian(head) == pytest.approx(25.0)


def test_one_row_apart_by_hand() -> None:
    """p = (2/3, 1/3) from the bias, rows 3 and 0 in one dimension, h = 1: kappa = 9 * 2/9."""
    head = one_sample(matrix([3.0], [0.0]), [1.0], [math.log(2) - 3, 0.0])
    assert kappa_by_hessian(head) == pytest.approx(2.0)
    assert closed_form(head) == pytest.approx(2.0)


def test_second_moments_cancel_at_large_gaps() -> None:
    """The form that looks simplest is 0 at a gap of 60, where that over pairs keeps every digit."""
    head = one_sample(matrix([30.0], [-30.0]), [1.0])
    assert closed_form(head, FORMS["second moments"]) == 0.0
    assert closed_form(head) == pytest.approx(3600 * math.exp(-60), rel=1e-12)


# A3


@given(random_heads(), seeds)
def test_what_leaves_kappa_alone(head: Head, seed: int) -> None:
    """By Hessian-vector products; the outputs too stay what they were."""
    expected = closed_form(head)
    for changed in transformed_heads(head, seed).values():
        torch.testing.assert_close(changed.probabilities, head.probabilities, rtol=1e-8, atol=1e-10)
        assert kappa_matrix_free(changed) == pytest.approx(expected, rel=1e-7, abs=1e-12)


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


# A4


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
        head = one_sample(matrix(row, [-x for x in row]), [3.0, 4.0], [-bias, bias])
        hessian = head_hessian(head)
        assert float(curvatures(hessian, head.weight, sign_diagonals(2)).mean()) == pytest.approx(diagonal)
        assert float(curvatures(hessian, head.weight, signed_permutations(2)).mean()) == pytest.approx(haar)


# A5


@given(random_heads(), st.floats(1e-4, 0.3), seeds)
def test_bounds_hold(any_head: Head, noise: float, seed: int) -> None:
    """Hessian-vector products against every bound, at any head and near collapse."""
    for head in (any_head, nearly_collapsed(seed, K=2 + seed % 4, m=5, noise=noise, counts=2)):
        kappa = kappa_matrix_free(head)
        assert all(bound(head) <= kappa * (1 + 1e-8) + 1e-13 for bound in LOWER.values())
        assert all(kappa <= bound(head) * (1 + 1e-8) + 1e-13 for bound in UPPER.values())


@given(random_heads(classes=st.just(2)))
def test_two_classes_are_always_equidistant(head: Head) -> None:
    distance = squared_distances_of_pairs(head)
    assert from_distances(head, distance[0]) == pytest.approx(kappa_by_hessian(head), rel=1e-7, abs=1e-13)


@given(random_heads(widths=st.just(1)))
def test_one_feature_is_always_parallel(head: Head) -> None:
    assert directional(head) == pytest.approx(kappa_by_hessian(head), rel=1e-7, abs=1e-13)


@given(st.integers(2, 6), st.integers(0, 3), seeds)
def test_equidistant_rows_reach_both_distance_bounds(K: int, extra: int, seed: int) -> None:
    """Whatever the features and biases, and wherever the simplex is."""
    head = equidistant_head(K, K - 1 + extra, seed)
    kappa, distances = kappa_matrix_free(head), squared_distances_of_pairs(head)
    assert from_distances(head, distances.min()) == pytest.approx(kappa, rel=1e-7)
    assert from_distances(head, distances.max()) == pytest.approx(kappa, rel=1e-7)


def test_biases_inside_the_variance_by_hand() -> None:
    """K = 2, m = 1, W = (1, -1), h = 1, b = (1, -1): Var(z) is 4 times kappa; b = -W h cancels the logits: 0."""
    for sign, factor in ((1.0, 4.0), (-1.0, 0.0)):
        head = one_sample(matrix([1.0], [-1.0]), [1.0], [sign, -sign])
        p, z = head.probabilities[0], (head.features @ head.weight.T + head.bias)[0]
        variance = float(p @ z.square() - (p @ z) ** 2)
        assert variance == pytest.approx(factor * kappa_by_hessian(head), abs=1e-12)


def test_factor_two_of_the_error_is_reached_at_no_loss() -> None:
    """U/(1 - p_y) -> 2 as p_y -> 1, and 1 where two classes are level."""
    for gap, ratio, tolerance in ((20.0, 2.0, 1e-7), (0.0, 1.0, 1e-12)):
        head = one_sample(matrix([gap], [0.0]), [1.0])
        assert float(impurity(head) / error(head)) == pytest.approx(ratio, abs=tolerance)


def test_low_loss_is_flat_without_collapse() -> None:
    """Random features, and a head that separates them by ever wider margins: kappa falls with the loss."""
    base = random_head(1, K=3, m=8, n=6)
    signs = 2 * nn.functional.one_hot(base.labels, 3).double() - 1
    fit = torch.linalg.lstsq(base.features, signs).solution.T
    losses, kappas = [], []
    for scale in (1.0, 4.0, 8.0):
        head = Head(base.features, scale * fit, torch.zeros(3, dtype=torch.float64), base.labels)
        losses.append(head.loss)
        kappas.append(kappa_by_hessian(head))
        assert kappas[-1] <= from_loss(head)
    assert losses[0] > losses[1] > losses[2] < 1e-6
    assert kappas[2] < 1e-3 * kappas[0]


# A6


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
    inputs, target, w = matrix([1.0]), matrix([0.5]), 1.5
    slope, value = 1 - math.tanh(w) ** 2, math.tanh(w)
    for activation, expected in ((nn.Tanh(), slope**2 - 2 * (value - 0.5) * value * slope), (nn.ReLU(), 1.0)):
        model = nn.Sequential(nn.Linear(1, 1, bias=False, dtype=torch.float64), activation)
        model.load_state_dict({"0.weight": matrix([w])})
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
