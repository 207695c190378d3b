"""B8s and B8l: the best bounds of kappa by Delta and the oscillation, and those by the losses.

Oracles that share no code with the statements: impurities in rational arithmetic, extrema by enumerating the corners
of the box, losses and distances in numpy; kappa by Hessian-vector products.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.rational import fractions, impurity
from tests.theory.strategies import random_heads
from theory import stability_extremal, stability_from_losses
from theory.algebra.stability_box import enough
from theory.numeric.configurations import Head, simplex
from theory.numeric.oracle import kappa_matrix_free
from theory.numeric.stability import Case, at_logits, exponential
from theory.proof import Proof

gaps = st.floats(-6, 10)


# B8s.


def corners(Q: Fraction, Y: Fraction, n: int) -> dict[tuple[bool, int], Fraction]:
    """U where y is raised or not, and j of the n others."""
    return {
        (up, j): impurity([Q * Y if up else Q, *[Y] * j, *[Fraction(1)] * (n - j)])
        for up in (True, False)
        for j in range(n + 1)
    }


above_one = st.fractions(min_value=1, max_value=30)


@given(n=st.integers(1, 6), Q=above_one, Y=above_one)
def test_least_corner(n: int, Q: Fraction, Y: Fraction) -> None:
    """Delta >= 0: y is raised at the corner of the least U, alone where the condition holds. Rational numbers."""
    at = corners(Q, Y, n)
    least = min(at.values())
    assert min(at[True, j] for j in range(n + 1)) == least
    if 8 * Q * (Q - 1) * (Q + n) + 2 * Q**3 >= n * (n - 1) or n <= 2:
        assert at[True, 0] == least
    # Exactly where one more is less sure.
    exact = 2 * Q**2 * Y**2 * (Q * Y - 1) + 2 * n * Q * Y**2 * (Q - 1) >= n * (n - 1) * (Y - 1)
    assert (at[True, 0] == least) == exact


@given(n=st.integers(1, 5), Q=fractions, Y=above_one, data=st.data())
def test_no_point_of_the_box_beats_the_extrema(n: int, Q: Fraction, Y: Fraction, data: st.DataObject) -> None:
    """Any Delta: the corners have the least U, and the gap nearest 0 the greatest. Rational numbers."""
    inside = st.fractions(min_value=0, max_value=1)
    first, *others = [1 + (Y - 1) * data.draw(inside) for _ in range(n + 1)]
    U = impurity([Q * first, *others])
    assert min(corners(Q, Y, n).values()) <= U
    nearest = Fraction(1) if Q / Y <= 1 <= Q * Y else Q / Y if Q > Y else Q * Y
    assert impurity([nearest, *[Fraction(1)] * n]) >= U


@pytest.mark.parametrize(("classes", "enough_at", "too_low"), [(10, "1.62", "1.27"), (97, "3.99", "2.56")])
def test_condition_is_nearly_sharp(classes: int, enough_at: str, too_low: str) -> None:
    """y alone is best at every omega where Q(Q-1) = (K-2)/8, rounded up, and not at a third of that."""
    n = classes - 1
    for text, holds in ((enough_at, True), (too_low, False)):
        Q = Fraction(text)
        assert (Fraction(n - 1, 8) <= Q * (Q - 1)) == holds
        assert holds or Fraction(n - 1, 25) < Q * (Q - 1)
        one_more_is_surer = [
            impurity([Q * Y, Y, *[Fraction(1)] * (n - 1)]) < impurity([Q * Y, *[Fraction(1)] * n])
            for Y in map(Fraction, ("1.01", "1.5", "2", "2.5", "4", "20"))
        ]
        assert any(one_more_is_surer) != holds


@given(head=random_heads(), gap=gaps)
def test_extremal_sandwich_lies_inside(head: Head, gap: float) -> None:
    case = Case("", head, gap)
    kappa, (lower, upper), (low, high) = kappa_matrix_free(head), stability_extremal.sides(case), exponential(case)
    assert kappa <= upper * (1 + 1e-8) + 1e-13
    assert upper <= high * (1 + 1e-12)
    if stability_extremal.condition(gap, len(head.weight)):
        assert lower <= kappa * (1 + 1e-8) + 1e-13
        assert low <= lower * (1 + 1e-12)


def test_weaker_condition_is_not_proved() -> None:
    for share, proves in ((8, True), (9, False)):
        proof = Proof()
        enough(proof, sympy.Rational(1, share))
        assert all(step.holds for step in proof.steps) == proves


@pytest.mark.parametrize(
    ("classes", "share", "text"), [(97, 8, "3.99"), (97, 9, "3.79"), (1000, 8, "11.69"), (1000, 9, "11.05")]
)
def test_an_eighth_is_enough_and_a_ninth_is_not(classes: int, share: int, text: str) -> None:
    """Q rounded up from Q(Q-1) = (K-2)/share, e^omega = 2: one more raised is surer for 9. Rational numbers."""
    Q, n = Fraction(text), classes - 1
    assert 0 <= Q * (Q - 1) - Fraction(n - 1, share) < Fraction(1, 4)
    one_more = impurity([2 * Q, Fraction(2), *[Fraction(1)] * (n - 1)])
    assert (one_more < impurity([2 * Q, *[Fraction(1)] * n])) == (share == 9)


@pytest.mark.parametrize("K", [2, 4])
def test_greatest_impurity_takes_a_bound_on_the_oscillation(K: int) -> None:
    """Delta = 3: an oscillation of exactly 10 leaves U far below U(0), which one of 3, within the bound 10, reaches."""
    at_most = torch.tensor([10.0], dtype=torch.float64)
    greatest = float(stability_extremal.nearest_uniform(torch.tensor([3.0]).double(), at_most, K))
    assert greatest == pytest.approx(1 - 1 / K, rel=1e-12)
    # z - Delta e_y takes 0 and 10: at y and another class, or at two others.
    taken = [[z_y, other, *[c] * (K - 2)] for z_y, other in ((3, 10), (13, 0)) for c in range(11)]
    if K > 2:
        taken += [[3 + d, 0, 10, *[c] * (K - 3)] for d in range(11) for c in range(11)]
    p = torch.softmax(torch.tensor(taken, dtype=torch.float64), dim=1)
    assert float((1 - p.square().sum(dim=1)).max()) < 0.95 * greatest


@given(head=random_heads())
def test_losses_bound_kappa(head: Head) -> None:
    kappa, (lower, upper) = kappa_matrix_free(head), stability_from_losses.sides(head)
    assert lower <= kappa * (1 + 1e-8) + 1e-13
    assert kappa <= upper * (1 + 1e-8) + 1e-13


@given(head=random_heads())
def test_losses_sides_by_hand(head: Head) -> None:
    """The loss of each sample in nats, and the rows' distances, in numpy."""
    W, H, y = head.weight.numpy(), head.features.numpy(), head.labels.numpy()
    z = torch.from_numpy(H @ W.T) + head.bias
    x = -np.expm1(-torch.nn.functional.cross_entropy(z, head.labels, reduction="none").numpy())
    K = len(W)
    squares = ((W[:, None] - W[None]) ** 2).sum(axis=2)
    far = np.array([max(squares[c, t] for t in range(K) if t != c) for c in range(K)])[y]
    near = np.array([min(squares[c, t] for t in range(K) if t != c) for c in range(K)])[y]
    norms = (H**2).sum(axis=1)
    lower, upper = stability_from_losses.sides(head)
    assert lower == pytest.approx((norms * near * x * (1 - x)).mean(), rel=1e-7, abs=1e-14)
    last = squares.max() / 2 * (K - 2) / (K - 1) * x**2
    assert upper == pytest.approx((norms * (far * x * (1 - x) + last)).mean(), rel=1e-7, abs=1e-14)


@given(head=random_heads(classes=st.just(2)))
def test_two_classes_have_kappa_from_the_losses(head: Head) -> None:
    kappa = kappa_matrix_free(head)
    assert stability_from_losses.sides(head) == pytest.approx((kappa, kappa), rel=1e-7, abs=1e-13)


@pytest.mark.parametrize("margin", [2.0, 6.0, 12.0])
def test_losses_close_while_the_oscillation_stays(margin: float) -> None:
    """K = 5, one rival and three classes 30 lower: omega >= 30, and upper/lower - 1 is of the order of the loss."""
    z = torch.tensor([margin, 0.0, -30.0, -30.0, -30.0], dtype=torch.float64)
    head = at_logits(z, simplex(5, 4), torch.ones(4, dtype=torch.float64))
    lower, upper = stability_from_losses.sides(head)
    kappa, x = kappa_matrix_free(head), 1 / (1 + math.exp(margin))
    assert lower <= kappa * (1 + 1e-9) <= upper * (1 + 2e-9)
    assert upper / lower - 1 == pytest.approx(3 / 8 * x / (1 - x), rel=1e-6)
    assert kappa == pytest.approx(lower, rel=1e-8)  # a single rival attains it
    assert exponential(Case("", head, margin)).upper > 1e12 * kappa


@pytest.mark.parametrize("second", [0.9, 0.0])
def test_rivals_are_needed(second: float) -> None:
    """K = 3 at p = (1/3, 1/3, 1/3) on a simplex: the upper side is an equality, so no part of it may go."""
    head = at_logits(torch.zeros(3, dtype=torch.float64), simplex(3, 2), torch.ones(2, dtype=torch.float64))
    kappa = kappa_matrix_free(head)
    assert stability_from_losses.sides(head).upper == pytest.approx(kappa, rel=1e-9)
    assert stability_from_losses.sides(head, second=second).upper < kappa * (1 - 1e-3)
