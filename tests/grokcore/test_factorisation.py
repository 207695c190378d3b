"""The flattest reparametrisation against oracles that share no code with it.

Dense Hessians (theory.numeric.oracle), descent over A by LBFGS on autograd, sums over samples in plain loops,
and closed forms where the logits have rank 1.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grokcore.factorisation import FlattestReparametrisation, flattest_reparametrisation
from grokcore.flatness import relative_flatness
from tests.cases import collapsed, orthogonal, random_head
from theory.numeric.configurations import Head
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.reparametrisation import descended

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


@settings(max_examples=10)
@given(size=sizes, steps=st.integers(0, 2))
def test_the_gradient_by_automatic_differentiation(size: tuple[int, int, int, int], steps: int) -> None:
    """The norm of the derivative of log kappa along P = exp(X) at X = 0, at the map as returned."""
    features, weight, bias = drawn(size)
    found = flattest_reparametrisation(features, weight, bias, max_iterations=steps)
    x = torch.zeros(found.rank, found.rank, dtype=torch.float64, requires_grad=True)
    forth, back = (torch.matrix_exp(sign * (x + x.T) / 4) for sign in (1, -1))
    relative_flatness(features @ found.map.T @ forth, found.weight @ back, bias).log().backward()
    assert x.grad is not None
    assert float(x.grad.norm()) == pytest.approx(found.gradient_norm, rel=1e-6, abs=1e-11)


def trained_head(dtype: torch.dtype, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """A softmax head trained for 200 steps on ReLU features of five noisy classes: (120, m), (5, m), (5,)."""
    generator = torch.Generator().manual_seed(29)
    labels = torch.arange(120) % 5
    noise, means = (torch.randn(k, m, generator=generator, dtype=dtype) for k in (120, 5))
    features = torch.relu(1.5 * means[labels] + 0.6 * noise)
    weight, bias = (torch.zeros(s, dtype=dtype, requires_grad=True) for s in ((5, m), (5,)))
    optimiser = torch.optim.Adam([weight, bias], lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(features @ weight.T + bias, labels).backward()
        optimiser.step()
    return features, weight.detach(), bias.detach()


@pytest.mark.parametrize(("dtype", "width", "attained"), [(torch.float32, 6, False), (torch.float64, 4, True)])
def test_descent_does_not_beat_it_at_a_trained_head(dtype: torch.dtype, width: int, attained: bool) -> None:
    """With m > K - 1 and full-rank features it is not attained: LBFGS over A comes near and stays above."""
    features, weight, bias = trained_head(dtype, width)
    found = flattest_reparametrisation(features, weight, bias)
    assert (found.rank, found.attained, found.converged) == (4, attained, True)
    head = Head(features.double(), weight.double(), bias.double(), torch.arange(120) % 5)
    reached = descended(head, None, steps=200) / found.infimum
    assert 1 - 1e-12 <= reached < (1 + 1e-9 if attained else 1.01)
    assert found.infimum < 0.8 * found.kappa
