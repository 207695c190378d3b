"""NC1 of Papyan: the pseudo-inverse keeps at most K - 1 directions, and those above the stated tolerance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grokcore import ClassMoments, CollapseReport, collapse_report
from tests.contracts.clouds import random_cloud
from tests.contracts.metrics import METRICS, check_definition, definition_of
from tests.contracts.wrong_metrics import every_direction
from theory.numeric.configurations import rotation, rows, simplex

EPS = torch.finfo(torch.float64).eps


def report(features: Tensor, labels: Tensor, K: int) -> CollapseReport:
    return collapse_report(ClassMoments(K, features.shape[1]).update(features, labels))


def nearly_dependent(t: float, m: int = 50) -> tuple[Tensor, Tensor]:
    """Class means (1, 0), (-1, 0), (0, t) and two samples about each, 1/2 and t/4 away in the two coordinates.

    Sigma_B = diag(2/3, 2 t^2/9) and Sigma_W = diag(1/4, t^2/16): 3/8 and 9/32 to the trace of the quotient.
    """
    features = torch.zeros(6, m, dtype=torch.float64)
    features[:, 0] = rows([1, 1, -1, -1, 0, 0]) + rows([0.5, -0.5] * 3)
    features[:, 1] = t * (rows([0, 0, 0, 0, 1, 1]) + rows([0.25, -0.25] * 3))
    return features, torch.arange(3).repeat_interleave(2)


# The singular values of Mc are sqrt(2) and t sqrt(6)/3; the tolerance is eps max(K, m) sqrt(2).
AT_TOLERANCE = EPS * 50 * math.sqrt(2) * 3 / math.sqrt(6)


@pytest.mark.parametrize(("t", "expected"), [(1.0, 21 / 96), (1e-6, 21 / 96), (1.5 * AT_TOLERANCE, 21 / 96)])
def test_a_direction_above_the_tolerance_counts(t: float, expected: float) -> None:
    assert report(*nearly_dependent(t), 3).nc1_papyan == pytest.approx(expected, rel=1e-2 if t < 1e-12 else 1e-9)


@pytest.mark.parametrize("t", [0.67 * AT_TOLERANCE, 1e-20])
def test_a_direction_below_the_tolerance_does_not(t: float) -> None:
    assert report(*nearly_dependent(t), 3).nc1_papyan == pytest.approx(1 / 8, rel=1e-9)


@pytest.mark.parametrize("gamma", [0.0, 3.0])
def test_noise_orthogonal_to_the_means_is_not_seen(gamma: float) -> None:
    """theory B7: the trace ratio is sigma^2, Papyan's NC1 is 0."""
    K, m, sigma = 5, 9, 0.7
    means = simplex(K, m, radius=2.0, seed=1)
    across = torch.linalg.svd(means).Vh[K - 1 :]
    labels = torch.arange(K).repeat_interleave(2)
    side = 2.0 * sigma * rows([1, -1] * K).T
    features = means[labels] + 2.0 * gamma * across[0] + side * across[1]
    found = report(features, labels, K)
    assert found.nc1_trace_ratio == pytest.approx(sigma**2)
    assert abs(found.nc1_papyan) < 1e-15
    # A hundredth of it inside the span is seen.
    within = torch.nn.functional.normalize(means[labels], dim=1)
    assert report(features + 0.01 * side * within, labels, K).nc1_papyan > 1e-6


def test_a_direction_that_is_only_rounding_is_not_kept() -> None:
    """Far from the origin the K-th singular value of Mc is rounding, far above eps times the largest."""
    cloud = random_cloud(0, K=4, m=9, offset=1e4)
    expected = definition_of(cloud)
    (papyan,) = (metric for metric in METRICS if metric.name == "nc1_papyan")
    check_definition(papyan, cloud, expected, rel=1e-6)
    assert abs(every_direction(cloud) - expected["nc1_papyan"]) > expected["nc1_papyan"]


@pytest.mark.parametrize("m", [1, 2, 3])
def test_fewer_features_than_directions(m: int) -> None:
    """Every direction of R^m counts where m < K - 1: Sigma_B is inverted whole."""
    cloud = random_cloud(4, K=6, m=m)
    moments = ClassMoments(6, m).update(cloud.features, cloud.labels)
    centred = moments.centred_means()
    whole = torch.linalg.solve(centred.T @ centred / 6, moments.within_covariance()).trace() / 6
    found = collapse_report(moments)
    assert found.nc1_papyan == pytest.approx(float(whole), rel=1e-9)
    assert "no simplex" in found.reasons["nc2_etf"]


def test_directions_of_very_different_sizes() -> None:
    """Singular values from 1 to 1e-5: each counts by its own square."""
    cloud = random_cloud(2, K=5, m=7, noise=1e-4, sizes=torch.tensor([1.0, 1e-2, 1e-3, 1e-5]))
    turned = cloud.features @ rotation(9, 7)
    expected = definition_of(cloud)["nc1_papyan"]
    assert report(cloud.features, cloud.labels, 5).nc1_papyan == pytest.approx(expected, rel=1e-8)
    assert report(turned, cloud.labels, 5).nc1_papyan == pytest.approx(expected, rel=1e-8)
