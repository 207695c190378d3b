"""Composition in S_5 against sympy's permutations: the group's laws, the split, the noise."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.combinatorics import Permutation

from grokcore import UsageError
from grokcore.data.permutations import compositions, permutation_composition
from grokcore.data.split import split_equations

ELEMENTS = [Permutation(list(each)) for each in permutations(range(5))]
X, Y, C = compositions()
TABLE = C.reshape(120, 120)


def test_the_elements_are_in_lexicographic_order() -> None:
    assert [e.array_form for e in ELEMENTS] == sorted(e.array_form for e in ELEMENTS)
    assert ELEMENTS[0].is_Identity


def test_every_pair_once() -> None:
    assert list(zip(X.tolist(), Y.tolist(), strict=True)) == [(x, y) for x in range(120) for y in range(120)]
    assert C.dtype == np.int64


@given(x=st.integers(0, 119), y=st.integers(0, 119))
@settings(max_examples=300)
def test_is_x_after_y(x: int, y: int) -> None:
    """sympy's own product of a and b applies a first."""
    assert ELEMENTS[TABLE[x, y]] == ELEMENTS[y] * ELEMENTS[x]
    assert [ELEMENTS[TABLE[x, y]](i) for i in range(5)] == [ELEMENTS[x](ELEMENTS[y](i)) for i in range(5)]


def test_the_other_order_is_another_table() -> None:
    """What the comparison above would find."""
    apart = [(x, y) for x in range(120) for y in range(120) if TABLE[x, y] != TABLE[y, x]]
    # In a finite group |G| times the number of conjugacy classes, 7 in S_5, pairs commute.
    assert len(apart) == 120 * 120 - 120 * 7
    x, y = apart[0]
    assert ELEMENTS[TABLE[x, y]] != ELEMENTS[x] * ELEMENTS[y]


def test_identity_inverses_and_every_answer_once_in_each_row_and_column() -> None:
    every = np.arange(120)
    assert np.array_equal(TABLE[0], every)
    assert np.array_equal(TABLE[:, 0], every)
    assert np.array_equal(np.sort(TABLE, axis=0), np.tile(every[:, None], 120))
    assert np.array_equal(np.sort(TABLE, axis=1), np.tile(every, (120, 1)))
    inverses = [ELEMENTS.index(~e) for e in ELEMENTS]
    assert not TABLE[every, inverses].any()
    assert not TABLE[inverses, every].any()


def test_is_associative() -> None:
    x, y, z = np.random.default_rng(0).integers(0, 120, size=(3, 20_000))
    assert np.array_equal(TABLE[TABLE[x, y], z], TABLE[x, TABLE[y, z]])
    # Composition followed by an inverse is not.
    inverse = np.array([ELEMENTS.index(~e) for e in ELEMENTS])
    other = inverse[TABLE]
    assert not np.array_equal(other[other[x, y], z], other[x, other[y, z]])


@given(seed=st.integers(0, 10_000), fraction=st.floats(0.01, 0.99))
@settings(max_examples=10)
def test_split_is_a_partition(seed: int, fraction: float) -> None:
    split = permutation_composition(train_fraction=fraction, seed=seed)
    n = round(fraction * 14_400)
    assert split.num_classes == 120
    assert (split.train_inputs.shape, split.train_labels.shape) == ((n, 2), (n,))
    assert (split.test_inputs.shape, split.test_labels.shape) == ((14_400 - n, 2), (14_400 - n,))
    rows = torch.cat([split.train_inputs, split.test_inputs])
    assert len(torch.unique(rows @ torch.tensor([120, 1]))) == 14_400
    labels = torch.cat([split.train_labels, split.test_labels])
    assert torch.equal(torch.from_numpy(TABLE)[rows[:, 0], rows[:, 1]], labels)


def test_each_seed_draws_its_own_split_and_draws_it_again() -> None:
    first, again, other = (permutation_composition(seed=s) for s in (0, 0, 1))
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert torch.equal(first.test_labels, again.test_labels)
    assert not torch.equal(first.train_inputs, other.train_inputs)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_noise_changes_its_share_of_the_train_labels_and_no_test_label(noise: float) -> None:
    clean, noisy = (permutation_composition(label_noise=share, seed=3) for share in (0.0, noise))
    assert torch.equal(clean.train_inputs, noisy.train_inputs)
    assert torch.equal(clean.test_labels, noisy.test_labels)
    changed = clean.train_labels != noisy.train_labels
    assert int(changed.sum()) == round(noise * 7200)
    if noise:
        # Uniform over the other 119: the shift takes every value, about equally often.
        shifts = ((noisy.train_labels - clean.train_labels) % 120)[changed].bincount(minlength=120)
        assert int(shifts[0]) == 0
        expected = int(changed.sum()) / 119
        assert float((shifts[1:] - expected).square().sum() / expected) < 119 + 5 * (2 * 119) ** 0.5
        assert not torch.equal(noisy.train_labels, permutation_composition(label_noise=noise, seed=4).train_labels)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_fraction": 0.0}, "between 0 and 1"),
        ({"train_fraction": 1.0}, "between 0 and 1"),
        ({"train_fraction": float("nan")}, "between 0 and 1"),
        ({"train_fraction": 1e-5}, "leaves no train data of 14400"),
        ({"train_fraction": 1 - 1e-5}, "leaves no test data of 14400"),
        ({"label_noise": 1.0}, "label noise"),
        ({"label_noise": -0.1}, "label noise"),
    ],
)
def test_bad_splits(settings: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        permutation_composition(**settings)


def test_splitting_leaves_its_arguments_alone() -> None:
    x, y, c = (np.arange(10), np.arange(10), np.arange(10) % 3)
    before = c.copy()
    split = split_equations(x, y, c, 3, train_fraction=0.5, label_noise=0.9, seed=0)
    assert np.array_equal(c, before)
    assert int((split.train_labels != split.train_inputs[:, 0] % 3).sum()) == round(0.9 * 5)
