"""nHSIC against its definition in loops, on independence, and under what must not change it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from grokcore import NonFiniteError, UsageError
from grokcore.dependence import normalised_hsic


def normals(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_its_definition() -> None:
    x, y, n = normals(12, 2), normals(12, 3, seed=1), 12

    def ratio(points: Tensor, width: float) -> np.ndarray:
        values = points.numpy()
        kernel = np.array([[math.exp(-sum((u - v) ** 2) / (2 * width**2)) for v in values] for u in values])
        centre = np.eye(n) - 1 / n
        centred = centre @ kernel @ centre
        return centred @ np.linalg.inv(centred + 0.01 * n * np.eye(n))

    expected = float(np.trace(ratio(x, 0.8) @ ratio(y, 0.8)))
    assert normalised_hsic(x, y, bandwidth=0.8, epsilon=0.01, shuffles=2).value == pytest.approx(expected, rel=1e-9)


def test_dependence_stands_out_of_its_null_and_independence_does_not() -> None:
    x = normals(150, 3)
    seen = normalised_hsic(x, x[:, :1] ** 2 + 0.1 * normals(150, 1, seed=1))  # not correlated, and dependent
    assert seen.value > seen.null_mean + 5 * seen.null_std
    assert seen.p_value == pytest.approx(1 / 101)
    independent = normalised_hsic(x, normals(150, 2, seed=2))
    assert abs(independent.value - independent.null_mean) < 4 * independent.null_std
    assert independent.p_value > 0.01


def test_what_does_not_change_it() -> None:
    x, y = normals(40, 3), normals(40, 2, seed=1)
    plain = normalised_hsic(x, y, shuffles=1).value
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for a, b in ((x[order], y[order]), (y, x), (x * 7 + 1e5, y)):
        assert normalised_hsic(a, b, shuffles=1).value == pytest.approx(plain, rel=1e-6)
    assert normalised_hsic(x, y[order], shuffles=1).value != pytest.approx(plain, rel=1e-3)


def test_labels_as_one_hot_rows() -> None:
    labels = torch.arange(60) % 3
    hot = torch.nn.functional.one_hot(labels, 3).double()
    apart, mixed = hot @ normals(3, 4) + 0.1 * normals(60, 4, seed=1), normals(60, 4, seed=1)
    assert normalised_hsic(apart, hot).value > 1.5 * normalised_hsic(mixed, hot).value


@pytest.mark.usefixtures("no_shape_checks")
def test_bad_input() -> None:
    x = normals(10, 2)
    for call, words in (
        (lambda: normalised_hsic(x, x[:9]), "must pair"),
        (lambda: normalised_hsic(x[:2], x[:2]), "three or more"),
        (lambda: normalised_hsic(x * 0, x), "all points are equal"),
        (lambda: normalised_hsic(x, x, epsilon=0.0), "must be positive"),
        (lambda: normalised_hsic(x, x, shuffles=0), "must be positive"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    with pytest.raises(NonFiniteError):
        normalised_hsic(x * math.nan, x)
