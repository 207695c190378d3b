"""E4: exact mean rises of the loss against the bounds, and the moments of a uniform direction against mpmath."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokcore.flatness import relative_flatness
from tests.theory.strategies import random_heads, seeds
from theory.algebra.robustness import convexity, direction_moments, m
from theory.numeric.configurations import Head, collapsed, random_head, rotation
from theory.numeric.robustness import (
    bounds,
    confident,
    haar_matrices,
    plane_group,
    rise_on_spheres,
    rises,
    sphere_points,
)
from theory.numeric.robustness_cases import signed_axes
from theory.proof import Proof

sizes = st.floats(0.01, 1.5)
heads = random_heads(classes=st.integers(2, 4), widths=st.integers(1, 3), samples=st.integers(1, 3))


def gentle(head: Head) -> Head:
    """With logits that a quadrature of 64 angles resolves."""
    return head._replace(features=head.features / head.features.norm(dim=1, keepdim=True).clamp_min(1))


@settings(max_examples=10)
@given(head=heads.map(gentle), d=sizes)
def test_holds_and_is_never_negative(head: Head, d: float) -> None:
    kappa = float(relative_flatness(head.features, head.weight, head.bias))
    rise, found = rise_on_spheres(head, d, 64), bounds(head, d, kappa=kappa)
    assert -1e-14 <= rise <= found.exponential * (1 + 1e-9) + 1e-14
    assert found.exponential <= found.flatness * (1 + 1e-9) + 1e-15


@settings(max_examples=15)
@given(head=heads.map(gentle), logit=st.floats(2, 40), d=sizes)
def test_holds_for_sure_heads(head: Head, logit: float, d: float) -> None:
    """A bias on one class: the bounds fall with its probability, and so does the rise."""
    sure = head._replace(
        bias=head.bias + logit * torch.eye(len(head.bias), dtype=torch.float64)[0], labels=head.labels * 0
    )
    assert rise_on_spheres(sure, d, 64) <= bounds(sure, d).exponential * (1 + 1e-6) + 1e-14


def test_two_classes_and_one_feature_by_hand() -> None:
    """h = 1, rows +-a/2, p = 1/(1 + e^-z): A = +-1, wbar = (2p - 1) a/2, so X = d^2 a^2 (1-p)^2/2 and d^2 a^2 p^2/2."""
    a, z, d = 1.7, 2.3, 0.8
    p = 1 / (1 + math.exp(-z))
    head = Head(
        torch.ones(1, 1, dtype=torch.float64),
        torch.tensor([[a / 2], [-a / 2]], dtype=torch.float64),
        torch.tensor([z - a, 0.0], dtype=torch.float64),
        torch.tensor([0]),
    )
    rise = (math.log1p(math.exp(-z - d * a)) + math.log1p(math.exp(-z + d * a))) / 2 - math.log1p(math.exp(-z))
    assert rise_on_spheres(head, d) == pytest.approx(rise)
    mean = p * math.exp((d * a * (1 - p)) ** 2 / 2) + (1 - p) * math.exp((d * a * p) ** 2 / 2)
    found, largest = bounds(head, d), (d * a * p) ** 2 / 2
    assert found.exponential == pytest.approx(math.log(mean))
    assert found.largest == pytest.approx(largest)
    kappa = p * (1 - p) * a**2
    assert found.flatness == pytest.approx(kappa * d**2 / 2 * (math.exp(largest) - 1) / largest)
    assert rise < found.exponential < found.flatness


@settings(max_examples=5)
@given(seed=seeds, width=st.integers(1, 3))
def test_the_constant_of_a4_as_the_size_goes_to_zero(seed: int, width: int) -> None:
    head = random_head(seed, K=3, m=width, n=2, scale=0.5)
    leading = float(relative_flatness(head.features, head.weight, head.bias)) / (2 * width)
    off = []
    for d in (0.1, 0.03, 0.01):
        found = bounds(head, d, kappa=leading * 2 * width)
        rise = rise_on_spheres(head, d, 32)
        off.append([abs(value / (leading * d**2) - 1) for value in (rise, found.exponential, found.flatness)])
    assert np.all(np.array(off[0]) >= np.array(off[1]))
    assert np.all(np.array(off[1]) >= np.array(off[2]))
    assert max(off[2]) < 0.05


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("r", [0.1, 1.0, 5.0])
def test_quadrature_has_the_moments_of_a_direction(width: int, r: float) -> None:
    """cosh(r), I_0(r) and sinh(r)/r, all of them 0F1(m/2; r^2/4), and all below exp(r^2/(2m))."""
    points, weights = sphere_points(width, 64)
    mean = float(weights @ torch.exp(r * points[:, 0]))
    expected = {1: mpmath.cosh(r), 2: mpmath.besseli(0, r), 3: mpmath.sinh(r) / r}[width]
    assert mean == pytest.approx(float(expected), rel=1e-12)
    assert mean == pytest.approx(float(mpmath.hyp0f1(width / 2, r**2 / 4)), rel=1e-12)
    assert 1 < mean < math.exp(r**2 / (2 * width))
    assert float(weights.sum()) == pytest.approx(1)


@given(width=st.integers(1, 200), r=st.floats(0.01, 60))
def test_direction_is_subgaussian(width: int, r: float) -> None:
    assert mpmath.log(mpmath.hyp0f1(mpmath.mpf(width) / 2, mpmath.mpf(r) ** 2 / 4)) < mpmath.mpf(r) ** 2 / (2 * width)


@pytest.mark.parametrize("width", [1, 2, 7])
def test_no_smaller_proxy_does(width: int) -> None:
    """2 log E exp(r u_1)/r^2 rises to 1/m as r -> 0."""
    with mpmath.workdps(40):
        squares = [mpmath.mpf(r) ** 2 for r in ("1", "0.1", "0.001")]
        found = [2 * mpmath.log(mpmath.hyp0f1(mpmath.mpf(width) / 2, square / 4)) / square for square in squares]
    assert found[0] < found[1] < found[2] < mpmath.mpf(1) / width
    assert float(found[2]) == pytest.approx(1 / width, rel=1e-6)


@pytest.mark.parametrize(("width", "k"), [(1, 3), (2, 4), (5, 2), (6, 5)])
def test_moments_by_the_beta_integral(width: int, k: int) -> None:
    """E u_1^(2k) = (2k-1)!!/(m (m+2) ... (m+2k-2)), from the density (1-t^2)^((m-3)/2)."""
    claimed = math.prod(range(1, 2 * k, 2)) / math.prod(range(width, width + 2 * k, 2))
    if width == 1:
        assert claimed == 1
        return

    def integral(power: int) -> mpmath.mpf:
        # t = sin(angle) takes the singular ends away.
        return mpmath.quad(
            lambda a: mpmath.sin(a) ** power * mpmath.cos(a) ** (width - 2), [-mpmath.pi / 2, 0, mpmath.pi / 2]
        )

    assert float(integral(2 * k) / integral(0)) == pytest.approx(claimed, rel=1e-10)


@given(seed=seeds, d=sizes)
def test_rotations_and_reflections_agree(seed: int, d: float) -> None:
    head = gentle(random_head(seed, K=3, m=2, n=2))
    rotations, reflections = rises(head, d, plane_group(64)).reshape(2, -1).mean(dim=1).tolist()
    assert rotations == pytest.approx(reflections, rel=1e-8)
    assert rise_on_spheres(head, d, 64) == pytest.approx(rotations, rel=1e-8)


def test_both_components_are_orthogonal() -> None:
    group = plane_group(7)
    assert torch.allclose(group @ group.mT, torch.eye(2, dtype=torch.float64).expand(14, 2, 2))
    assert torch.allclose(torch.linalg.det(group), torch.tensor([1.0] * 7 + [-1.0] * 7, dtype=torch.float64))
    drawn = haar_matrices(0, 4, 100)
    assert torch.allclose(drawn @ drawn.mT, torch.eye(4, dtype=torch.float64).expand(100, 4, 4))
    assert float(torch.linalg.det(drawn).mean().abs()) < 0.5


@pytest.mark.parametrize("width", [2, 3, 5])
def test_monte_carlo_agrees_with_the_spheres(width: int) -> None:
    head, d = gentle(random_head(width, K=3, m=width, n=3)), 1.0
    matrices = haar_matrices(1, width, 4000)
    values = (rises(head, d, matrices) + rises(head, d, -matrices)) / 2
    mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    if width <= 3:
        assert abs(mean - rise_on_spheres(head, d)) < 5 * error
    assert mean - 5 * error <= bounds(head, d).exponential
    assert mean > 5 * error


@given(seed=seeds, K=st.integers(2, 4), gap=st.floats(0.1, 6), d=st.floats(0.05, 1))
@settings(max_examples=15)
def test_at_collapse(seed: int, K: int, gap: float, d: float) -> None:
    head = collapsed(seed, K=K, m=3, gap=gap, radius=1.0)
    assert rise_on_spheres(head, d, 48) <= bounds(head, d, kappa=0.0).exponential * (1 + 1e-9)


@settings(max_examples=5)
@given(seed=seeds, scale=st.floats(0.2, 5), d=sizes)
def test_invariant_as_kappa_is(seed: int, scale: float, d: float) -> None:
    head = random_head(seed, K=3, m=3, n=2)
    turn = rotation(seed, 3)
    plain = bounds(head, d)
    for other in (
        head._replace(weight=scale * head.weight, features=head.features / scale),
        head._replace(weight=head.weight @ turn, features=head.features @ turn),
        head._replace(weight=head.weight + turn[0]),
    ):
        assert bounds(other, d).exponential == pytest.approx(plain.exponential, rel=1e-8)
        assert bounds(other, d).flatness == pytest.approx(plain.flatness, rel=1e-8)


def test_equal_rows_and_zero_features_have_no_rise() -> None:
    head = random_head(0, K=3, m=2, n=2)
    for still in (head._replace(weight=head.weight[:1].expand(3, -1)), head._replace(features=head.features * 0)):
        assert rise_on_spheres(still, 1.0) == pytest.approx(0, abs=1e-14)
        assert bounds(still, 1.0)[:2] == pytest.approx((0, 0), abs=1e-14)


# What is false.


def steps(check: object, *args: object) -> list[bool | None]:
    proof = Proof()
    check(proof, *args)  # type: ignore[operator]
    return [step.holds for step in proof.steps]


@pytest.mark.parametrize("proxy", [1 / (m + 1), 999 / (1000 * m), 1 / m**2, 1 / (2 * m)])
def test_the_algebra_refuses_a_smaller_proxy(proxy: object) -> None:
    found = steps(direction_moments, proxy)
    assert found[-2] is not True
    assert not all(found)


def test_the_algebra_refuses_a_smaller_factor() -> None:
    assert False in steps(convexity, lambda x, exponential: 1)
    assert not all(steps(convexity, lambda x, exponential: (exponential - 1 - x / 2) / x))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_leading_term_is_no_bound_and_no_rotation_is_safe(width: int) -> None:
    head = confident(width)
    assert rise_on_spheres(head, 0.5) > 1.2 * bounds(head, 0.5).leading
    worst = float(rises(head, 0.5, -torch.eye(width, dtype=torch.float64)[None]))
    assert worst > bounds(head, 0.5).flatness


@pytest.mark.parametrize("width", [4, 8, 16])
def test_second_moments_are_not_enough_at_finite_size(width: int) -> None:
    """Signed permutations: A4's constant as d -> 0, above the bound at d = 1."""
    head = confident(width, logit=16.0)
    small = float(rises(head, 1e-2, signed_axes(width)).mean())
    assert small == pytest.approx(bounds(head, 1e-2).leading, rel=1e-3)
    assert float(rises(head, 1.0, signed_axes(width)).mean()) > bounds(head, 1.0).flatness
    matrices = haar_matrices(2, width, 4000)
    values = (rises(head, 1.0, matrices) + rises(head, 1.0, -matrices)) / 2
    assert float(values.mean()) < bounds(head, 1.0).exponential
