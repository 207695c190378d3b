"""tau_1 and tau_2 of curves whose answers are known, and their censoring."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grokcore.training.clocks import comparison, stays_below, summarise
from grokcore.training.milestones import Passing
from grokcore.training.record import Record

STEPS = np.array([0, 1, 10, 100, 1000])


@pytest.mark.parametrize(
    ("values", "event"),
    [
        ([1, 1, 1, 0.05, 0.01], Passing(100, 10)),
        ([1, 0.05, 1, 0.05, 0.01], Passing(100, 10)),  # a dip from which it comes back
        ([0.05] * 5, Passing(0, 0)),
        ([1, 1, 1, 0.05, 0.2], None),  # censored: it does not stay
        ([1, 1, 1, 0.1, 0.1], None),  # at the level is not below it
        ([1, 1, math.nan, 0.05, 0.05], Passing(100, 10)),
        ([0.05, 0.05, 0.05, 0.05, math.nan], None),
    ],
)
def test_stays_below(values: list[float], event: Passing | None) -> None:
    assert stays_below(STEPS, np.array(values, dtype=float), 0.1) == event


@given(values=st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_stays_below_by_definition(values: list[float]) -> None:
    found = stays_below(STEPS, np.array(values), 0.1)
    staying = [step for i, step in enumerate(STEPS) if all(v < 0.1 for v in values[i:])]
    assert (None if found is None else found.step) == (min(staying) if staying else None)


def record(seed: int, accuracy: list[float], rnc1: list[float]) -> Record:
    names = ["step", "train_accuracy", "test_accuracy", "train_rnc1_mean", "test_rnc1_mean", "train_kappa_squared"]
    rows = [[int(s), a, a / 2, r, 2 * r, 3.0] for s, a, r in zip(STEPS, accuracy, rnc1, strict=True)]
    summary = summarise([dict(zip(names, row, strict=True)) for row in rows])
    config = {"experiment": "dynamics", "preset": "grey", "arm": "mnist-mlp-wd0.1", "variant": [], "seed": seed}
    return Record(config, "0" * 8, {}, "cpu", "0" * 7, 1.0, names, rows, summary)


def test_the_table_counts_the_censored() -> None:
    early = record(0, [0, 0.5, 1, 1, 1], [1, 1, 1, 0.08, 0.04])
    late = record(1, [0, 0.5, 0.9, 0.998, 1], [1, 1, 1, 0.5, 0.09])
    never = record(2, [0, 0.5, 0.9, 0.9, 0.9], [1, 1, 1, 0.5, 0.2])
    (row,) = comparison([never, late, early])
    assert row[:5] == ("mnist-mlp-wd0.1", "0 1 2", "1,000 [10, never]", "1,000 [100, never]", "never [1,000, never]")
    assert early.summary["tau_2"] == {"step": 100, "after": 10}
    assert never.summary["tau_1"] is None
    assert "not within 1,000 steps" in never.summary["words"][0]
