"""A1 and A2: the head's Hessian and kappa's closed form.

Independent of the statements' own numeric channel (forward over reverse): reverse over reverse
(`reverse_hessian`), Hessian-vector products (`kappa_matrix_free`), and numbers worked out by hand.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from grokcore.flatness import relative_flatness
from tests.theory.by_hand import one_sample
from tests.theory.strategies import random_heads, seeds
from theory.head import softmax_curvature
from theory.head_closed_form import FORMS, closed_form
from theory.numeric.configurations import Head, generator_of, normal, random_head, rows
from theory.numeric.oracle import head_hessian, kappa_by_hessian, kappa_matrix_free
from theory.numeric.other_heads import trained_with


def reverse_hessian(head: Head) -> Tensor:
    """Reverse over reverse, (K, m, K, m)."""

    def loss(weight: Tensor) -> Tensor:
        return cross_entropy(head.features @ weight.T + head.bias, head.labels)

    return torch.func.jacrev(torch.func.jacrev(loss))(head.weight)


@given(random_heads(classes=st.integers(2, 4), widths=st.integers(1, 4), samples=st.integers(1, 3)))
def test_blocks_of_the_hessian(head: Head) -> None:
    """Reverse over reverse against the blocks added up one sample, s and t at a time."""
    expected = torch.zeros_like(head_hessian(head))
    for h, p in zip(head.features, head.probabilities, strict=True):
        for s, t in itertools.product(range(len(p)), repeat=2):
            expected[s, :, t] += (p[s] * (s == t) - p[s] * p[t]) * torch.outer(h, h) / len(head.labels)
    torch.testing.assert_close(reverse_hessian(head), expected, rtol=1e-9, atol=1e-12)


def test_block_by_hand() -> None:
    """Two equal logits: p_s (1 - p_s) = 1/4."""
    block = rows([1.0, 2.0], [2.0, 4.0]) / 4
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
    """Targets that are distributions, or smoothed labels."""
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


@given(random_heads())
def test_closed_form_against_hessian_vector_products(head: Head) -> None:
    """The two forms that do not cancel, and the one the package ships."""
    expected = kappa_matrix_free(head)
    assert float(relative_flatness(head.features, head.weight, head.bias)) == pytest.approx(expected, rel=1e-8)
    for form in ("deviations", "pairs"):
        assert closed_form(head, FORMS[form]) == pytest.approx(expected, rel=1e-8)


def test_kappa_by_hand() -> None:
    """Rows e_1 and -e_1 with h off their span: p = 1/2, Var = 1, ||h||^2 = 25."""
    head = one_sample(rows([1.0, 0.0], [-1.0, 0.0]), [0.0, 5.0])
    assert closed_form(head) == pytest.approx(25.0)
    assert kappa_by_hessian(head) == pytest.approx(25.0)


def test_one_row_apart_by_hand() -> None:
    """p = (2/3, 1/3) from the bias, rows 3 and 0 in one dimension, h = 1: kappa = 9 * 2/9."""
    head = one_sample(rows([3.0], [0.0]), [1.0], [math.log(2) - 3, 0.0])
    assert kappa_by_hessian(head) == pytest.approx(2.0)
    assert closed_form(head) == pytest.approx(2.0)


def test_second_moments_cancel_at_large_gaps() -> None:
    """The form that looks simplest is 0 at a gap of 60, where that over pairs keeps every digit."""
    head = one_sample(rows([30.0], [-30.0]), [1.0])
    assert closed_form(head, FORMS["second moments"]) == 0.0
    assert closed_form(head) == pytest.approx(3600 * math.exp(-60), rel=1e-12)
