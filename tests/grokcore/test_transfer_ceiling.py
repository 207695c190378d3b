"""transfer_ceiling: sums written out by hand, and the heads that reach it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from grokcore import NonFiniteError, UsageError
from grokcore.collapse_limits import transfer_ceiling

SUPER = [0, 0, 1, 1, 1, 1, 1, 1, 0, 0]
"""Vehicles and animals of CIFAR-10."""


def test_two_of_ten() -> None:
    assert transfer_ceiling([1] * 10, SUPER) == 0.2
    assert transfer_ceiling(torch.full((10,), 1000), torch.tensor(SUPER)) == 0.2
    assert transfer_ceiling([0.1] * 10, [5, -3, 5, 5, 5, 5, 5, 5, 5, 5]) == pytest.approx(0.2)
    assert transfer_ceiling([1] * 10, [0] * 10) == 0.1
    assert transfer_ceiling([1] * 10, list(range(10))) == 1


def test_by_hand_where_the_shares_differ() -> None:
    """Super-class 0 has .4 and .1, super-class 1 has .3 and .2."""
    assert transfer_ceiling([0.4, 0.1, 0.3, 0.2], [0, 0, 1, 1]) == pytest.approx(0.7)
    assert transfer_ceiling([0.4, 0.0, 0.6, 0.0], [0, 1, 0, 1]) == pytest.approx(0.6)


def test_a_linear_head_on_the_vertices_reaches_it_and_a_fitted_one_no_more() -> None:
    """w_y = 2 v_s and b_y = -||v_s||^2 for the most frequent y of each s; and 200 random heads."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.tensor([5, 9, 4, 7, 3, 6])
    of = torch.tensor([0, 1, 0, 2, 1, 2])
    vertices = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    labels = torch.arange(6).repeat_interleave(fine)
    features = vertices[of[labels]]
    weight, bias = torch.zeros(6, 4, dtype=torch.float64), torch.full((6,), -1e6, dtype=torch.float64)
    for s, y in enumerate([0, 1, 3]):
        weight[y], bias[y] = 2 * vertices[s], -vertices[s].square().sum()
    ceiling = transfer_ceiling(fine, of)
    assert ceiling == pytest.approx((5 + 9 + 7) / 34)
    assert float(((features @ weight.T + bias).argmax(1) == labels).double().mean()) == pytest.approx(ceiling)
    for _ in range(200):
        head = torch.randn(6, 4, generator=generator, dtype=torch.float64)
        assert float(((features @ head.T).argmax(1) == labels).double().mean()) <= ceiling


def test_with_the_rates_of_wrong_vertices() -> None:
    """Shares .25 .25 .4 .1; class 2, of super-class 0, always on the other vertex: .25 + .4, above .4 + .1."""
    fine = torch.tensor([0.25, 0.25, 0.4, 0.1], dtype=torch.float64)
    rates = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]])
    assert transfer_ceiling(fine, rates) == pytest.approx(0.65)
    assert transfer_ceiling(fine, torch.tensor([0, 0, 0, 1])) == pytest.approx(0.5)
    hits = torch.tensor([[30, 10], [5, 15]])
    assert transfer_ceiling(hits.sum(dim=1), hits) == pytest.approx((30 + 15) / 60)


@pytest.mark.parametrize("unit", [5e-324, 1e-310, 1e308])
def test_shares_and_counts_have_no_unit(unit: float) -> None:
    """Sums that are not finite gave 1 or 0, counts below the normal numbers next to nothing."""
    counts = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64) * unit
    assert transfer_ceiling(torch.tensor([unit, unit], dtype=torch.float64), [0, 0]) == 0.5
    assert transfer_ceiling([1, 1], counts[:, :1]) == 0.5
    assert transfer_ceiling([1, 1], counts) == pytest.approx(0.75)


def test_rates_that_no_linear_head_reaches_on_a_line() -> None:
    """Vertices 0, 1, 2, class 0 on the outer ones: one decision between would be right on all, linear ones are not."""
    rates = torch.tensor([[1, 0, 1], [0, 1, 0]])
    assert transfer_ceiling([2, 1], rates) == 1
    # The difference of two logits is a w + b: its signs at 0, 1, 2 are never +, -, +.
    slopes, shifts = torch.meshgrid(torch.linspace(-3, 3, 61), torch.linspace(-3, 3, 61), indexing="ij")
    signs = torch.stack([slopes * h + shifts > 0 for h in range(3)])
    assert not bool((signs[0] & ~signs[1] & signs[2]).any())
    # Affinely independent vertices let logits be chosen at each.
    vertices = torch.eye(3)
    head = torch.stack([torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0])])
    assert (vertices @ head.T).argmax(dim=1).tolist() == [0, 1, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=8))
def test_between_chance_and_the_largest_shares(pairs: list[tuple[int, int]]) -> None:
    fine, of = [p for p, _ in pairs], [s for _, s in pairs]
    assume(sum(fine))
    found = transfer_ceiling(fine, of)
    by_hand = sum(max(p for p, other in pairs if other == s) for s in set(of))
    assert found == pytest.approx(by_hand / sum(fine))
    assert max(fine) / sum(fine) - 1e-12 <= found <= sum(sorted(fine)[-len(set(of)) :]) / sum(fine) + 1e-12
    one_hot = torch.nn.functional.one_hot(torch.tensor(of), 4)
    assert transfer_ceiling(torch.tensor(fine), one_hot) == pytest.approx(found)


@pytest.mark.parametrize(
    ("fine", "of", "error", "message"),
    [
        ([0.5, 0.5], [0], UsageError, r"got \(2,\) and \(1,\)"),
        ([0.0, 0.0], [0, 1], UsageError, "no share at all"),
        ([-0.5, 1.5], [0, 1], UsageError, "negative"),
        ([0.5, 0.5], [0.0, 1.0], UsageError, "must be integers"),
        ([0.5, math.nan], [0, 1], NonFiniteError, "fine shares"),
        ([0.5, 0.5], torch.tensor([[1.0, 0.0], [0.0, 0.0]]), UsageError, "class 1 has a share and no counts"),
        ([0.5, 0.5], torch.tensor([[1.0, math.inf], [0.0, 0.0]]), NonFiniteError, "rates"),
        ([], [], UsageError, "no share at all"),
    ],
)
def test_transfer_ceiling_refuses(
    fine: Any, of: Any, error: type[Exception], message: str, no_shape_checks: None
) -> None:
    with pytest.raises(error, match=message):
        transfer_ceiling(fine, of)
