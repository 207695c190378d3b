"""Modular arithmetic: every operation against Python's own integers, splits, noise, primes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokcore import UsageError
from grokcore.data.modular import equations, is_prime, modular_arithmetic

PRIMES = [2, 3, 5, 7, 11, 97]
ORACLES = {
    "x+y": lambda x, y, p: (x + y) % p,
    "-": lambda x, y, p: (x - y) % p,
    "mul": lambda x, y, p: x * y % p,
    "x/y": lambda x, y, p: x * pow(y, -1, p) % p if y else None,
    "x^2+x*y+y^2": lambda x, y, p: (x * x + x * y + y * y) % p,
    "x^3 + x*y^2 + y": lambda x, y, p: (x**3 + x * y * y + y) % p,
    "(x-3)/(y+1)": lambda x, y, p: (x - 3) * pow(y + 1, -1, p) % p if (y + 1) % p else None,
    "-x*2-y": lambda x, y, p: (-x * 2 - y) % p,
}


@pytest.mark.parametrize("operation", list(ORACLES))
@pytest.mark.parametrize("p", PRIMES)
def test_operation_is_its_oracle(operation: str, p: int) -> None:
    x, y, c = equations(operation, p)
    oracle = ORACLES[operation]
    expected = [(a, b, oracle(a, b, p)) for a in range(p) for b in range(p) if oracle(a, b, p) is not None]
    assert list(zip(x.tolist(), y.tolist(), c.tolist(), strict=True)) == expected


def test_a_composite_modulus_serves_where_nothing_is_divided() -> None:
    _, _, c = equations("x*y", 10)
    assert len(c) == 100
    with pytest.raises(UsageError, match="not prime"):
        equations("x/y", 10)


@given(seed=st.integers(0, 10_000), fraction=st.floats(0.05, 0.95))
@settings(max_examples=40, deadline=None)
def test_split_is_a_partition(seed: int, fraction: float) -> None:
    split = modular_arithmetic("x+y", 11, train_fraction=fraction, seed=seed)
    assert len(split.train_labels) == round(fraction * 121)
    rows = torch.cat([split.train_inputs, split.test_inputs])
    assert len(torch.unique(rows, dim=0)) == 121
    labels = torch.cat([split.train_labels, split.test_labels])
    assert torch.equal(rows.sum(dim=1) % 11, labels)


def test_each_seed_draws_its_own_split_and_draws_it_again() -> None:
    first, again, other = (modular_arithmetic("x+y", 23, seed=s) for s in (0, 0, 1))
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert not torch.equal(first.train_inputs, other.train_inputs)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_noise_changes_its_share_of_the_train_labels_and_no_test_label(noise: float) -> None:
    clean = modular_arithmetic("x*y", 23, train_fraction=0.4, seed=3)
    noisy = modular_arithmetic("x*y", 23, train_fraction=0.4, seed=3, label_noise=noise)
    assert torch.equal(clean.train_inputs, noisy.train_inputs)
    assert torch.equal(clean.test_labels, noisy.test_labels)
    changed = int((clean.train_labels != noisy.train_labels).sum())
    assert changed == round(noise * len(clean.train_labels))
    assert int(noisy.train_labels.min()) >= 0
    assert int(noisy.train_labels.max()) < 23


@pytest.mark.parametrize(
    "operation", ["", "x", "y+1", "x+y+z", "f(x,y)", "x if y else 1", "x**y", "x^-1*y", "x and y", "x@y", "x^9999*y"]
)
def test_expressions_that_are_refused(operation: str) -> None:
    with pytest.raises(UsageError):
        equations(operation, 7)


def test_primes() -> None:
    assert [n for n in range(30) if is_prime(n)] == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
