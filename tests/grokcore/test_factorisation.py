"""The flattest reparametrisation against oracles that share no code with it.

Dense Hessians (theory.oracle), descent over A by LBFGS on autograd, sums over samples in plain loops, and closed
forms where the logits have rank 1.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokcore.errors import NonFiniteError, UsageError
from grokcore.factorisation import FlattestReparametrisation, flattest_reparametrisation
from grokcore.flatness import relative_flatness
from tests.cases import collapsed, orthogonal, random_head
from theory.configurations import Head
from theory.oracle import kappa_by_hessian

seeds = st.integers(0, 10_000)
sizes = st.tuples(seeds, st.integers(2, 6), st.integers(1, 7), st.integers(0, 9))


def drawn(size: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    seed, K, m, extra = size
    features, weight, bias, _ = random_head(seed, n=K + extra, m=m, K=K)
    assert bias is not None
    return features, weight, bias


def by_hessian(features: Tensor, weight: Tensor, bias: Tensor) -> float:
    return kappa_by_hessian(Head(features, weight, bias, torch.zeros(len(features), dtype=torch.long)))


@given(size=sizes)
def test_the_reduced_head_has_the_infimum_and_the_outputs(size: tuple[int, int, int, int]) -> None:
    features, weight, bias = drawn(size)
    found = flattest_reparametrisation(features, weight, bias)
    moved = features @ found.map.T
    assert found.converged
    assert float(relative_flatness(moved, found.weight, bias)) == pytest.approx(found.infimum, rel=1e-12)
    assert by_hessian(moved, found.weight, bias) == pytest.approx(found.infimum, rel=1e-9)
    before, after = (torch.softmax(x @ w.T + bias, 1) for x, w in ((features, weight), (moved, found.weight)))
    torch.testing.assert_close(after, before, rtol=1e-9, atol=1e-13)


@given(size=sizes)
def test_stationary_by_plain_loops(size: tuple[int, int, int, int]) -> None:
    """mean v_i f_i f_i^T = mean n_i B_i at the reduced head, sample by sample with numpy."""
    features, weight, bias = drawn(size)
    found = flattest_reparametrisation(features, weight, bias)
    moved, rows = (features @ found.map.T).numpy(), found.weight.numpy()
    p = torch.softmax(features @ weight.T + bias, 1).numpy()
    seen, between = np.zeros((found.rank, found.rank)), np.zeros((found.rank, found.rank))
    for q, f in zip(p, moved, strict=True):
        covariance = rows.T @ (np.diag(q) - np.outer(q, q)) @ rows
        seen += np.trace(covariance) * np.outer(f, f) / len(p)
        between += f @ f * covariance / len(p)
    # The returned scale weighs both by the same factor, so equality survives it.
    np.testing.assert_allclose(seen, between, atol=1e-8 * np.trace(seen))
    assert np.trace(seen) == pytest.approx(found.infimum, rel=1e-9)


@settings(max_examples=8)
@given(seed=seeds, m=st.integers(2, 3))
def test_descent_over_the_maps_finds_the_same(seed: int, m: int) -> None:
    """The full problem where the infimum is attained: LBFGS over A from the identity."""
    features, weight, bias, _ = random_head(seed, n=7, m=m, K=4)
    A = torch.eye(m, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.LBFGS([A], max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-18)

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = relative_flatness(features @ A.T, weight @ torch.linalg.inv(A), bias).log()
        value.backward()
        return value

    optimiser.step(loss)
    found = flattest_reparametrisation(features, weight, bias)
    assert found.attained
    assert math.exp(float(loss().detach())) == pytest.approx(found.infimum, rel=1e-8)


@given(size=sizes)
def test_the_full_map_attains_and_changes_no_output(size: tuple[int, int, int, int]) -> None:
    seed, K, m, extra = size
    features, weight, bias = drawn((seed, K, min(m, K - 1), extra))
    found = flattest_reparametrisation(features, weight, bias)
    assert found.attained
    assert found.full_map is not None
    moved, head = features @ found.full_map.T, weight @ torch.linalg.inv(found.full_map)
    torch.testing.assert_close(moved @ head.T, features @ weight.T, rtol=1e-8, atol=1e-9)
    assert float(relative_flatness(moved, head, bias)) == pytest.approx(found.infimum, rel=1e-8)


@settings(max_examples=10)
@given(size=sizes)
def test_rotations_and_every_other_map_leave_the_infimum(size: tuple[int, int, int, int]) -> None:
    features, weight, bias = drawn(size)
    seed, m = size[0], features.shape[1]
    turn = orthogonal(seed, m)
    A = turn * torch.logspace(-1, 1, m, dtype=torch.float64)
    infimum = flattest_reparametrisation(features, weight, bias).infimum
    turned = flattest_reparametrisation(features @ turn.T, weight @ turn.T, bias)
    assert turned.infimum == pytest.approx(infimum, rel=1e-9)
    assert turned.kappa == pytest.approx(float(relative_flatness(features, weight, bias)), rel=1e-9)
    assert flattest_reparametrisation(features @ A.T, weight @ torch.linalg.inv(A), bias).infimum == pytest.approx(
        infimum, rel=1e-8
    )


@settings(max_examples=10)
@given(size=sizes, scale=st.floats(1e-4, 1e4))
def test_shifted_rows_scales_and_repeated_samples_leave_it(size: tuple[int, int, int, int], scale: float) -> None:
    features, weight, bias = drawn(size)
    infimum = flattest_reparametrisation(features, weight, bias).infimum
    shifted = flattest_reparametrisation(features, weight + 2 * features[0], bias + 3)
    scaled = flattest_reparametrisation(features * scale, weight / scale, bias)
    twice = flattest_reparametrisation(torch.cat([features, features]).flip(0), weight, bias)
    assert [f.infimum for f in (shifted, scaled, twice)] == pytest.approx([infimum] * 3, rel=1e-8)


@given(size=sizes)
def test_between_the_logits_variance_and_kappa(size: tuple[int, int, int, int]) -> None:
    """mean Var_p(<w_s, h>) <= infimum <= kappa: the lower bound of the outputs holds for every factorisation."""
    features, weight, bias = drawn(size)
    found = flattest_reparametrisation(features, weight, bias)
    logits = features @ weight.T
    p = torch.softmax(logits + bias, 1)
    variance = float(((p * logits**2).sum(1) - (p * logits).sum(1) ** 2).mean())
    assert variance * (1 - 1e-9) <= found.infimum <= found.kappa * (1 + 1e-12)
    if found.rank == 1:
        assert found.infimum == pytest.approx(variance, rel=1e-8)


def test_one_sample_leaves_the_variance_of_its_logits() -> None:
    features, weight, bias, _ = random_head(5, n=5, m=6, K=5)
    found = flattest_reparametrisation(features[:1], weight, bias)
    logits = weight @ features[0]
    p = torch.softmax(logits + bias, 0)
    assert (found.rank, found.iterations) == (1, 0)
    assert found.infimum == pytest.approx(float((p * (logits - p @ logits) ** 2).sum()), rel=1e-12)


def test_moving_off_the_minimum_raises_kappa() -> None:
    features, weight, bias, _ = random_head(6, n=20, m=3, K=4)
    found = flattest_reparametrisation(features, weight, bias)
    for seed in range(6):
        x = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = torch.linalg.matrix_exp(1e-2 * (x + x.T))
        moved = relative_flatness(features @ found.map.T @ step, found.weight @ torch.linalg.inv(step), bias)
        assert float(moved) > found.infimum * (1 + 1e-6)


def test_balanced_collapse_is_already_the_flattest() -> None:
    features, weight, bias, _ = collapsed(1, K=6, m=9)
    found = flattest_reparametrisation(features, weight, bias)
    assert (found.attained, found.iterations, found.rank) == (True, 0, 5)
    assert found.infimum == pytest.approx(found.kappa, rel=1e-12)


def test_a_global_mean_that_no_row_sees_is_shrunk() -> None:
    features, weight, bias, _ = collapsed(2, K=4, m=6, gamma=2.0)
    found = flattest_reparametrisation(features, weight, bias)
    assert found.infimum == pytest.approx(found.kappa / 5, rel=1e-10)
    assert not found.attained
    assert found.full_map is None


def test_imbalance_leaves_room_below_collapse() -> None:
    features, weight, bias, labels = collapsed(3, K=4, m=4, per_class=5)
    few = torch.cat([torch.nonzero(labels == 0).flatten(), *(torch.nonzero(labels == k)[:1, 0] for k in (1, 2, 3))])
    found = flattest_reparametrisation(features[few], weight, bias)
    assert found.attained
    assert found.infimum < 0.99 * found.kappa


def test_maps_near_the_infimum_where_none_attains_it() -> None:
    """Noise that no row sees: shrinking it by eps leaves eps^2 of what it costs."""
    features, weight, bias, _ = random_head(7, n=8, m=5, K=3)
    found = flattest_reparametrisation(features, weight, bias)
    hidden = torch.linalg.svd(weight - weight.mean(0))[2][2:]
    excess = []
    for eps in (1e-1, 1e-2):
        A = torch.cat([found.map, eps * hidden])
        value = relative_flatness(features @ A.T, weight @ torch.linalg.inv(A), bias)
        excess.append(float(value) - found.infimum)
    assert not found.attained
    assert excess[0] / excess[1] == pytest.approx(100, rel=1e-5)


@pytest.mark.parametrize("K", [1, 3])
def test_equal_rows_have_nothing_to_lower(K: int) -> None:
    features, weight, _, _ = random_head(8, n=6, m=4, K=3)
    found = flattest_reparametrisation(features, weight[:1].repeat(K, 1))
    assert (found.kappa, found.infimum, found.attained, found.rank) == (0.0, 0.0, True, 0)
    assert (found.map.shape, found.weight.shape) == ((0, 4), (K, 0))
    assert float(relative_flatness(features @ found.map.T, found.weight)) == 0


def test_features_that_no_row_sees_cost_nothing_in_the_limit() -> None:
    """W~ H = 0 but neither is: the infimum 0 is not attained; with no features at all it is."""
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    features = torch.tensor([[0.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    found = flattest_reparametrisation(features, weight)
    assert (found.infimum, found.attained, found.full_map) == (0.0, False, None)
    assert found.kappa == pytest.approx(2.5)
    assert flattest_reparametrisation(0 * features, weight).attained


def test_without_a_bias_it_is_zero() -> None:
    features, weight, _, _ = random_head(9)
    without, zero = (flattest_reparametrisation(features, weight, bias) for bias in (None, torch.zeros(5).double()))
    assert without.infimum == zero.infimum


def test_returned_scale_and_types() -> None:
    features, weight, bias, _ = random_head(10)
    assert bias is not None
    single = flattest_reparametrisation(features.float(), weight.float().requires_grad_(), bias.float())
    double = flattest_reparametrisation(features, weight, bias)
    assert single.map.dtype == single.weight.dtype == torch.float64
    assert not single.weight.requires_grad
    assert single.infimum == pytest.approx(double.infimum, rel=1e-5)
    size = float((features @ double.map.T).square().sum(1).mean())
    assert float(double.weight.square().sum()) == pytest.approx(size, rel=1e-10)


def test_float32_rounding_is_no_rank() -> None:
    """A feature direction of 1e-7 of the size of the others counts as none in float32, as one in float64."""
    features, weight, _, _ = random_head(11, n=12, m=4, K=5)
    features = features * torch.tensor([1.0, 1.0, 1.0, 1e-7], dtype=torch.float64)
    assert flattest_reparametrisation(features.float(), weight.float()).rank == 3
    assert flattest_reparametrisation(features, weight).rank == 4
    assert flattest_reparametrisation(features, weight, rank_tolerance=1e-5).rank == 3


@pytest.mark.parametrize("gap", [50.0, 300.0])
def test_large_gaps_lose_nothing(gap: float) -> None:
    """Imbalanced collapse: the ratio infimum / kappa settles as the gap grows, though kappa is 1e-18, then 1e-126."""
    features, weight, bias, labels = collapsed(12, K=4, m=3, gap=gap, per_class=4)
    few = labels.new_tensor([0, 1, 2, 3, 4, 8, 12])
    found = flattest_reparametrisation(features[few], weight, bias)
    nearer, weight, bias, _ = collapsed(12, K=4, m=3, gap=30.0, per_class=4)
    reference = flattest_reparametrisation(nearer[few], weight, bias)
    assert found.converged
    assert found.infimum / found.kappa == pytest.approx(reference.infimum / reference.kappa, rel=1e-8)


def test_one_hot_outputs_are_flat_and_no_nan() -> None:
    features, weight, bias, _ = collapsed(13, K=4, m=3, gap=2000.0)
    found = flattest_reparametrisation(features, weight, bias)
    assert (found.kappa, found.infimum, found.iterations) == (0.0, 0.0, 0)
    assert bool(torch.isfinite(found.map).all())
    assert bool(torch.isfinite(found.weight).all())


def test_features_of_many_sizes() -> None:
    features, weight, bias, _ = random_head(14, n=40, m=7, K=5)
    sized = features * torch.logspace(-6, 1, 40, dtype=torch.float64)[:, None]
    found = flattest_reparametrisation(sized, weight, bias)
    assert found.converged
    assert found.infimum < found.kappa


def test_a_large_head_takes_few_steps() -> None:
    """K = 40, m = 100, n = 500: the steps do not grow with the size."""
    features, weight, bias, _ = random_head(15, n=500, m=100, K=40)
    found = flattest_reparametrisation(features, 0.3 * weight, bias)
    assert found.converged
    assert found.rank == 39
    assert found.iterations <= 8


def test_a_tolerance_of_zero_ends() -> None:
    """At what rounding leaves of the gradient, with one direction and with several."""
    features, weight, bias, _ = random_head(21, n=20, m=6, K=6)
    for width in (1, 6):
        found = flattest_reparametrisation(features[:, :width], weight[:, :width], bias, tolerance=0.0)
        assert found.iterations < 20
        assert found.gradient_norm < 1e-13


def test_an_early_stop_says_so() -> None:
    features, weight, bias, _ = random_head(16, n=20, m=6, K=6)
    started = flattest_reparametrisation(features, weight, bias, max_iterations=0)
    found = flattest_reparametrisation(features, weight, bias)
    assert (started.converged, started.iterations, found.converged) == (False, 0, True)
    assert started.gradient_norm > 1e-3 > found.gradient_norm
    # What convexity promises: the excess is at most the gradient's norm times the distance.
    relative = torch.linalg.lstsq(started.map.T, found.map.T).solution.T
    logarithms = torch.linalg.svdvals(relative).log() * 2
    distance = float((logarithms - logarithms.mean()).norm())
    assert 0 < 1 - found.infimum / started.infimum <= started.gradient_norm * distance


def test_the_inputs_are_left_alone() -> None:
    features, weight, bias, _ = random_head(17)
    assert bias is not None
    before = [x.clone() for x in (features, weight, bias)]
    found = flattest_reparametrisation(features, weight, bias)
    assert isinstance(found, FlattestReparametrisation)
    assert all(torch.equal(x, y) for x, y in zip(before, (features, weight, bias), strict=True))


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_are_not_finite_are_refused(where: int, value: float) -> None:
    inputs = list(random_head(18)[:3])
    assert inputs[where] is not None
    inputs[where].view(-1)[0] = value
    with pytest.raises(NonFiniteError, match="NaN or infinity"):
        flattest_reparametrisation(*inputs)


def test_an_overflow_is_refused() -> None:
    features, weight, bias, _ = random_head(19)
    with pytest.raises(NonFiniteError, match="overflow"):
        flattest_reparametrisation(features * 1e200, weight * 1e200, bias)


@pytest.mark.usefixtures("no_shape_checks")
def test_shapes_and_settings_are_checked() -> None:
    features, weight, bias, _ = random_head(20)
    assert bias is not None
    wrong = [
        (features[:, 1:], weight, bias),
        (features, weight, bias[1:]),
        (features[:0], weight, bias),
        (features[0], weight, bias),
    ]
    for inputs in wrong:
        with pytest.raises(UsageError):
            flattest_reparametrisation(*inputs)
    for settings_of in ({"tolerance": -1.0}, {"tolerance": math.nan}, {"max_iterations": -1}):
        with pytest.raises(UsageError, match="negative"):
            flattest_reparametrisation(features, weight, bias, **settings_of)
