"""Narrow features with a large common offset: the float64 answer of the same rounded features, to 1e-5."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.contracts.clouds import Cloud, random_cloud
from tests.contracts.metrics import FUNCTIONS, METRICS, check_definition, definition_of
from tests.contracts.wrong_metrics import one_pass

# Class means of order `size`, so that the rounding of the dtype at the offset leaves the classes apart.
NARROW = [
    pytest.param(torch.float32, 1e4, 1.0, id="float32"),
    pytest.param(torch.float32, 1e6, 10.0, id="float32-far"),
    pytest.param(torch.bfloat16, 1e3, 40.0, id="bfloat16"),
    pytest.param(torch.float16, 2e3, 20.0, id="float16"),
]
# The free functions of a head compute in the dtype they are given; measure does not.
IN_FLOAT64 = [metric for metric in METRICS if metric not in FUNCTIONS or metric.name == "cdnv()"]


def narrow_cloud(seed: int, dtype: torch.dtype, offset: float, size: float, *, K: int = 5, m: int = 8) -> Cloud:
    """Features and head rounded to `dtype`, the features about an offset in every coordinate."""
    cloud = random_cloud(seed, K=K, m=m, largest=8, noise=0.3)
    moved = replace(cloud, features=size * cloud.features + offset, weight=cloud.weight / size)
    bias = cloud.bias - offset * moved.weight.sum(dim=1)
    return replace(moved, bias=bias).to(dtype)


@pytest.mark.parametrize(("dtype", "offset", "size"), NARROW)
def test_narrow_features_give_the_float64_answer(dtype: torch.dtype, offset: float, size: float) -> None:
    for seed in range(3):
        cloud = narrow_cloud(seed, dtype, offset, size)
        expected = definition_of(cloud)
        for metric in IN_FLOAT64:
            check_definition(metric, cloud, expected, rel=1e-5)


@pytest.mark.parametrize(("dtype", "offset", "size"), NARROW)
def test_a_one_pass_variance_does_not(dtype: torch.dtype, offset: float, size: float) -> None:
    cloud = narrow_cloud(0, dtype, offset, size)
    with pytest.raises(AssertionError, match="one_pass_variance"):
        check_definition(one_pass, cloud, definition_of(cloud), rel=1e-2)


def test_batches_of_narrow_features_are_as_good() -> None:
    cloud = narrow_cloud(1, torch.float32, 1e4, 1.0)
    batched = replace(cloud, parts=torch.arange(len(cloud.labels)).split(3))
    for metric in IN_FLOAT64:
        check_definition(metric, batched, definition_of(cloud), rel=1e-5)


def test_near_collapse_in_float32_far_from_the_origin() -> None:
    """Within-class noise of three units in the last place about 1e4: the hardest place for a narrow sum."""
    cloud = random_cloud(2, K=5, m=8, largest=8, noise=3e-3)
    cloud = replace(cloud, features=cloud.features + 1e4).to(torch.float32)
    expected = definition_of(cloud)
    for metric in IN_FLOAT64:
        check_definition(metric, cloud, expected, rel=1e-5)
