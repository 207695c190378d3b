"""E3: RNC1 against NC1, in fractions and numpy loops beside the library's metrics."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory.numeric.configurations import generator_of, normal
from theory.numeric.rnc1_features import along_rays, extremal, one_pair, report
from theory.proof import Proof
from theory.rnc1 import best, best_constant, largest_norm, mean_norm, no_converse


def balanced(
    seed: int, classes: int, m: int, n: int, spread: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """n samples of each class; means of very different sizes."""
    generator = generator_of(seed)
    labels = torch.arange(classes).repeat_interleave(n)
    means = normal(generator, classes, m) * normal(generator, classes, 1) ** 3 + offset * normal(generator, m)
    return means[labels] + spread * normal(generator, classes * n, m), labels


clouds = st.builds(
    balanced,
    st.integers(0, 10_000),
    st.integers(2, 7),
    st.integers(1, 5),
    st.integers(1, 6),
    st.floats(1e-3, 10),
    st.sampled_from([0.0, 0.3, 5.0]),
)


def by_hand(features: np.ndarray, labels: np.ndarray) -> tuple[float, float, float, float, float]:
    """NC1, g^2, and RNC1 with the largest, the root mean square and the mean norm, by loops."""
    kinds = sorted(set(labels.tolist()))
    means = [features[labels == c].mean(axis=0) for c in kinds]
    within = sum(
        float(((h - means[kinds.index(int(y))]) ** 2).sum()) for h, y in zip(features, labels, strict=True)
    ) / len(labels)
    centre = sum(means) / len(means)
    between = sum(float(((mu - centre) ** 2).sum()) for mu in means) / len(means)
    norms = np.sqrt((features**2).sum(axis=1))
    largest, square, mean = norms.max() ** 2, float((norms**2).mean()), float(norms.mean()) ** 2
    return within / between, float((centre**2).sum()) / between, within / largest, within / square, within / mean


@given(cloud=clouds)
def test_bounds_by_loops(cloud: tuple[torch.Tensor, torch.Tensor]) -> None:
    nc1, g2, largest, square, mean = by_hand(cloud[0].numpy(), cloud[1].numpy())
    classes = int(cloud[1].max()) + 1
    exact = nc1 / (1 + nc1 + g2)
    assert largest <= exact * (1 + 1e-9)
    assert square == pytest.approx(exact, rel=1e-7, abs=1e-15)
    assert exact <= mean * (1 + 1e-9)
    assert mean <= best(g2, classes) * nc1 * (1 + 1e-9)
    assert best(g2, classes) <= min(classes - 1, 1 / g2 if g2 > 1e-12 else classes) * (1 + 1e-12)


@given(cloud=clouds)
def test_library_by_loops(cloud: tuple[torch.Tensor, torch.Tensor]) -> None:
    nc1, g2, largest, _, mean = by_hand(cloud[0].numpy(), cloud[1].numpy())
    found = report(*cloud)
    assert (found.nc1_trace_ratio, found.rnc1_sup, found.rnc1_mean) == pytest.approx((nc1, largest, mean), rel=1e-7)
    assert found.global_mean_ratio**2 == pytest.approx(g2, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("ratio", [-1.0, -0.5, -0.01, 0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("spread", [1, 9])
def test_constant_is_attained_for_every_g_and_nc1(classes: int, ratio: float, spread: int) -> None:
    found = report(*along_rays(extremal(classes, ratio), spread))
    constant = best(found.global_mean_ratio**2, classes)
    assert found.rnc1_mean == pytest.approx(constant * found.nc1_trace_ratio, rel=1e-9)
    assert found.nc1_trace_ratio > 0.05


def test_g_of_the_extremal_means_covers_every_value() -> None:
    found = [report(*along_rays(extremal(4, ratio), 1)).global_mean_ratio ** 2 for ratio in np.linspace(-1, 0.999, 60)]
    assert found[0] == pytest.approx(0, abs=1e-12)
    assert all(a < b for a, b in pairwise(found))
    assert found[-1] > 1e4


def test_values_of_the_constant() -> None:
    assert best(0, 10) == 5  # K/2
    assert best(1 / 9, 10) == pytest.approx(9)  # K - 1, the largest
    assert best(1.0, 10) == 1
    assert best(0.3, 2) == best(1.0, 2) == 1
    assert best(4.0, 2) == 0.25


def search(classes: int, m: int, seed: int) -> float:
    """The largest T/(C s^2) that ascent finds over class means."""
    means = normal(generator_of(seed), classes, m).requires_grad_()
    optimiser = torch.optim.Adam([means], lr=0.05)
    found = 0.0
    for _ in range(100):
        optimiser.zero_grad()
        centre = means.mean(dim=0)
        between = (means - centre).square().sum() / classes
        size, g2 = means.norm(dim=1).mean(), centre @ centre / between
        low, high = classes / (2 - (classes - 2) * g2), 1 / g2
        ratio = between / size**2 / torch.where(g2 * (classes - 1) <= 1, low, high)
        found = max(found, float(ratio.detach()))
        (-ratio).backward()
        optimiser.step()
    return found


@pytest.mark.parametrize(("classes", "m", "seed"), [(3, 2, 0), (4, 3, 1), (6, 2, 2)])
def test_ascent_reaches_the_constant_and_not_beyond(classes: int, m: int, seed: int) -> None:
    found = search(classes, m, seed)
    assert 0.9 < found <= 1 + 1e-9


def test_theory_numbers_of_the_rare_class() -> None:
    """99 % at +-1, 1 % at +1, in fractions: W = 0.99, T = 1/4, mu_G = 1/2."""
    within, between, mean = Fraction(99, 100), Fraction(1, 4), Fraction(1, 4)
    nc1 = within / between
    assert nc1 == Fraction(396, 100)
    assert within > nc1 / (1 + nc1 + mean / between) == Fraction(396, 596)
    features = torch.tensor([1.0, -1.0] * 99 + [1.0, 1.0], dtype=torch.float64)[:, None]
    found = report(features, torch.tensor([0] * 198 + [1] * 2))
    assert found.rnc1_sup == pytest.approx(0.99)
    assert found.nc1_trace_ratio == pytest.approx(3.96)
    # With the shares' own mean and between-class variance the bound holds: W + T' + m'^2 = 1.
    assert within + Fraction(99, 100) * Fraction(1, 100) + Fraction(1, 100) ** 2 == 1


@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(1, 8), min_size=2, max_size=5))
def test_shares_cost_their_least_squared(seed: int, counts: list[int]) -> None:
    """Without balance RNC1_mean <= C NC1/(K pi)^2, pi the least share."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    generator = generator_of(seed)
    means = normal(generator, len(counts), 2) * normal(generator, len(counts), 1) ** 2
    features = means[labels] * (1 + normal(generator, len(labels), 1))
    nc1, g2, _, _, mean = by_hand(features.numpy(), labels.numpy())
    least = min(counts) / sum(counts)
    assert mean <= best(g2, len(counts)) * nc1 / (len(counts) * least) ** 2 * (1 + 1e-9)


@pytest.mark.parametrize("far", [4, 8, 16])
def test_one_outlier_hides_the_variance(far: int) -> None:
    """W = (2 far^4 + 2 far^2 + 2)/(2 far^4 + 4), T = 1, B = far + 1."""
    found = report(*one_pair(far))
    within = Fraction(2 * far**4 + 2 * far**2 + 2, 2 * far**4 + 4)
    assert found.nc1_trace_ratio == pytest.approx(float(within), rel=1e-9)
    assert found.rnc1_sup == pytest.approx(float(within / (far + 1) ** 2), rel=1e-9)


def failed(check: object, *arguments: object) -> list[str]:
    proof = Proof()
    check(proof, *arguments)  # type: ignore[operator]
    return [step.text for step in proof.steps if step.holds is False]


def test_collapse_is_an_equality_whatever_the_norms() -> None:
    found = report(torch.tensor([[1.0], [1.0], [3.0], [3.0]], dtype=torch.float64), torch.tensor([0, 0, 1, 1]))
    assert (found.rnc1_sup, found.rnc1_mean, found.nc1_trace_ratio) == (0, 0, 0)


def test_checks_refute_what_is_stronger() -> None:
    assert failed(largest_norm) == failed(mean_norm) == failed(no_converse) == []
    assert len(failed(best_constant, sympy.Rational(999, 1000))) == 2
    assert failed(largest_norm, sympy.Rational(1, 1000)) != []


def test_two_classes_centred_meet_the_old_constant_s_half() -> None:
    """K = 2: RNC1_mean <= NC1 = (K-1) NC1, so K NC1 is loose by 2 even there."""
    found = report(*along_rays(extremal(2, -1.0), 3))
    assert found.rnc1_mean == pytest.approx(found.nc1_trace_ratio)
