"""Nearest-neighbour entropies: known answers, the weights' own equations, and why they are no measure of features."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from grokcore import NonFiniteError, UsageError
from grokcore.neighbour_entropy import entropies_information, neighbour_entropy, neighbour_weights


def normals(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("d", [1, 3, 6])
def test_entropy_of_a_gaussian(d: int, weighted: bool) -> None:
    known = d / 2 * math.log(2 * math.pi * math.e)
    x = normals(3_000, d, seed=4)
    assert neighbour_entropy(x, weighted=weighted) == pytest.approx(known, abs=0.15 + 0.05 * d)
    mixed = 3 * x @ torch.linalg.qr(normals(d, d, seed=1))[0] + 1e4  # turned, stretched and moved
    expected = neighbour_entropy(x, weighted=weighted) + d * math.log(3)
    assert neighbour_entropy(mixed, weighted=weighted) == pytest.approx(expected, abs=1e-6)


def test_by_its_definition() -> None:
    x, n, k = normals(40, 1), 40, 3
    gaps = sorted((abs(float(a - b)), i) for i, a in enumerate(x) for j, b in enumerate(x) if i != j)
    third = [sorted(gap for gap, i in gaps if i == sample)[k - 1] for sample in range(n)]
    psi = 1 + 1 / 2 - 0.5772156649015329
    expected = sum(math.log(2 * gap * (n - 1)) for gap in third) / n - psi
    assert neighbour_entropy(x, neighbours=k, weighted=False) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("k", "d"), [(5, 8), (5, 16), (12, 8), (3, 5)])
def test_weights_solve_their_equations_and_alternate(k: int, d: int) -> None:
    w = neighbour_weights(k, d)
    j = torch.arange(1, k + 1, dtype=torch.float64)
    assert float(w.sum()) == pytest.approx(1, abs=1e-6)
    for power in range(1, min(d // 4, k - 1) + 1):
        row = torch.exp(torch.lgamma(j + 2 * power / d) - torch.lgamma(j))
        assert float(w @ row) == pytest.approx(0, abs=1e-4 * float(w.abs().max()))
    assert float(w.min()) < 0
    assert neighbour_weights(k, 3).tolist() == [1.0] + [0.0] * (k - 1)


def correlated(m: int, rho: float = 0.9) -> tuple[Tensor, Tensor, float]:
    z = normals(1_000, 2 * m)
    return z[:, :m], rho * z[:, :m] + math.sqrt(1 - rho**2) * z[:, m:], -m / 2 * math.log(1 - rho**2)


def test_low_dimensions_and_the_published_eight() -> None:
    """One coordinate each: the three entropies do. Eight each: the weights of the joint one go to thousands."""
    x, y, known = correlated(1)
    for weighted in (True, False):
        assert entropies_information(x, y, weighted=weighted) == pytest.approx(known, abs=0.1)
    x, y, known = correlated(8)
    assert entropies_information(x, y, weighted=False) == pytest.approx(known, abs=1.0)
    assert abs(entropies_information(x, y) - known) > 10
    assert neighbour_weights(5, 8).abs().max() == pytest.approx(9.85, abs=0.01)  # the public code's
    assert neighbour_weights(5, 16).abs().max() == pytest.approx(11_520, rel=1e-6)


def test_unpaired_clusters_give_a_curve() -> None:
    """x and z independent, z in ten clusters that tighten: the information stays zero, the estimate moves by nats."""
    n = 1_000
    x, centres = normals(n, 8), normals(10, 8, seed=2)
    labels = torch.randint(10, (n,), generator=torch.Generator().manual_seed(3))
    found = [entropies_information(x, centres[labels] + width * normals(n, 8, seed=5)) for width in (1.0, 0.1, 0.01)]
    assert max(found) - min(found) > 1.0


def test_where_there_is_no_entropy() -> None:
    x = normals(50, 2)
    assert math.isnan(neighbour_entropy(torch.cat([x, x])))
    assert math.isnan(neighbour_entropy(torch.cat([x, x[:, :1]], dim=1)))
    for call, words in (
        (lambda: neighbour_entropy(x[:5]), "too few"),
        (lambda: neighbour_entropy(x, neighbours=0), "too few"),
        (lambda: neighbour_weights(0, 8), "need a neighbour"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    with pytest.raises(NonFiniteError):
        neighbour_entropy(x * math.nan)


@pytest.mark.usefixtures("no_shape_checks")
def test_samples_that_do_not_pair() -> None:
    with pytest.raises(UsageError, match="must pair"):
        entropies_information(normals(50, 2), normals(49, 2))
