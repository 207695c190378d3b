"""Every metric against the slow oracle of tests/contracts, in 40 digits; many classes against it in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contracts import oracle
from tests.contracts.clouds import random_cloud
from tests.contracts.instruments import measured, reference_of
from tests.contracts.metrics import COLLAPSE, METRICS, check_definition, definition_of, same


@given(
    seed=st.integers(0, 10_000),
    K=st.integers(2, 6),
    extra=st.integers(-2, 3),
    largest=st.integers(1, 5),
    noise=st.sampled_from([1e-3, 0.5, 2.0]),
)
@settings(max_examples=20)
def test_random_clouds(seed: int, K: int, extra: int, largest: int, noise: float) -> None:
    cloud = random_cloud(seed, K=K, m=max(K - 1 + extra, 1), largest=largest, noise=noise)
    expected = definition_of(cloud)
    for metric in METRICS:
        check_definition(metric, cloud, expected)


@pytest.mark.parametrize(
    "hard",
    [
        pytest.param({"noise": 1e-6}, id="near-collapse"),
        pytest.param({"offset": 1e4}, id="offset"),
        pytest.param({"offset": 1e4, "noise": 1e-6}, id="near-collapse-far-out"),
        pytest.param({"along": 1e-4}, id="noise-off-the-span"),
        pytest.param({"along": 1e-4, "offset": 1e3}, id="noise-off-the-span-far-out"),
        pytest.param({"noise": 30.0}, id="no-collapse"),
    ],
)
@pytest.mark.parametrize(("K", "m"), [(2, 3), (5, 4), (6, 9), (7, 4)])
def test_hard_clouds(K: int, m: int, hard: dict[str, Any]) -> None:
    for seed in range(2):
        cloud = random_cloud(seed, K=K, m=m, **hard)
        expected = definition_of(cloud)
        for metric in METRICS:
            check_definition(metric, cloud, expected)


def test_more_features_than_samples() -> None:
    cloud = random_cloud(0, K=4, m=24)
    assert len(cloud.labels) < 24
    expected = definition_of(cloud)
    for metric in METRICS:
        check_definition(metric, cloud, expected)


def test_one_sample_in_each_class_has_no_variance() -> None:
    found = measured(random_cloud(3, K=5, m=6, largest=1))
    for name in ("nc1_papyan", "nc1_trace_ratio", "rnc1_sup", "rnc1_mean", "cdnv", "within_class_variance"):
        assert found[name] == 0
    assert found["nc2_etf"] > 0.01
    assert found["variance_ratio"] == 0
    assert found["variance_ratio_about_reference"] > 0


@pytest.mark.parametrize("m", [64, 256])
def test_two_hundred_classes(m: int) -> None:
    cloud = random_cloud(0, K=200, m=m, largest=3)
    found, expected = measured(cloud), oracle.feature_values(cloud, oracle.FLOAT64)
    for name in COLLAPSE:
        assert same(found[name], expected[name], rel=1e-9), name
    nan = {name for name in COLLAPSE if math.isnan(found[name])}
    assert nan == ({"nc2_equiangle", "nc2_etf", "nc3_duality"} if m < 199 else set())


def test_the_two_arithmetics_of_the_oracle_agree() -> None:
    cloud = random_cloud(1, K=5, m=7)
    loops, digits = (oracle.all_values(cloud, reference_of(cloud), a) for a in (oracle.FLOAT64, oracle.DIGITS))
    assert loops.keys() == digits.keys()
    for name, value in digits.items():
        assert same(loops[name], value, rel=1e-11), name
