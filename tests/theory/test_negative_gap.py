"""B6n: the bound of B6 where the outputs point away from the class.

Channels that share no code: exact Hessians of explicit heads, the effective resistances R_cd by a pseudo-inverse, and
the solver of the flattest reparametrisation. The statement's own steps are sympy's.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grokcore import flattest_reparametrisation
from tests.theory.strategies import seeds
from theory.formulas import kappa_at_collapse
from theory.numeric.configurations import Head, collapsed, generator_of, normal
from theory.numeric.fixed_outputs import head_with_outputs
from theory.numeric.oracle import kappa_by_hessian
from theory.numeric.other_heads import trained_with


def least_over_biases(rows: torch.Tensor, gap: float) -> float:
    """(Delta^2 / (K X)) sum_{c<d} x_c x_d R_cd, x_c = Var_{p_c}(w), R_cd = (e_c - e_d)^T (W~ W~^T)^+ (e_c - e_d)."""
    classes = len(rows)
    p = torch.softmax(gap * torch.eye(classes, dtype=torch.float64), dim=1)
    x = torch.stack([q @ rows.square().sum(1) - (q @ rows).square().sum() for q in p])
    pseudo = torch.linalg.pinv(rows @ rows.T)
    own = pseudo.diagonal()
    resistance = own[:, None] + own - 2 * pseudo
    return gap**2 / (classes * float(x.sum())) * float(x @ resistance @ x) / 2


def best_head(rows: torch.Tensor, gap: float) -> Head:
    """The head of these rows with the outputs of that gap and the biases that make it flattest."""
    classes = len(rows)
    p = torch.softmax(gap * torch.eye(classes, dtype=torch.float64), dim=1)
    x = torch.stack([q @ rows.square().sum(1) - (q @ rows).square().sum() for q in p])
    bias = gap * (x / x.sum() - 1 / classes)
    return head_with_outputs(gap, torch.arange(classes), rows, bias, torch.zeros(classes, rows.shape[1]).double())


@given(seed=seeds, K=st.integers(3, 6), gap=st.floats(-6, -0.2))
def test_the_best_bias_leaves_effective_resistances(seed: int, K: int, gap: float) -> None:
    rows = normal(generator_of(seed), K, K - 1)
    rows = rows - rows.mean(dim=0)
    head = best_head(rows, gap)
    assert kappa_by_hessian(head) == pytest.approx(least_over_biases(rows, gap), rel=1e-7)
    other = normal(generator_of(seed + 1), K)
    moved = head_with_outputs(gap, head.labels, rows, head.bias + other, 0 * head.features)
    assert kappa_by_hessian(moved) > kappa_by_hessian(head)


@given(seed=seeds, K=st.integers(3, 8), gap=st.floats(-12, -0.01))
def test_no_rows_beat_the_bound(seed: int, K: int, gap: float) -> None:
    rows = normal(generator_of(seed), K, K - 1)
    assert least_over_biases(rows - rows.mean(dim=0), gap) >= float(kappa_at_collapse(gap, K)) * (1 - 1e-9)


def test_a_simplex_reaches_it() -> None:
    head = collapsed(2, K=5, m=4, gap=-3.0)
    assert least_over_biases(head.weight, -3.0) == pytest.approx(float(kappa_at_collapse(-3.0, 5)), rel=1e-10)


def test_equal_biases_are_a_matter_of_reparametrisation() -> None:
    head = collapsed(1, K=4, m=3, gap=-5.0)
    stretched = head._replace(features=head.features * torch.tensor([1.0, 3.0, 0.2]).double())
    stretched = stretched._replace(weight=head.weight / torch.tensor([1.0, 3.0, 0.2]).double())
    found = flattest_reparametrisation(stretched.features, stretched.weight, stretched.bias)
    assert found.infimum == pytest.approx(float(kappa_at_collapse(-5.0, 4)), rel=1e-9)
    assert found.kappa > 2 * found.infimum


def test_a_relabelling_turns_the_gap_of_two_classes() -> None:
    """K = 2 is no case of its own: labels do not enter kappa."""
    head = collapsed(1, K=2, m=1, gap=2.5)
    turned = trained_with(head, torch.nn.functional.cross_entropy, 1 - head.labels)
    assert torch.allclose(turned, trained_with(head, torch.nn.functional.cross_entropy), rtol=1e-13)
    assert float(kappa_at_collapse(-2.5, 2)) == pytest.approx(kappa_by_hessian(head), rel=1e-10)
