"""information_bounds: against loops in numpy, fractions by hand, and the exact information of two points."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import ClassMoments, NonFiniteError, UsageError, collapse_report
from grokcore.geometry import Scatter
from grokcore.information import InformationBounds, information_bounds
from theory.numeric.configurations import rotation


def moments_of(
    features: torch.Tensor, labels: torch.Tensor, K: int | None = None, scatter: Scatter = "per_class"
) -> ClassMoments:
    classes = int(labels.max()) + 1 if K is None else K
    return ClassMoments(classes, features.shape[1], scatter=scatter).update(features, labels)


def cloud(seed: int, counts: list[int], m: int, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    roots = rng.standard_normal((len(counts), m, m)) * rng.exponential(1, (len(counts), 1, 1))
    means = 2 * rng.standard_normal((len(counts), m)) + offset
    noise = rng.standard_normal((len(labels), 1, m)) @ roots[labels]
    return torch.tensor(means[labels] + noise[:, 0]), torch.tensor(labels)


def by_loops(features: np.ndarray, groups: np.ndarray, size: float) -> tuple[float, float, float]:
    """The three bounds at noise * scale = size, each from its definition."""
    n, m = features.shape
    pooled, log_det = np.zeros((m, m)), 0.0
    for group in sorted(set(groups.tolist())):
        own = features[groups == group]
        centre = sum(own) / len(own)
        cov = sum((np.outer(h - centre, h - centre) for h in own), np.zeros((m, m))) / len(own)
        log_det += len(own) / n * np.linalg.slogdet(cov / size**2 + np.eye(m))[1] / 2
        pooled += len(own) / n * cov
    return log_det, np.linalg.slogdet(pooled / size**2 + np.eye(m))[1] / 2, float(np.trace(pooled)) / (2 * size**2)


def numbers(found: InformationBounds) -> tuple[float, float, float]:
    return found.log_det, found.pooled_log_det, found.trace


cases = st.tuples(st.integers(0, 10_000), st.lists(st.integers(1, 6), min_size=2, max_size=5), st.integers(1, 4))


@given(case=cases, noise=st.floats(0.1, 5), scale=st.floats(0.1, 5))
def test_definition_and_order(case: tuple[int, list[int], int], noise: float, scale: float) -> None:
    features, labels = cloud(*case)
    found = information_bounds(moments_of(features, labels), noise=noise, scale=scale)
    assert numbers(found) == pytest.approx(
        by_loops(features.numpy(), labels.numpy(), noise * scale), rel=1e-8, abs=1e-12
    )
    assert found.log_det <= found.pooled_log_det <= found.trace
    assert found.scale == scale
    assert found.reasons == {}


@given(case=cases, data=st.data(), noise=st.floats(0.1, 5))
def test_superclasses_are_the_samples_of_their_classes(
    case: tuple[int, list[int], int], data: st.DataObject, noise: float
) -> None:
    features, labels = cloud(*case)
    upper = data.draw(st.lists(st.integers(-3, 3), min_size=len(case[1]), max_size=len(case[1])))
    found = information_bounds(moments_of(features, labels), noise=noise, scale=1.0, superclasses=upper)
    groups = np.array(upper)[labels.numpy()]
    assert numbers(found) == pytest.approx(by_loops(features.numpy(), groups, noise), rel=1e-8, abs=1e-12)
    alone = information_bounds(moments_of(features, labels), noise=noise, scale=1.0)
    assert alone.trace <= found.trace * (1 + 1e-9)
    own = information_bounds(moments_of(features, labels), noise=noise, scale=1.0, superclasses=range(len(upper)))
    assert numbers(own) == pytest.approx(numbers(alone), rel=1e-12, abs=1e-300)


SIGN = torch.tensor([[1.0], [-1.0], [5.0], [5.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1])


@pytest.mark.parametrize(("noise", "told"), [(0.5, 0.63272019), (1.0, 0.33683082), (3.0, 0.05267164)])
def test_two_points_whose_information_is_known(noise: float, told: float) -> None:
    """Half of the samples are h = +-1, the others a point: half of the information of h = +-1."""
    found = information_bounds(moments_of(*SIGN), noise=noise, scale=1.0)
    assert found.log_det == pytest.approx(math.log1p(1 / noise**2) / 4)
    assert found.pooled_log_det == pytest.approx(math.log1p(1 / (2 * noise**2)) / 2)
    assert found.trace == pytest.approx(1 / (4 * noise**2))
    assert told / 2 < found.log_det < found.pooled_log_det < found.trace


def test_stronger_siblings_are_below_the_information() -> None:
    """Half the trace, no share of the class, and s in place of s^2, where the information is known."""
    told = 0.05267164 / 2
    found = information_bounds(moments_of(*SIGN), noise=3.0, scale=1.0)
    assert found.trace / 2 < told < found.log_det
    tenth = information_bounds(moments_of(SIGN[0] / 10, SIGN[1]), noise=0.3, scale=1.0)
    assert tenth.log_det == pytest.approx(found.log_det)
    assert tenth.trace * 0.3 < told
    assert information_bounds(moments_of(*SIGN), noise=3.0, scale=1.0, superclasses=[0, 0]).trace > found.trace


def test_superclasses_by_hand() -> None:
    """Classes {0, 2}, {4} and {-7, -7}; the first two together have mean 2 and variance 8/3."""
    features = torch.tensor([[0.0], [2.0], [4.0], [-7.0], [-7.0]], dtype=torch.float64)
    moments = moments_of(features, torch.tensor([0, 0, 1, 2, 2]))
    found = information_bounds(moments, noise=1.0, scale=1.0, superclasses=[9, 9, 4])
    within = Fraction(3, 5) * Fraction(8, 3)
    assert found.trace == pytest.approx(float(within / 2))
    assert found.pooled_log_det == pytest.approx(math.log(1 + float(within)) / 2)
    assert found.log_det == pytest.approx(0.6 * math.log(11 / 3) / 2)


def test_default_scale_is_the_root_mean_square_norm() -> None:
    """So the trace is RNC1 with that norm over 2 s^2: NC1/(1+NC1+g^2) for balanced classes; units do not matter."""
    features, labels = cloud(3, [6, 6, 6], 4, offset=1.0)
    moments = moments_of(features, labels)
    found, report = information_bounds(moments, noise=0.4), collapse_report(moments)
    assert found.scale == pytest.approx(float(features.square().sum(dim=1).mean().sqrt()))
    relative = report.nc1_trace_ratio / (1 + report.nc1_trace_ratio + report.global_mean_ratio**2)
    assert found.trace == pytest.approx(relative / (2 * 0.4**2))
    assert numbers(information_bounds(moments_of(1e4 * features, labels), noise=0.4)) == pytest.approx(numbers(found))
    sup = information_bounds(moments, noise=0.4, scale=float(moments.norm_max))
    assert sup.trace == pytest.approx(report.rnc1_sup / (2 * 0.4**2))


def test_moments_that_keep_less() -> None:
    features, labels = cloud(4, [5, 3, 4], 3)
    whole = numbers(information_bounds(moments_of(features, labels), noise=1.0, superclasses=[0, 1, 1]))
    pooled = information_bounds(moments_of(features, labels, scatter="pooled"), noise=1.0, superclasses=[0, 1, 1])
    assert math.isnan(pooled.log_det)
    assert set(pooled.reasons) == {"log_det"}
    assert numbers(pooled)[1:] == pytest.approx(whole[1:])
    trace = information_bounds(moments_of(features, labels, scatter="trace"), noise=1.0, superclasses=[0, 1, 1])
    assert math.isnan(trace.log_det)
    assert math.isnan(trace.pooled_log_det)
    assert set(trace.reasons) == {"log_det", "pooled_log_det"}
    assert trace.trace == pytest.approx(whole[2])


def test_merged_moments_and_a_large_common_offset() -> None:
    features, labels = cloud(5, [7, 4, 6], 3)
    together = information_bounds(moments_of(features, labels), noise=0.7, scale=1.0, superclasses=[0, 0, 1])
    first, second = (moments_of(features[i::2], labels[i::2], K=3) for i in (0, 1))
    merged = information_bounds(first.merge(second), noise=0.7, scale=1.0, superclasses=[0, 0, 1])
    assert numbers(merged) == pytest.approx(numbers(together), rel=1e-12)
    moved = information_bounds(moments_of(features + 2.0**20, labels), noise=0.7, scale=1.0, superclasses=[0, 0, 1])
    assert numbers(moved) == pytest.approx(numbers(together), rel=1e-8)


def test_collapse_is_zero_and_small_variance_keeps_its_digits() -> None:
    features, labels = cloud(6, [1, 1, 1], 3)
    exact = information_bounds(moments_of(features.repeat(4, 1), labels.repeat(4)), noise=1e-3)
    assert numbers(exact) == (0.0, 0.0, 0.0)
    small = information_bounds(moments_of(1e-12 * SIGN[0], SIGN[1]), noise=1.0, scale=1.0)
    assert numbers(small) == pytest.approx((2.5e-25,) * 3, rel=1e-12)


def test_more_features_than_samples_and_extreme_noise() -> None:
    features, labels = cloud(7, [2, 2], 12)
    found = information_bounds(moments_of(features, labels), noise=1.0, scale=1.0)
    assert numbers(found) == pytest.approx(by_loops(features.numpy(), labels.numpy(), 1.0))
    fine = information_bounds(moments_of(*SIGN), noise=1e-160, scale=1e-40)
    assert fine.log_det == pytest.approx(200 * math.log(10) / 2)
    assert fine.trace == math.inf
    assert information_bounds(moments_of(*SIGN), noise=1e200, scale=1.0).trace == 0.0


@pytest.mark.parametrize("noise", [1e-7, 1e-8, 1e-10])
@pytest.mark.parametrize("m", [2, 6])
def test_a_variance_that_rounding_hides_is_counted(m: int, noise: float) -> None:
    """Standard deviations 1, 1e-9, 1e-9, ... along rotated axes: what float64 cannot tell from 0 is no 0."""
    deviations = torch.tensor([1.0, *[1e-9] * (m - 1)], dtype=torch.float64)
    exact = sum(math.log1p((x / noise) ** 2) for x in deviations.tolist()) / 2
    for seed in range(5):
        points = math.sqrt(m) * torch.diag(deviations) @ rotation(seed, m)
        features, labels = torch.cat([points, -points] * 2), torch.arange(4 * m) // (2 * m)
        found = information_bounds(moments_of(features, labels), noise=noise, scale=1.0)
        assert exact * (1 - 1e-9) <= found.log_det <= found.pooled_log_det <= found.trace


def test_bad_input(no_shape_checks: None) -> None:
    features, labels = cloud(8, [3, 3], 2)
    moments = moments_of(features, labels)
    for name, value in (("noise", math.nan), ("noise", math.inf), ("scale", math.nan)):
        with pytest.raises(NonFiniteError, match=name):
            information_bounds(moments, **{"noise": 1.0, name: value})
    for name, value in (("noise", 0.0), ("noise", -1.0), ("scale", 0.0)):
        with pytest.raises(UsageError, match=f"{name} must be positive"):
            information_bounds(moments, **{"noise": 1.0, name: value})
    for wrong in ([0], [0, 1, 1], [0.0, 1.0], ["a", "b"]):
        with pytest.raises(UsageError, match="superclasses must be 2 integers"):
            information_bounds(moments, noise=1.0, superclasses=wrong)
    with pytest.raises(UsageError, match="no samples of class 2"):
        information_bounds(moments_of(features, labels, K=3), noise=1.0)
    with pytest.raises(UsageError, match="all features are zero"):
        information_bounds(moments_of(0 * features, labels), noise=1.0)
    assert numbers(information_bounds(moments_of(0 * features, labels), noise=1.0, scale=1.0)) == (0.0, 0.0, 0.0)
