"""A5: bounds from the outputs and the distances of the rows.

Independent of the statement's own numeric channel (forward over reverse): Hessian-vector products
(`kappa_matrix_free`) and numbers worked out by hand.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.theory.by_hand import one_sample
from tests.theory.strategies import random_heads, seeds
from theory.head_bounds import (
    LOWER,
    UPPER,
    directional,
    equidistant_head,
    error,
    from_distances,
    from_loss,
    impurity,
    parallel_head,
    squared_distances_of_pairs,
)
from theory.numeric.configurations import Head, nearly_collapsed, random_head, rows
from theory.numeric.oracle import kappa_by_hessian, kappa_matrix_free


@given(random_heads(), st.floats(1e-4, 0.3), seeds)
def test_bounds_hold(any_head: Head, noise: float, seed: int) -> None:
    """Hessian-vector products against every bound, at any head and near collapse."""
    for head in (any_head, nearly_collapsed(seed, K=2 + seed % 4, m=5, noise=noise, counts=2)):
        kappa = kappa_matrix_free(head)
        assert all(bound(head) <= kappa * (1 + 1e-8) + 1e-13 for bound in LOWER.values())
        assert all(kappa <= bound(head) * (1 + 1e-8) + 1e-13 for bound in UPPER.values())


@given(random_heads(classes=st.just(2)))
def test_two_classes_are_always_equidistant(head: Head) -> None:
    """K = 2 has one distance, so both distance bounds are kappa."""
    distance = squared_distances_of_pairs(head)
    assert from_distances(head, distance[0]) == pytest.approx(kappa_by_hessian(head), rel=1e-7, abs=1e-13)


@given(random_heads(widths=st.just(1)))
def test_one_feature_is_always_parallel(head: Head) -> None:
    """m = 1: the variance of the logits without bias is kappa."""
    assert directional(head) == pytest.approx(kappa_by_hessian(head), rel=1e-7, abs=1e-13)


@given(st.integers(2, 6), st.integers(0, 3), seeds)
def test_equidistant_rows_reach_both_distance_bounds(K: int, extra: int, seed: int) -> None:
    """Whatever the features and biases, and wherever the simplex is."""
    head = equidistant_head(K, K - 1 + extra, seed)
    kappa, distances = kappa_matrix_free(head), squared_distances_of_pairs(head)
    assert from_distances(head, distances.min()) == pytest.approx(kappa, rel=1e-7)
    assert from_distances(head, distances.max()) == pytest.approx(kappa, rel=1e-7)


def test_one_sample_off_its_direction_loses_tightness() -> None:
    """The "only if": one feature among five turned away from the deviations of the rows, and h = 0 does no harm."""
    head = parallel_head(4, 3)
    parallel = torch.cat([head.features * t for t in (1.0, -2.0, 0.5, 3.0, 0.0)])
    several = head._replace(features=parallel, labels=torch.arange(5) % 4)
    assert directional(several) == pytest.approx(kappa_by_hessian(several), rel=1e-10)
    features = parallel.clone()
    features[2, 0] += 1
    turned = several._replace(features=features)
    assert directional(turned) < 0.999 * kappa_by_hessian(turned)


def test_biases_inside_the_variance_by_hand() -> None:
    """K = 2, m = 1, W = (1, -1), h = 1, b = (1, -1): Var(z) is 4 times kappa; b = -W h cancels the logits: 0."""
    for sign, factor in ((1.0, 4.0), (-1.0, 0.0)):
        head = one_sample(rows([1.0], [-1.0]), [1.0], [sign, -sign])
        p, z = head.probabilities[0], (head.features @ head.weight.T + head.bias)[0]
        variance = float(p @ z.square() - (p @ z) ** 2)
        assert variance == pytest.approx(factor * kappa_by_hessian(head), abs=1e-12)


def test_factor_two_of_the_error_is_reached_at_no_loss() -> None:
    """U/(1 - p_y) -> 2 as p_y -> 1, and 1 where two classes are level."""
    for gap, ratio, tolerance in ((20.0, 2.0, 1e-7), (0.0, 1.0, 1e-12)):
        head = one_sample(rows([gap], [0.0]), [1.0])
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
