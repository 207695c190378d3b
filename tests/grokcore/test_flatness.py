"""Closed-form kappa against the dense Hessian, its laws, and the surrogate's bounds and faults."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokcore import frobenius_surrogate, gini_impurity, relative_flatness
from tests.cases import TOLERANCE, collapsed, orthogonal, random_head

shapes = st.tuples(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 6))


def kappa_by_hessian(features: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, loss: str) -> Tensor:
    """The definition: sum_{s,t} <w_s, w_t> Tr(H_st) of the dense Hessian of the mean loss in W."""

    def mean_loss(w: Tensor) -> Tensor:
        outputs = torch.nn.functional.linear(features, w, bias)
        if loss == "cross_entropy":
            return torch.nn.functional.cross_entropy(outputs, labels)
        targets = torch.nn.functional.one_hot(labels, len(weight)).to(outputs)
        return (outputs - targets).square().sum(dim=1).mean() / 2

    hessian = torch.func.hessian(mean_loss)(weight)
    return torch.einsum("sjtj,st->", hessian, weight @ weight.T)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
@pytest.mark.parametrize("bias", [True, False])
@given(shape=shapes)
@settings(max_examples=20, deadline=None)
def test_kappa_is_the_dense_hessians(loss: str, bias: bool, shape: tuple[int, int, int]) -> None:
    seed, K, m = shape
    features, weight, b, labels = random_head(seed, K=K, m=m, bias=bias)
    expected = kappa_by_hessian(features, weight, b, labels, loss)
    torch.testing.assert_close(
        relative_flatness(features, weight, b, loss=loss), expected, rtol=TOLERANCE[torch.float64], atol=1e-13
    )


def test_the_hessian_is_not_that_of_a_slightly_wrong_formula() -> None:
    """The oracle tells kappa from its neighbours: centred features, no square, the trace of H."""
    features, weight, bias, labels = random_head(3)
    expected = float(kappa_by_hessian(features, weight, bias, labels, "cross_entropy"))
    probabilities = torch.softmax(features @ weight.T + bias, dim=1)
    trace = float((features.square().sum(1) * gini_impurity(probabilities)).mean())
    wrong = [
        float(relative_flatness(features - features.mean(0), weight, bias)),
        float(relative_flatness(features, weight)),
        trace,
    ]
    assert all(abs(w - expected) > 1e-3 * expected for w in wrong)


@given(shape=shapes, scale=st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_invariances(shape: tuple[int, int, int], scale: float) -> None:
    """theory A3: rescaling, rotation, and a common row shift leave kappa as it is."""
    seed, K, m = shape
    features, weight, bias, _ = random_head(seed, K=K, m=m)
    kappa = relative_flatness(features, weight, bias)
    rotation = orthogonal(seed, m)
    same = [
        relative_flatness(features / scale, weight * scale, bias),
        relative_flatness(features @ rotation, weight @ rotation, bias),
    ]
    # A shift of every row moves all logits of a sample alike.
    same.append(relative_flatness(features, weight + torch.ones(K, 1, dtype=torch.float64) * rotation[0], bias))
    for value in same:
        torch.testing.assert_close(value, kappa, rtol=1e-9, atol=1e-12)


def test_squared_loss_is_not_invariant_under_a_row_shift() -> None:
    features, weight, bias, _ = random_head(0)
    shifted = relative_flatness(features, weight + 1, bias, loss="squared")
    assert not torch.isclose(shifted, relative_flatness(features, weight, bias, loss="squared"))


@pytest.mark.parametrize("gap", [5.0, 20.0, 60.0, 300.0])
def test_no_cancellation_at_large_gaps(gap: float) -> None:
    """At a two-class head kappa is ||h||^2 p (1-p) ||w_1 - w_2||^2, known to the last digit."""
    weight = torch.tensor([[gap / 2, 0.0], [-gap / 2, 0.0]], dtype=torch.float64)
    features = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    q = math.exp(-gap)
    expected = gap**2 * q / (1 + q) ** 2
    assert float(relative_flatness(features, weight)) == pytest.approx(expected, rel=1e-13)
    textbook = torch.softmax(features @ weight.T, dim=1)[0]
    naive = float((textbook * weight.square().sum(1)).sum() - (textbook @ weight).square().sum())
    if gap >= 60:  # what the formula as usually written gives
        assert naive == 0.0


@pytest.mark.parametrize("d", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_rows_keep_their_digits(d: float) -> None:
    """Rows d apart at distance 100 from a third: kappa is ||h||^2 p_1 p_2 d^2 and next to nothing else."""
    weight = torch.tensor([[100.0, 0], [100, d], [-100, 0]], dtype=torch.float64)
    features = torch.tensor([[5.0, 0.3]], dtype=torch.float64)
    exact_d = float(weight[1, 1])
    p = 1 / (1 + math.exp(-0.3 * exact_d))
    expected = (25 + 0.09) * p * (1 - p) * exact_d**2
    assert float(relative_flatness(features, weight)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("no_shape_checks")
def test_reductions_and_bad_input() -> None:
    features, weight, bias, _ = random_head(1)
    each = relative_flatness(features, weight, bias, reduction="none")
    assert each.shape == (12,)
    torch.testing.assert_close(each.sum(), relative_flatness(features, weight, bias, reduction="sum"))
    torch.testing.assert_close(each.mean(), relative_flatness(features, weight, bias))
    with pytest.raises(ValueError, match="reduction"):
        relative_flatness(features, weight, reduction="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss"):
        relative_flatness(features, weight, loss="hinge")  # type: ignore[arg-type]
    for function in (relative_flatness, frobenius_surrogate):
        with pytest.raises(ValueError, match="no samples"):
            function(features[:0], weight)


def test_kappa_is_differentiable_twice() -> None:
    features, weight, bias, _ = random_head(2, n=5, m=2, K=3)
    arguments = (features.requires_grad_(), weight.requires_grad_(), bias)
    assert torch.autograd.gradcheck(relative_flatness, arguments)
    assert torch.autograd.gradgradcheck(relative_flatness, arguments)


def test_float32_agrees_with_float64() -> None:
    features, weight, bias, _ = random_head(4)
    narrow = relative_flatness(features.float(), weight.float(), bias.float())
    torch.testing.assert_close(narrow.double(), relative_flatness(features, weight, bias), rtol=2e-5, atol=0)


@given(shape=shapes)
@settings(max_examples=30, deadline=None)
def test_surrogate_is_an_upper_bound(shape: tuple[int, int, int]) -> None:
    """theory C1."""
    seed, K, m = shape
    features, weight, bias, _ = random_head(seed, K=K, m=m)
    kappa, surrogate = relative_flatness(features, weight, bias), frobenius_surrogate(features, weight, bias)
    assert float(kappa) <= float(surrogate) * (1 + 1e-12)


def test_surrogate_bounds_no_more_than_kappa() -> None:
    """The constant 1 of C1 is sharp: K = 2 with opposite rows attains it, so no smaller one holds."""
    weight = torch.tensor([[1.0, 0.5], [-1.0, -0.5]], dtype=torch.float64)
    features = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(relative_flatness(features, weight), frobenius_surrogate(features, weight))


@pytest.mark.parametrize("K", [2, 3, 10, 97])
def test_surrogate_is_k_minus_one_times_kappa_at_a_simplex_head(K: int) -> None:
    """theory C2, for features that are not collapsed at all."""
    _, weight, _, _ = collapsed(0, K=K, m=K + 2)
    features = torch.randn(9, K + 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ratio = frobenius_surrogate(features, weight) / relative_flatness(features, weight)
    assert float(ratio) == pytest.approx(K - 1, rel=1e-10)


def test_surrogate_is_gameable() -> None:
    """theory C3: shift every row and the surrogate explodes, kappa and the outputs stay."""
    features, weight, bias, _ = random_head(5)
    shifted = weight + 100.0
    torch.testing.assert_close(
        relative_flatness(features, shifted, bias), relative_flatness(features, weight, bias), rtol=1e-8, atol=0
    )
    assert frobenius_surrogate(features, shifted, bias) > 1000 * frobenius_surrogate(features, weight, bias)


def test_surrogate_ceiling_with_normalised_features() -> None:
    """theory C3: B^2 (1 - 1/K) at uniform outputs, 2250 for B = 50, K = 10, where kappa is 0."""
    weight = torch.full((10, 4), 50 / math.sqrt(40), dtype=torch.float64)
    features = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ceiling = frobenius_surrogate(features, weight, temperature=2.0, normalize_features=True)
    assert float(ceiling) == pytest.approx(2250)
    assert float(relative_flatness(features, weight)) == pytest.approx(0, abs=1e-9)


@given(st.integers(0, 1000), st.floats(0, 500))
@settings(max_examples=50, deadline=None)
def test_gini_impurity_keeps_its_digits(seed: int, gap: float) -> None:
    """Against exact arithmetic: one logit `gap` above three equal ones."""
    q = math.exp(-gap)
    logits = torch.tensor([[gap, 0.0, 0.0, 0.0]], dtype=torch.float64)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    expected = 3 * q * (2 + 2 * q) / (1 + 3 * q) ** 2
    assert float(gini_impurity(torch.softmax(logits[:, order], dim=1))) == pytest.approx(expected, rel=1e-12)
