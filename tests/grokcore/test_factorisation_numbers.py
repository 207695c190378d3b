"""The flattest reparametrisation where numbers are hard: ranks, sizes, dtypes, large gaps, and what is refused.

Oracles: exact rational arithmetic for ranks, float64 for lower precisions, closed forms at rank 1.
"""

from __future__ import annotations

import math

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore.errors import NonFiniteError, UsageError
from grokcore.factorisation import flattest_reparametrisation
from grokcore.flatness import relative_flatness
from tests.cases import collapsed, orthogonal, random_head

seeds = st.integers(0, 10_000)
sizes = st.tuples(seeds, st.integers(2, 6), st.integers(1, 7), st.integers(0, 9))


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


@pytest.mark.parametrize("gap", [712.0, 725.0, 744.0])
def test_outputs_that_have_lost_digits_are_no_minimum(gap: float) -> None:
    """Imbalance leaves room below kappa, but subnormal probabilities say nothing reliable."""
    features, weight, bias, _ = collapsed(12, K=4, m=3, gap=gap, per_class=4)
    found = flattest_reparametrisation(features[[0, 1, 2, 3, 4, 8, 12]], weight, bias)
    assert 0 < found.infimum < found.kappa
    assert not found.converged
    assert found.gradient_norm > 1e-3


def test_features_of_many_sizes() -> None:
    features, weight, bias, _ = random_head(14, n=40, m=7, K=5)
    sized = features * torch.logspace(-6, 1, 40, dtype=torch.float64)[:, None]
    found = flattest_reparametrisation(sized, weight, bias)
    assert found.converged
    assert found.infimum < found.kappa


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
    for settings_of in (
        {"tolerance": -1.0},
        {"tolerance": math.nan},
        {"max_iterations": -1},
        {"rank_tolerance": -1e-9},
    ):
        with pytest.raises(UsageError, match="negative"):
            flattest_reparametrisation(features, weight, bias, **settings_of)


@pytest.mark.parametrize(("dtype", "weak"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_direction_weak_on_both_sides_is_one(dtype: torch.dtype, weak: float) -> None:
    """Its logits are below rounding, yet H and W~ span the same space: the map exists."""
    features, weight, bias, _ = random_head(22, n=12, m=4, K=6)
    assert bias is not None
    features, weight = (x @ torch.diag(x.new_tensor([1, 1, 1, weak])) @ orthogonal(22, 4) for x in (features, weight))
    found = flattest_reparametrisation(features.to(dtype), weight.to(dtype), bias.to(dtype))
    assert (found.rank, found.attained, found.dropped) == (4, True, 0.0)
    assert found.full_map is not None
    moved, head = features @ found.full_map.T, weight @ torch.linalg.inv(found.full_map)
    assert float(relative_flatness(moved, head, bias)) == pytest.approx(found.infimum, rel=1e-5)


@given(seed=seeds, size=st.tuples(*[st.integers(1, 5)] * 3), spans=st.tuples(*[st.integers(0, 4)] * 2))
def test_ranks_are_those_of_exact_arithmetic(seed: int, size: tuple[int, int, int], spans: tuple[int, int]) -> None:
    """Integer heads of every rank, turned at random: float32 and float64 count what rational arithmetic counts."""
    generator, (K, m, n) = torch.Generator().manual_seed(seed), size
    weight, features = (
        torch.randint(-3, 4, (k, r), generator=generator) @ torch.randint(-2, 3, (r, m), generator=generator)
        for k, r in zip((K, n), spans, strict=True)
    )
    rows = sympy.Matrix((K * weight - weight.sum(0)).tolist())
    seen, used = rows.rank(), sympy.Matrix(features.tolist()).rank()
    rank = (rows * sympy.Matrix(features.tolist()).T).rank()
    turn = orthogonal(seed, m) / 4
    for dtype in (torch.float32, torch.float64):
        found = flattest_reparametrisation((features.double() @ turn).to(dtype), (weight.double() @ turn).to(dtype))
        assert found.rank == rank
        assert found.attained == (seen == used == rank or min(seen, used) == 0)


@pytest.mark.parametrize("weak", [1e-2, 1e-7, 1e-13])
def test_a_lopsided_head_keeps_its_infimum(weak: float) -> None:
    """Features scaled by `weak` in one direction, the head by its inverse: kappa grows as weak^-2, the infimum not."""
    features, weight, bias, _ = random_head(23, n=12, m=4, K=6)
    scales = torch.tensor([1, 1, 1, weak], dtype=torch.float64)
    found = flattest_reparametrisation(features * scales, weight / scales, bias)
    assert found.infimum == pytest.approx(flattest_reparametrisation(features, weight, bias).infimum, rel=1e-8)
    assert (found.rank, found.attained) == (4, True)


def test_logits_that_rounding_may_hide_are_refused() -> None:
    """A wide head where the ranks cannot settle it; no tolerance below rounding helps, one above it is a choice."""
    features, weight, _, _ = random_head(24, n=12, m=6, K=5)
    scales = torch.tensor([1e-15, *[1.0] * 5], dtype=torch.float64)
    for tolerance in (None, 1e-17):
        with pytest.raises(UsageError, match="nats of a logit"):
            flattest_reparametrisation(features * scales, weight / scales, rank_tolerance=tolerance)
    chosen = flattest_reparametrisation(features, weight, rank_tolerance=0.1)
    assert chosen.rank < 4
    assert chosen.dropped > 0.1
    assert flattest_reparametrisation(features, weight).dropped < 1e-13


@pytest.mark.parametrize(("up", "down"), [(1e200, 1e-200), (1e-250, 1e250)])
def test_sizes_far_from_one_change_nothing(up: float, down: float) -> None:
    features, weight, bias, _ = random_head(25)
    found, plain = (flattest_reparametrisation(features * a, weight * b, bias) for a, b in ((up, down), (1.0, 1.0)))
    assert (found.kappa, found.infimum) == pytest.approx((plain.kappa, plain.infimum), rel=1e-10)
    torch.testing.assert_close(found.weight.norm(), plain.weight.norm())


@pytest.mark.parametrize("size", [1e-150, 1e-160, 1e-300])
def test_logits_that_vanish_have_a_rank(size: float) -> None:
    """kappa underflows; the map is still a map of the same shape."""
    features, weight, bias, _ = random_head(26, n=9, m=3, K=5)
    found = flattest_reparametrisation(features * size, weight * size, bias)
    assert (found.rank, found.infimum, found.converged) == (3, 0.0, True)
    assert found.full_map is not None
    assert found.full_map.shape == (3, 3)
    assert bool(torch.isfinite(found.full_map).all())


def test_half_precision_is_taken_as_given() -> None:
    """64 eps of bfloat16 would be half of everything."""
    features, weight, bias, _ = random_head(27, n=20, m=4, K=6)
    assert bias is not None
    half, head = features.bfloat16(), weight.bfloat16()
    found = flattest_reparametrisation(half, head, bias.bfloat16())
    assert found.rank == 4
    expected = flattest_reparametrisation(half.double(), head.double(), bias.bfloat16().double())
    assert found.infimum == pytest.approx(expected.infimum, rel=1e-9)


def test_the_coarser_of_two_dtypes_counts() -> None:
    """A float32 head on float64 features: rounding of its rows is no direction."""
    features, weight, _, _ = random_head(28, n=12, m=5, K=6)
    plane = torch.randn(6, 2, generator=torch.Generator().manual_seed(28), dtype=torch.float64) @ weight[:2]
    assert flattest_reparametrisation(features, plane.float()).rank == 2
    assert flattest_reparametrisation(features, plane.float().double()).rank > 2
