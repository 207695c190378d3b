"""The information estimators on cases with known answers, and on their null."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grokcore import ClassMoments, NonFiniteError, UsageError, information_bounds
from grokcore.mutual_information import ksg_information, noisy_information


def normals(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("noise", "known"), [(0.5, 0.6327), (1.0, 0.3368), (3.0, 0.05267)])
def test_two_points_by_quadrature(noise: float, known: float) -> None:
    """h = +-1 with equal weights: theory E2's own numbers."""
    features = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    found = noisy_information(features, noise=noise, draws=2_500)
    assert abs(found.value - known) < 4 * found.stderr + 5e-5
    assert found.stderr < 0.03
    of_classes = noisy_information(features.repeat(1, 3), torch.tensor([0, 0]), noise=noise * math.sqrt(3), draws=2_500)
    assert abs(of_classes.value - known) < 4 * of_classes.stderr + 5e-5  # three equal coordinates are one
    alone = noisy_information(torch.cat([features, features]), torch.tensor([0, 1, 0, 1]), noise=noise, draws=4)
    assert alone.value == pytest.approx(0.0, abs=1e-12)  # within a class nothing varies


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("noise", [0.7, 2.0])
def test_gaussian_features(m: int, noise: float) -> None:
    """(m/2) log(1 + 1/s^2), from below, as a sample of 2,000 knows the population."""
    known = m / 2 * math.log(1 + noise**-2)
    found = noisy_information(normals(2_000, m, seed=9), noise=noise)
    assert found.value == pytest.approx(known, rel=0.06)
    saturated = noisy_information(normals(2_000, 3 * m, seed=9), noise=noise / 40)
    assert saturated.value < math.log(2_000) + 1e-9


@given(seed=st.integers(0, 1000), noise=st.floats(0.2, 5.0))
def test_stays_within_its_bounds_and_above_its_null(seed: int, noise: float) -> None:
    features, labels = normals(60, 3, seed) + torch.arange(60)[:, None] % 3, torch.arange(60) % 3
    found = noisy_information(features, labels, noise=noise, seed=seed)
    moments = ClassMoments(3, 3, scatter="per_class").update(features, labels)
    bound = information_bounds(moments, noise=noise, scale=1.0)
    assert found.value <= bound.log_det + 5 * found.stderr
    assert found.value <= math.log(20)
    null = noisy_information(features, labels, noise=noise, seed=seed, shuffled=True)
    assert null.value < found.value
    assert null.value < 5 * null.stderr


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_pairs_of_correlated_normals(rho: float) -> None:
    z = normals(1_000, 2)
    x, y = z[:, :1], rho * z[:, :1] + math.sqrt(1 - rho**2) * z[:, 1:]
    found = ksg_information(x, y)
    assert found.value == pytest.approx(-math.log(1 - rho**2) / 2, abs=0.06)
    assert 0 < found.stderr < 0.06
    null = ksg_information(x, y[torch.randperm(1_000, generator=torch.Generator().manual_seed(1))])
    assert abs(null.value) < 4 * null.stderr
    assert ksg_information(y, x).value == pytest.approx(found.value)
    # Euclidean distances turn with the samples, and both may be shifted.
    assert ksg_information(x.repeat(1, 2) / math.sqrt(2) + 1e6, y).value == pytest.approx(found.value, abs=1e-3)
    # Nor do units matter: the larger of two distances must not always be the same one.
    assert ksg_information(1e4 * x, y).value == pytest.approx(found.value, abs=1e-9)
    assert ksg_information(x, torch.zeros_like(y)).value == pytest.approx(0.0, abs=0.1)


def test_the_published_pairing_sees_independence_and_still_gives_a_number() -> None:
    """Inputs and features from two different shuffles, as the released code pairs them: none is left."""
    x = normals(800, 2)
    z = torch.tanh(x @ normals(2, 2, seed=5)) + 0.1 * normals(800, 2, seed=6)
    generator = torch.Generator().manual_seed(0)
    wrong = ksg_information(x[torch.randperm(800, generator=generator)], z[torch.randperm(800, generator=generator)])
    assert abs(wrong.value) < 4 * wrong.stderr
    assert ksg_information(x, z).value > 1.0


def test_many_dimensions_are_too_many_for_pairs() -> None:
    """The same two informative coordinates among 200: KSG loses most of what it found, the channel's own does not."""
    h = normals(600, 2)
    wide = torch.cat([h, 0.3 * normals(600, 198, seed=1)], dim=1)
    pairs = [ksg_information(each, each + 0.3 * normals(600, each.shape[1], seed=2)).value for each in (h, wide)]
    channel = [noisy_information(each, noise=0.3).value for each in (h, wide)]
    assert pairs[1] < pairs[0]
    assert channel[1] > channel[0] > 0.8 * pairs[0]


def test_bad_input() -> None:
    x = normals(50, 2)
    for call, words in (
        (lambda: noisy_information(x, noise=0.0), "noise must be positive"),
        (lambda: noisy_information(x[:1], noise=1.0), "at least two samples"),
        (lambda: noisy_information(x, noise=1.0, draws=1), "two draws"),
        (lambda: ksg_information(x, x, blocks=1), "too few"),
        (lambda: ksg_information(x, x, neighbours=7, blocks=8), "too few"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    with pytest.raises(NonFiniteError):
        noisy_information(x * math.nan, noise=1.0)
    with pytest.raises(NonFiniteError):
        ksg_information(x, x * math.inf)


@pytest.mark.usefixtures("no_shape_checks")
def test_samples_that_do_not_pair() -> None:
    x = normals(50, 2)
    with pytest.raises(UsageError, match="must pair"):
        ksg_information(x, x[:49])
    with pytest.raises(UsageError, match="as many labels"):
        noisy_information(x, torch.zeros(49, dtype=torch.long), noise=1.0)
